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
WORDS = ["status", "detail"]
"""Held once each: all clips of a lost video share its words."""
SAID = pa.schema([(name, pa.dictionary(pa.int32(), pa.string())) for name in ("stage", *WORDS)])


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
    # Each clip's last word as a row number among all that was said: the words stay where they are.
    said = pa.table({"stage": [LAST], "status": [Status.OK], "detail": [""]}, SAID)
    last: pa.ChunkedArray = pa.chunked_array([pa.repeat(pa.scalar(0, pa.int64()), len(catalog))])
    # The first stage to say no is the one that counts, so it is asked last.
    for name, rows, at in (
        ("landmarks", landmarks, landmark_at),
        ("crop", crops, crop_at),
        ("download", failed, lost_at),
        ("catalog", catalog, itself),
    ):
        no = pc.fill_null(pc.not_equal(rows["status"].take(at), Status.OK), False)
        last = pc.if_else(no, pc.add(at, len(said)), last)
        stage = pa.repeat(name, len(rows)).dictionary_encode()
        own = pa.table([stage, *(rows[name] for name in WORDS)], SAID)
        said = pa.concat_tables([said, own])
    words = said.unify_dictionaries().take(last)
    return pa.table(
        {name: catalog[name] for name in (*IDENTITY, "split")}
        | {name: words[name] for name in SAID.names}
    )


def _read(data: str, stage: str, columns: list[str]) -> pa.Table:
    return manifest.read(storage.join(data, MANIFESTS[stage]), columns, WORDS)


def _find(names: pa.ChunkedArray, among: pa.ChunkedArray) -> pa.ChunkedArray:
    """Row numbers of names; null where one is not there or is null itself."""
    return pc.index_in(names, among.combine_chunks(), skip_nulls=True)


def _complete(asked: pa.ChunkedArray, found: pa.ChunkedArray, data: str, name: str) -> None:
    if found.null_count > asked.null_count:
        raise UserError(
            f"{data}/{name}.parquet lacks clips that the stage before it handed on: "
            "they are of different runs; run `dvc repro`"
        )
