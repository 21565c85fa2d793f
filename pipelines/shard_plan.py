"""The plan of the shards: which clips go into which tar, joined from the manifests.

A clip goes in when the catalog has it, and crops and landmarks are ok. Plain Parquet, so that
the workers read their own clips' rows of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from pipelines import storage
from pipelines.errors import StopStage
from pipelines.manifest import ROW_GROUP, ManifestReader, ManifestWriter, clip_names
from pipelines.params import Params
from pipelines.schemas import CATALOG, CROPS, IDENTITY, INDEX, LANDMARKS, PLAIN_NAME

CROP_FACTS = ["first_frame", "size", "policy", "crop_boxes", "padding", "source_width"]
CROP_FACTS += ["source_height", "source_fps", "source_sha256"]
LANDMARK_FACTS = ["path", "sha256", "backend", "frames", "detected", "confidence", "sharpness"]
LANDMARK_FACTS += ["face_size", "yaw", "pitch", "roll", "crop_path", "crop_sha256"]
CATALOG_FACTS = ["split", "shard", "offset", "fv_conf", "asd_conf"]
_WHOLE_NAME = rf"\A{PLAIN_NAME.pattern}\z"
PASS_ROWS = 200_000
"""Clips planned at once: bounds the driver's memory."""
STRANGERS = "shard: the manifests do not belong together; run `dvc repro`"


def plan_schema() -> pa.Schema:
    """One row per clip that goes into a tar, ordered by shard: what a worker needs to know."""
    return pa.schema(
        [INDEX.field(name) for name in IDENTITY]
        + [CATALOG.field(name) for name in CATALOG_FACTS]
        + [CROPS.field(name) for name in CROP_FACTS]
        + [LANDMARKS.field(name) for name in LANDMARK_FACTS]
    )


def write_plan(params: Params, url: str) -> list[tuple[str, int, int, str]]:
    """Write the plan; returns (shard, start, stop, digest of its clips) for every tar."""
    counts: dict[str, int] = {}
    for table in _joined(params):
        for entry in table["shard"].value_counts().to_pylist():
            counts[entry["values"]] = counts.get(entry["values"], 0) + entry["counts"]
    shards: list[tuple[str, int, int, str]] = []
    with ManifestWriter(url, plan_schema()) as writer:
        for names in _portions(counts):
            wanted = pa.array(names)
            tables = [t.filter(pc.is_in(t["shard"], wanted)) for t in _joined(params)]
            plan = pa.concat_tables(tables).sort_by([("shard", "ascending"), ("key", "ascending")])
            at = 0
            for name in names:
                rows = plan.slice(at, counts[name])
                start = writer.rows + at
                content = storage.digest(rows.drop_columns(["path", "crop_path"]).to_pylist())
                shards.append((name, start, start + len(rows), content))
                at += len(rows)
            writer.write(plan)
    return shards


def _portions(counts: dict[str, int]) -> Iterator[list[str]]:
    names: list[str] = []
    for name in sorted(counts):
        if names and sum(counts[n] for n in names) + counts[name] > PASS_ROWS:
            yield names
            names = []
        names.append(name)
    if names:
        yield names


def _joined(params: Params) -> Iterator[pa.Table]:
    """Clips with landmarks, in catalog order, with what catalog and crops know of them."""
    paths = params.paths
    ok = {"catalog": ["status", *IDENTITY, *CATALOG_FACTS]}
    clip = ["status", "source", "key"]
    ok |= {"crop": [*clip, *CROP_FACTS], "landmarks": [*clip, *LANDMARK_FACTS]}
    streams = {
        stage: _Stream(ManifestReader(paths.manifest(stage), columns))
        for stage, columns in ok.items()
    }
    # Each manifest has one row per ok row of the one before, in the same order, so the ok rows
    # of the catalog line up with all crops, and the ok crops with all landmarks.
    while len(catalog := streams["catalog"].take_ok(ROW_GROUP)):
        crops = streams["crop"].take_beside(catalog)
        passed = pc.equal(crops["status"], "ok")
        catalog, crops = catalog.filter(passed), crops.filter(passed)
        landmarks = streams["landmarks"].take_beside(crops)
        passed = pc.equal(landmarks["status"], "ok")
        tables = [t.filter(passed).drop_columns(["status"]) for t in (catalog, crops, landmarks)]
        columns = {name: t[name] for t in tables for name in t.column_names}
        for name in ("key", "shard"):  # they name files and members, and manifests are handed on
            if pc.any(pc.invert(pc.match_substring_regex(columns[name], _WHOLE_NAME))).as_py():
                raise StopStage(f"shard: catalog.parquet holds a {name} that is none: make it anew")
        yield pa.table(columns).select(plan_schema().names).cast(plan_schema())
    if any(stream.left for stream in streams.values()):
        raise StopStage(STRANGERS)


class _Stream:
    """Takes rows off a manifest in whatever portions the join needs."""

    def __init__(self, reader: ManifestReader) -> None:
        self._reader, self._at = reader, 0

    @property
    def left(self) -> int:
        return len(self._reader) - self._at

    def take(self, count: int) -> pa.Table:
        if count > self.left:
            raise StopStage(STRANGERS)
        table = self._reader.rows(self._at, self._at + count) if count else self._empty()
        self._at += count
        return table

    def take_beside(self, before: pa.Table) -> pa.Table:
        """The rows of the clips of `before`."""
        table = self.take(len(before))
        if not clip_names(table).equals(clip_names(before)):
            raise StopStage(STRANGERS)
        return table

    def take_ok(self, count: int) -> pa.Table:
        """The ok rows among the next `count`, looking on until there is one or the end."""
        while self.left:
            table = self.take(min(count, self.left))
            table = table.filter(pc.equal(table["status"], "ok"))
            if len(table):
                return table
        return self._empty()

    def _empty(self) -> pa.Table:
        return self._reader.empty()
