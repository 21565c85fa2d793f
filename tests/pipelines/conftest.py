"""Fixtures of the pipeline's tests: settings, tiny videos, a stage's run without Beam."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pipelines import engine, storage
from pipelines.manifest import ManifestWriter
from pipelines.params import Params

MakeParams = Callable[..., Params]
MakeVideo = Callable[..., Path]


def _settings(folder: Path) -> dict[str, Any]:
    return {
        "name": "tiny",
        "paths": {name: str(folder / name) for name in ("data", "work", "metrics", "cards")},
        "catalog": {
            "metadata": str(folder / "metadata"),
            "takedowns": str(folder / "takedowns.csv"),
            "sources": [{"name": "vox", "reader": "voxceleb2"}],
        },
        "card": {"title": "Tiny", "licence": "mit", "description": "For tests."},
    }


@pytest.fixture
def make_params(tmp_path: Path) -> MakeParams:
    """Settings whose folders lie in `tmp_path`; keyword arguments update whole sections."""

    def make(**sections: dict[str, Any]) -> Params:
        settings = _settings(tmp_path)
        for name, values in sections.items():
            settings[name] = settings.get(name, {}) | values
        (tmp_path / "takedowns.csv").touch()
        if not (tmp_path / "takedowns.csv").read_bytes():
            (tmp_path / "takedowns.csv").write_text("kind,id,date,reason\n")
        return Params.model_validate_json(json.dumps(settings))

    return make


@pytest.fixture
def params_file(tmp_path: Path) -> Callable[[Params], str]:
    """Write settings as a params file; returns its path."""

    def write(params: Params) -> str:
        path = tmp_path / "params.yaml"
        path.write_text(params.model_dump_json(exclude_none=True))
        return str(path)

    return write


@pytest.fixture(scope="session")
def make_video() -> MakeVideo:
    """Write a tiny video of noise."""

    def make(path: Path, frames: int = 10, side: int = 64, seed: int = 0) -> Path:
        noise = np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", 25, options={"preset": "ultrafast"})
            stream.width = stream.height = side
            stream.pix_fmt = "yuv420p"
            for number in range(frames):
                picture = np.roll(noise, number * 7, axis=1)
                for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                    container.mux(packet)
            for packet in stream.encode():
                container.mux(packet)
        return path

    return make


@pytest.fixture
def write_manifest() -> Callable[[Params, str, Any, list[dict[str, Any]]], None]:
    """Write rows as a stage's manifest; columns left out are null."""
    import pyarrow as pa

    def write(params: Params, stage: str, schema: Any, rows: list[dict[str, Any]]) -> None:
        full = [dict.fromkeys(schema.names) | row for row in rows]
        with ManifestWriter(params.paths.manifest(stage), schema) as writer:
            writer.write(pa.Table.from_pylist(full, schema=schema))

    return write


@pytest.fixture
def without_beam(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Run stages in a plain loop; the list gathers the names of the items of each run."""
    runs: list[list[str]] = []

    def run(job: engine.Job, pending: Sequence[engine.Item]) -> None:
        runs.append([item.name for item in pending])
        step = engine.ProcessItems(job.stage, job.worker, job.params.paths.work, None)
        step.setup()
        size = job.worker.threads * 4
        for at in range(0, len(pending), size):
            list(step.process(pending[at : at + size]))

    monkeypatch.setattr(engine, "_run_pipeline", run)
    return runs


@pytest.fixture
def exit_codes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Keep `engine.guarded` from ending the test's process; gathers what it would end with."""
    codes: list[int] = []
    monkeypatch.setattr(engine.os, "_exit", codes.append)
    return codes


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Replace `time.sleep` by a note of the seconds."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    yield slept


@pytest.fixture
def tree_bytes() -> Callable[[str], dict[str, bytes]]:
    """Every file below a folder, by relative name."""

    def read(folder: str) -> dict[str, bytes]:
        root = storage.local_path(folder)
        files = (Path(top, name) for top, _, names in os.walk(root) for name in names)
        return {str(file.relative_to(root)): file.read_bytes() for file in files}

    return read
