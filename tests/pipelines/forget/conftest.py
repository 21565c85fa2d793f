"""Settings with three people, and the work folder that the stages leave of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from leaver import FRIEND, LEAVER, OTHER, OWN, SHARED, STRANGER, annotate, clip_row

from pipelines import storage
from pipelines.params import Params
from pipelines.records import Records
from pipelines.schemas import CROPS, DOWNLOADS, LANDMARKS

MakeParams = Callable[..., Params]


@pytest.fixture
def params(make_params: MakeParams, tmp_path: Path) -> Params:
    """Three people; the first has a video alone and one with the second."""
    root = tmp_path / "metadata"
    annotate(root, LEAVER, OWN)
    annotate(root, LEAVER, OWN, "00002")
    annotate(root, LEAVER, SHARED)
    annotate(root, FRIEND, SHARED)
    annotate(root, STRANGER, OTHER)
    return make_params()


def record(params: Params, stage: str, name: str, schema: pa.Schema, *rows: dict[str, Any]) -> str:
    """A finished item; also writes the files that its rows name."""
    for row in rows:
        if path := row.get("path"):
            storage.write_bytes(storage.join(params.paths.work, path), f"body of {path}".encode())
    full = [dict.fromkeys(schema.names) | row for row in rows]
    fingerprint = storage.digest(name)
    records = Records(params.paths.work, stage)
    records.write(fingerprint, pa.Table.from_pylist(full, schema=schema), 1.0)
    return records.url(fingerprint)


@pytest.fixture
def worked(params: Params) -> Params:
    """What the stages leave in the work folder, and what killed ones do."""
    for video, name in ((OWN, "aa11"), (SHARED, "bb22"), (OTHER, "cc33")):
        row = {"source": "vox", "video": video, "status": "ok", "detail": "", "origin": "site"}
        path = f"videos/{name[:2]}/{name}-site.mp4"
        record(params, "download", video, DOWNLOADS, row | {"path": path})
    record(params, "crop", "own", CROPS, clip_row(LEAVER, OWN, "00001", "crops/11/1101.mp4"))
    shared = clip_row(LEAVER, SHARED, "00001", "crops/22/2201.mp4")
    friend = clip_row(FRIEND, SHARED, "00001", "crops/22/2202.mp4")
    record(params, "crop", "shared", CROPS, shared, friend)
    record(params, "crop", "other", CROPS, clip_row(STRANGER, OTHER, "00001", "crops/33/3301.mp4"))
    # An older setting's crop of the leaver: only its record still knows whose it is.
    record(params, "crop", "old", CROPS, clip_row(LEAVER, OWN, "00001", "crops/44/4401.mp4"))
    for person, video, path in (
        (LEAVER, OWN, "landmarks/55/5501.npz"),
        (FRIEND, SHARED, "landmarks/66/6601.npz"),
    ):
        record(params, "landmarks", path, LANDMARKS, clip_row(person, video, "00001", path))
    work = params.paths.work
    for stray in ("crops/77/7701.mp4", "videos/88/8801-site.mp4", "partial/99/video.part"):
        storage.write_bytes(storage.join(work, stray), b"nobody's")
    storage.write_bytes(storage.join(work, "plans/1.parquet"), b"plan")
    storage.write_bytes(Records(work, "crop").url("f" * 64), b"damaged")
    return params
