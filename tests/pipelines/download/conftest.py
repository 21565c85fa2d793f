"""A site that fails on demand, and runs of the stage against it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from small_site import Row, Run

from pipelines import download, engine, manifest
from pipelines.params import Params
from pipelines.sample.server import SampleServer
from pipelines.schemas import CATALOG, DOWNLOADS
from pipelines.statuses import Status


@pytest.fixture
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Buckets and breakers of the machine stay out of the tests."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


@pytest.fixture(scope="session")
def whole_video(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> Path:
    return make_video(tmp_path_factory.mktemp("videos") / "whole.mp4", frames=25, side=128)


@pytest.fixture
def serve(tmp_path: Path, whole_video: Path) -> Iterator[Callable[..., SampleServer]]:
    """Start a site that holds videos of these ids, with faults."""
    servers: list[SampleServer] = []

    def start(*videos: str, **faults: str) -> SampleServer:
        folder = tmp_path / f"site{len(servers)}"
        folder.mkdir()
        for video in (*videos, *faults):
            shutil.copyfile(whole_video, folder / f"{video}.mp4")
        server = SampleServer(folder, faults, retry_after=0)
        servers.append(server)
        return server.__enter__()

    yield start
    for server in servers:
        server.__exit__(None, None, None)


@pytest.fixture
def run(make_params: Callable[..., Params], write_manifest: Callable[..., None]) -> Run:
    """Write a catalog of clips, run the stage, return its rows by video."""

    def run_stage(
        clips: list[str | Row], retry: frozenset[Status] = frozenset(), **settings: Any
    ) -> dict[str, Row]:
        manners = {"per_minute": 1e6, "burst": 1000, "backoff": 0.001, "timeout": 5.0}
        manners |= {"retries": 0, "concurrency": 1}
        params = make_params(download=manners | settings)
        rows: list[Row] = []
        for clip in clips:
            row = {"video": clip} if isinstance(clip, str) else clip
            row = {"person": "id1", "utterance": "00001", "status": "ok", "source": "vox"} | row
            row |= {"key": f"{row['person']}_{row['video']}_{row['utterance']}", "detail": ""}
            rows.append(row | {"split": "train", "shard": "vox-train-00000", "crop_ready": False})
        write_manifest(params, "catalog", CATALOG, rows)
        summary = engine.run(download.prepare(params), retry)
        table = manifest.read(params.paths.manifest("download"))
        assert table.schema.equals(DOWNLOADS)
        assert summary.rows == len(table)
        return {row["video"]: row for row in table.to_pylist()}

    return run_stage
