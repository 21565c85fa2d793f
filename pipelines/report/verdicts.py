"""What became of every clip: which stage had the last word, its status, the tool's own words."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from pipelines import manifest, storage
from pipelines.errors import UserError
from pipelines.params import MANIFESTS
from pipelines.schemas import IDENTITY
from pipelines.statuses import Status

LAST = "shard"
"""The stage of a clip that met no obstacle."""


def read_verdicts(data: str) -> pa.Table:
    """A row for each row of the catalog in the folder or URL `data`, in its order.

    Columns: IDENTITY, split, stage, status, detail. A clip whose video was not downloaded has
    the download's own status and words. Raises UserError where manifests are missing or are of
    different runs.
    """
    catalog = _read(data, "catalog", [*IDENTITY, "split", "media", "status", "detail"])
    crops = _read(data, "crop", ["source", "key", "status", "detail"])
    landmarks = _read(data, "landmarks", ["source", "key", "status", "detail"])
    downloads = _read(data, "download", ["video", "status", "detail"])
    failed = downloads.filter(pc.not_equal(downloads["status"], Status.OK))

    turned_away = pc.not_equal(catalog["status"], Status.OK)
    asked = pc.if_else(turned_away, pa.scalar(None, pa.string()), manifest.clip_names(catalog))
    crop_at = _find(asked, manifest.clip_names(crops))
    _complete(asked, crop_at, data, "crops")
    crop_status = crops["status"].take(crop_at)
    uncut = pc.fill_null(pc.not_equal(crop_status, Status.OK), False)
    cut = pc.if_else(uncut, pa.scalar(None, pa.string()), asked)
    landmark_at = _find(cut, manifest.clip_names(landmarks))
    _complete(cut, landmark_at, data, "landmarks")

    is_ready = pc.is_valid(catalog["media"])
    videos = pc.if_else(is_ready, manifest.ready_names(catalog), catalog["video"])
    missing = pc.fill_null(pc.equal(crop_status, Status.SOURCE_MISSING), False)
    none = pa.scalar(None, pa.string())
    older = pc.if_else(is_ready, manifest.older_ready_names(catalog), none)
    found = (_find(pc.if_else(missing, names, none), failed["video"]) for names in (videos, older))
    lost_at = pc.coalesce(*found)

    itself = pa.chunked_array([pa.array(range(len(catalog)), pa.int32())])
    itself = pc.if_else(turned_away, itself, pa.scalar(None, pa.int32()))
    stage: pa.ChunkedArray = pa.chunked_array([pa.repeat(LAST, len(catalog))])
    status = pa.chunked_array([pa.repeat(Status.OK.value, len(catalog))])
    detail = pa.chunked_array([pa.repeat("", len(catalog))])
    # The first stage to say no is the one that counts, so it is asked last.
    for name, rows, at in (
        ("landmarks", landmarks, landmark_at),
        ("crop", crops, crop_at),
        ("download", failed, lost_at),
        ("catalog", catalog, itself),
    ):
        said = rows["status"].take(at)
        no = pc.fill_null(pc.not_equal(said, Status.OK), False)
        stage = pc.if_else(no, name, stage)
        status = pc.if_else(no, said, status)
        detail = pc.if_else(no, rows["detail"].take(at), detail)
    columns = {name: catalog[name] for name in (*IDENTITY, "split")}
    return pa.table(columns | {"stage": stage, "status": status, "detail": detail})


def _read(data: str, stage: str, columns: list[str]) -> pa.Table:
    return manifest.read(storage.join(data, MANIFESTS[stage]), columns)


def _find(names: pa.ChunkedArray, among: pa.ChunkedArray) -> pa.ChunkedArray:
    """Row numbers of names; null where one is not there or is null itself."""
    return pc.index_in(names, among.combine_chunks(), skip_nulls=True)


def _complete(asked: pa.ChunkedArray, found: pa.ChunkedArray, data: str, name: str) -> None:
    if found.null_count > asked.null_count:
        raise UserError(
            f"{data}/{name}.parquet lacks clips that the stage before it handed on: "
            "they are of different runs; run `dvc repro`"
        )
