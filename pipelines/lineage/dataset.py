"""The datasets at hand: which clips an index holds, and where in which video each begins."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines import manifest, storage
from pipelines.download import older_name, video_name
from pipelines.errors import UserError
from pipelines.params import MANIFESTS, Params
from pipelines.records import Records
from pipelines.schemas import IDENTITY
from pipelines.takedowns import read_takedowns

INDEX_COLUMNS = [*IDENTITY, "split", "shard", "shard_sha256"]
STAGES = tuple(MANIFESTS)
CLIP = ["source", "key"]
"""What tells clips apart: two sources may use the same key."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Index:
    """One state of the dataset."""

    url: str
    digest: str
    clips: pa.Table

    def of(self, split: str) -> pa.Table:
        """The clips of one split; of all for an empty word."""
        return self.clips.filter(pc.equal(self.clips["split"], split)) if split else self.clips


@dataclass(frozen=True)
class Asked:
    """Whose traces are sought: a clip's key, a person or a video."""

    kind: str
    id: str

    def rows(self, table: pa.Table) -> pa.Table:
        """Those of a table of clips."""
        column = "key" if self.kind == "clip" else self.kind
        return table.filter(pc.equal(table[column], self.id))


class Project:
    """The manifests of params.yaml, and older indexes given by name."""

    def __init__(self, params: Params, older: Sequence[str] = ()) -> None:
        self.params = params
        current = params.paths.manifest("shard")
        self.indexes: dict[str, Index] = {}
        if storage.exists(current):
            older = (current, *older)
        for url in older:
            index = read_index(url)
            self.indexes.setdefault(index.digest, index)
        self.current = next(iter(self.indexes)) if storage.exists(current) else None

    def table(self, stage: str, columns: list[str]) -> pa.Table | None:
        """Columns of a stage's manifest, if it is there."""
        url = self.params.paths.manifest(stage)
        return manifest.read(url, columns) if storage.exists(url) else None

    @cached_property
    def _places(self) -> pa.Table | None:
        """Of each clip: where it was cut, and the file it was cut into."""
        columns = ["video", "sha256", "source_sha256", "first_frame", "frames"]
        crops = self.table("crop", [*CLIP, *columns])
        links = self.table("catalog", [*CLIP, "url", "media"])
        if crops is None or links is None:
            return None
        return crops.join(links, CLIP, join_type="left outer")

    def clip_of(self, sha256: str) -> Row | None:
        """Name and link of the clip whose file, or whose whole video, has this digest."""
        if self._places is None or not sha256:
            return None
        for column in ("sha256", "source_sha256"):
            found = self._places.filter(pc.equal(self._places[column], sha256))
            if len(found):
                row = found.slice(length=1).to_pylist()[0]
                return {"name": _name(row), "url": self.link(row), "whole": column != "sha256"}
        return None

    def earlier_clip_of(self, sha256: str) -> Row | None:
        """The same, of a file that the crop stage has cut anew since: its record still tells."""
        for table in self._ever_cut() if sha256 else ():
            found = table.filter(pc.equal(table["sha256"], sha256))
            if len(found):
                row = found.slice(length=1).to_pylist()[0]
                known = self.clip_of(row["source_sha256"] or "")
                url = known["url"] if known else self.link(row)
                return {"name": _name(row), "url": url, "whole": False}
        return None

    def earlier_files_of(self, asked: Asked) -> dict[str, str]:
        """Digests of all files that were ever cut of what is asked for, with the clip's name."""
        tables = (asked.rows(table) for table in self._ever_cut())
        rows = (row for table in tables for row in table.to_pylist())
        return {row["sha256"]: _name(row) for row in rows if row["sha256"]}

    def _ever_cut(self) -> Iterator[pa.Table]:
        """Clips of each record in the work folder, of other versions and settings too."""
        records = Records(self.params.paths.work, "crop")
        for read in records.reads(sorted(records.present())):
            try:
                yield read()[0].select([*IDENTITY, "sha256", "source_sha256"])
            except (pa.ArrowInvalid, FileNotFoundError):
                continue

    def files_of(self, clips: pa.Table) -> dict[str, str]:
        """Digests of the clips' files and videos, with the clip's name."""
        if self._places is None:
            return {}
        rows = self._places.join(clips.select(CLIP), CLIP, join_type="left semi").to_pylist()
        return {
            row[column]: _name(row)
            for column in ("source_sha256", "sha256")
            for row in rows
            if row[column]
        }

    def clip_list(self, clips: pa.Table) -> Iterator[Row]:
        """Key, source, its link, start and end in seconds, and tar of each clip."""
        table = clips.select([*CLIP, "person", "video", "split", "shard"])
        if self._places is not None:
            places = self._places.drop_columns("video")
            table = table.join(places, CLIP, join_type="left outer")
        for batch in table.sort_by([("key", "ascending"), ("source", "ascending")]).to_batches():
            for row in batch.to_pylist():
                start, frames = row.get("first_frame"), row.get("frames")
                known = start is not None and frames is not None
                yield {
                    "key": row["key"],
                    "source": row["source"],
                    "url": self.link(row),
                    "start": start / 25 if known else None,
                    "end": (start + frames) / 25 if known else None,
                    "tar": f"{row['shard']}.tar",
                }

    def link(self, row: Row) -> str:
        """Where a clip's video comes from."""
        template = self.params.download.url.replace("{video_id}", row["video"])
        return row.get("url") or row.get("media") or template

    def known_as(self, asked: Asked) -> dict[str, Counter[str]]:
        """What each stage made of what is asked for: rows by status."""
        found: dict[str, Counter[str]] = {}
        videos: set[str] = set()
        for stage in STAGES:
            columns = ["source", "video", "status"] if stage == "download" else [*IDENTITY]
            if stage not in ("download", "shard"):
                columns.append("status")
            if stage == "catalog":
                columns.append("media")
            if (table := self.table(stage, columns)) is None:
                continue
            if stage == "download":
                rows = table.filter(pc.is_in(table["video"], pa.array(sorted(videos), pa.string())))
            else:
                rows = asked.rows(table)
            if stage == "catalog":
                clips = rows.to_pylist()
                videos = {name(row) for row in clips for name in (video_name, older_name)}
            words = rows["status"].to_pylist() if stage != "shard" else ["ok"] * len(rows)
            found[stage] = Counter(words)
        return found

    def is_taken_down(self, asked: Asked) -> bool:
        """Whether takedowns.csv names it."""
        try:
            takedowns = read_takedowns(self.params.catalog.takedowns)
        except UserError:
            return False
        return (asked.kind, asked.id) in takedowns.lines


def _name(row: Row) -> str:
    """A clip's name for people."""
    return f"{row['key']} of {row['source']}"


def read_index(url: str) -> Index:
    """Read an index.parquet and its digest. Raises UserError where it is none."""
    clips = manifest.read(url, INDEX_COLUMNS)
    with (
        tempfile.TemporaryDirectory(prefix="likeness-") as scratch,
        storage.local_copy(url, Path(scratch)) as path,
    ):
        return Index(url, storage.sha256(path), clips)


def count(clips: pa.Table) -> str:
    """Clips in a few words."""
    numbers = [
        (len(clips), "clip", "clips"),
        (len(clips["person"].unique()), "person", "people"),
        (len(clips.group_by(["source", "person", "video"]).aggregate([])), "video", "videos"),
        (len(clips["shard"].unique()), "tar", "tars"),
    ]
    clip, who, where, held = (f"{n:,} {one if n == 1 else many}" for n, one, many in numbers)
    return f"{clip} of {who} in {where}, in {held}"
