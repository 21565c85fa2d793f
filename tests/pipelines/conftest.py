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
from toy_folder import Toy

from pipelines import command, engine, storage
from pipelines.job import Item, Job
from pipelines.manifest import ManifestWriter
from pipelines.params import Params, Paths
from pipelines.runner import ProcessItems

MakeParams = Callable[..., Params]
MakeVideo = Callable[..., Path]


def _settings(folder: Path) -> dict[str, Any]:
    return {
        "name": "tiny",
        "paths": {name: str(folder / name) for name in Paths.model_fields},
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

    def run(job: Job, pending: Sequence[Item]) -> None:
        runs.append([item.name for item in pending])
        step = ProcessItems(job.stage, job.worker, job.params.paths.work, None)
        step.setup()
        size = job.worker.threads * 4
        for at in range(0, len(pending), size):
            list(step.process(pending[at : at + size]))

    monkeypatch.setattr(engine, "run_items", run)
    return runs


@pytest.fixture
def exit_codes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Keep `command.guarded` from ending the test's process; gathers what it would end with."""
    codes: list[int] = []
    monkeypatch.setattr(command.os, "_exit", codes.append)
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


@pytest.fixture
def toy(tmp_path: Path, make_params: MakeParams, params_file: Callable[[Params], str]) -> Toy:
    """A toy stage that may lose half of its rows."""
    params = make_params(download={"max_failed": 0.5})
    return Toy(tmp_path, params, params_file(params))


@pytest.fixture
def finished(
    make_params: MakeParams, make_video: MakeVideo, write_manifest: Callable[..., None]
) -> Callable[..., Params]:
    """Manifests, crops and landmarks as the stages before the shards leave them.

    `videos`: clips a video; every third clip of the catalog is filtered, the sixth crop failed.
    """
    from pipelines.clips import pack_arrays
    from pipelines.schemas import CATALOG, CROPS, DOWNLOADS, IDENTITY, LANDMARKS

    def make(videos: Sequence[int] = (3, 2, 4), **sections: Any) -> Params:
        params = make_params(shard={"clips": 3, "frames": 3}, **sections)
        work = Path(params.paths.work)
        catalog: list[dict[str, Any]] = []
        for at, clips in enumerate(videos):
            split = ("train", "val", "test")[at % 3]
            for n in range(clips):
                name = {"person": f"id{at}", "video": f"v{at}", "utterance": f"{n:05d}"}
                key = "_".join(name.values())
                place = {"split": split, "shard": f"vox-{split}-{at // 3:05d}", "source": "vox"}
                status = "filtered" if len(catalog) % 3 == 2 else "ok"
                common = {"detail": "", "crop_ready": False, "fv_conf": 0.5}
                catalog.append({"key": key, "status": status} | common | name | place)
        wanted = [row for row in catalog if row["status"] == "ok"]
        crops, landmarks = [], []
        for n, row in enumerate(wanted):
            same = {name: row[name] for name in IDENTITY} | {"detail": ""}
            clip = work / "crops" / f"{row['key']}.mp4"
            if not clip.exists():
                make_video(clip, frames=4 + n % 3, side=32, seed=n)
            facts = {"first_frame": n, "frames": 4 + n % 3, "size": 32, "policy": "clip"}
            facts |= {"crop_boxes": [[0, 0, 50, 50]], "padding": 0.25, "source_sha256": "00"}
            facts |= {"source_width": 64, "source_height": 48, "source_fps": 25.0}
            status = "too_small" if n == 5 else "ok"
            made = {"path": f"crops/{row['key']}.mp4", "sha256": storage.sha256(clip)}
            crops.append(same | facts | made | {"status": status})
            if status != "ok":
                continue
            points = np.full((facts["frames"], 68, 2), n, np.float32)
            data = pack_arrays({"points": points})
            storage.write_bytes(str(work / "landmarks" / f"{row['key']}.npz"), data)
            measured = {"backend": "mediapipe", "frames": facts["frames"], "detected": 4}
            measured |= {
                "confidence": 0.9,
                "yaw": float("nan"),
                "sha256": storage.digest_bytes(data),
            }
            measured |= {"path": f"landmarks/{row['key']}.npz", "crop_sha256": made["sha256"]}
            measured |= {"crop_path": f"crops/{row['key']}.mp4"}
            landmarks.append(same | measured | {"status": "blurred" if n == 1 else "ok"})
        names = dict.fromkeys(row["video"] for row in wanted)
        downloads = [{"source": "vox", "video": v, "status": "ok", "detail": ""} for v in names]
        write_manifest(params, "catalog", CATALOG, catalog)
        write_manifest(params, "download", DOWNLOADS, downloads)
        write_manifest(params, "crop", CROPS, crops)
        write_manifest(params, "landmarks", LANDMARKS, landmarks)
        return params

    return make


@pytest.fixture
def told(finished: Callable[..., Params], without_beam: list[list[str]]) -> Params:
    """A finished set, its shards included."""
    from pipelines import engine, shard

    params = finished()
    engine.run(shard.prepare(params))
    return params
