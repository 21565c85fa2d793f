"""Fixtures of the attacks: those of the stages' tests, and who wrote where."""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from forgery import Payload

from pipelines import catalog, crop, download, engine, manifest, shard, verify
from pipelines.params import Params
from pipelines.schemas import CATALOG


def _load(name: str) -> ModuleType:
    """A module of the tests next door."""
    path = Path(__file__).parents[1] / name
    sys.path.insert(0, str(path.parent))  # where it finds its own helpers
    spec = spec_from_file_location(f"security_{path.parent.name}_{path.stem}", path)
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_stages = _load("pipelines/conftest.py")
make_params, params_file = _stages.make_params, _stages.params_file
make_video, write_manifest = _stages.make_video, _stages.write_manifest
without_beam, exit_codes, finished = _stages.without_beam, _stages.exit_codes, _stages.finished

try:
    make_shards = _load("training/tiny_shards.py").make_shards
except ModuleNotFoundError:  # the `train` extra is not installed
    collect_ignore = [f"test_attack_{name}.py" for name in ("indexes", "models", "tars")]

Row = dict[str, Any]
_watching: list[set[Path]] = []
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
_TARGETS = {"os.rename": 1, "os.link": 1, "os.symlink": 1, "os.mkdir": 0, "os.remove": 0}


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if event == "open":
        path, mode, flags = arguments
        if (isinstance(mode, str) and not set(mode) & set("wax+")) or not (flags or 0) & _WRITES:
            return
    elif event in _TARGETS and arguments[-1] in (None, -1):  # not relative to an open folder
        path = arguments[_TARGETS[event]]
    else:
        return
    if isinstance(path, str | bytes | os.PathLike):
        for places in _watching:
            places.add(Path(os.path.abspath(os.fsdecode(path))))  # noqa: PTH100 (links stay)


sys.addaudithook(_note)


@pytest.fixture
def written() -> Callable[[], Any]:
    """In the block, every path that this process opens for writing, makes, renames or deletes."""

    @contextmanager
    def watch() -> Iterator[set[Path]]:
        places: set[Path] = set()
        _watching.append(places)
        try:
            yield places
        finally:
            _watching.remove(places)

    return watch


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What goes to /tmp is seen as well."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


MANNERS = {"per_minute": 1e6, "burst": 1000, "backoff": 0.001, "timeout": 5.0, "retries": 0}


@pytest.fixture
def fetch_all(
    make_params: Callable[..., Params], write_manifest: Callable[..., None], without_beam: Any
) -> Callable[..., dict[str, Row]]:
    """Put clips of these videos into a catalog, run the download stage, return its rows."""

    def run(videos: list[str | Row], **settings: Any) -> dict[str, Row]:
        params = make_params(download=MANNERS | {"concurrency": 1} | settings)
        rows = []
        for given in videos:
            row = {"video": given} if isinstance(given, str) else given
            row = {"person": "id1", "utterance": "00001", "status": "ok", "source": "vox"} | row
            row |= {"key": f"id1_{row['video']}_00001", "detail": "", "crop_ready": False}
            rows.append(row | {"split": "train", "shard": "vox-train-00000"})
        write_manifest(params, "catalog", CATALOG, rows)
        engine.run(download.prepare(params))
        table = manifest.read(params.paths.manifest("download")).to_pylist()
        assert len(table) == len(videos)
        return {row["video"]: row for row in table}

    return run


@pytest.fixture
def rebuild(without_beam: Any) -> Callable[[Params], list[Row]]:
    """Catalog, download and crop; returns the catalog's rows."""

    def run(params: Params) -> list[Row]:
        catalog.build(params)
        engine.run(download.prepare(params))
        engine.run(crop.prepare(params))
        return manifest.read(params.paths.manifest("catalog")).to_pylist()

    return run


@pytest.fixture
def video(tmp_path: Path, make_video: Callable[..., Path]) -> bytes:
    return make_video(tmp_path / "made" / "v.mp4", frames=25, side=128).read_bytes()


@pytest.fixture
def told(finished: Callable[..., Params], without_beam: Any) -> Params:
    """A finished set."""
    params = finished((3,))
    engine.run(shard.prepare(params))
    assert verify.verify(params)["clips"]
    return params


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """Exists once a payload has run; that it would is shown here."""
    path = tmp_path / "payload-ran"
    pickle.loads(pickle.dumps(Payload(path)))
    assert path.exists()
    path.unlink()
    return path
