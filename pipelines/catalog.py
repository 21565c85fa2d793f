"""Catalog: read the published annotations into one row per clip.

Reads the sources of params.yaml and takedowns.csv, writes catalog.parquet in the order
(source, person, video, utterance). A line that cannot be read becomes a `bad_annotation` row
that names file and line. Memory stays flat: rows are spilled once, because the number of
shards of a source is only known when all of its clips are counted.
"""

from __future__ import annotations

import hashlib
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import progress, storage
from pipelines.clip_keys import Keys, clip_key
from pipelines.command import arguments, guarded
from pipelines.errors import UserError
from pipelines.manifest import ROW_GROUP, ManifestWriter
from pipelines.params import Params, load
from pipelines.params.dataset import Filters, Source
from pipelines.schemas import BOX, CATALOG
from pipelines.sources import READERS, metadata_folder
from pipelines.sources.base import Annotation, BadRow, SourceError
from pipelines.sources.people import read_people
from pipelines.splits import REMEDY, misfit, split_of, stable_fraction
from pipelines.statuses import Status
from pipelines.summary import Summary, exit_status, write_metrics
from pipelines.takedowns import Takedowns, read_takedowns

STAGE = "catalog"


# --- rules of one row ------------------------------------------------------------------------


def bucket_of(video: str, buckets: int) -> int:
    """Which of a source's shards holds a video."""
    return int(stable_fraction("bucket", video) * buckets)


def _or(value: float | None, missing: float) -> float:
    return missing if value is None else value


def filtered(row: Annotation, filters: Filters) -> str:
    """Why a clip misses a filter; empty when it passes."""
    if filters.min_fv_conf is not None and _or(row.fv_conf, np.inf) < filters.min_fv_conf:
        return f"fv_conf {row.fv_conf} below {filters.min_fv_conf}"
    if filters.min_asd_conf is not None and _or(row.asd_conf, np.inf) < filters.min_asd_conf:
        return f"asd_conf {row.asd_conf} below {filters.min_asd_conf}"
    if filters.max_offset is not None and abs(row.offset or 0) > filters.max_offset:
        return f"offset {row.offset} beyond {filters.max_offset}"
    if row.frames is not None:
        if filters.min_frames is not None and row.frames < filters.min_frames:
            return f"{row.frames} frames, fewer than {filters.min_frames}"
        if filters.max_frames is not None and row.frames > filters.max_frames:
            return f"{row.frames} frames, more than {filters.max_frames}"
    return ""


# --- building --------------------------------------------------------------------------------

Row = dict[str, object]


class _Builder:
    """Turns a source's annotations into catalog rows without shard names."""

    def __init__(self, source: Source, params: Params, takedowns: Takedowns) -> None:
        self._source, self._params, self._takedowns = source, params, takedowns
        self._root = metadata_folder(params.catalog.metadata)
        self._published: dict[str, str | None] = {}
        self.people_rows: list[BadRow] = []
        if source.people:
            people, self.people_rows = read_people(self._root / source.people)
            self._published = {name: person.split for name, person in people.items()}
        self._people: set[str] = set()
        self._check_table()
        self._keys = Keys()
        self.taken_out: set[str] = set()
        """Identifiers of the takedowns that were met."""
        self.clips: Counter[str] = Counter()  # by split; fixes the number of buckets
        self._splits: dict[str, str] = {}
        self.torn: set[str] = set()
        """People whose clips the publisher put into several splits."""

    def rows(self) -> Iterator[Row]:
        """One row per annotation, whatever becomes of it."""
        for bad in self.people_rows:
            yield self._bad(bad)
        for item in READERS[self._source.reader](self._root / self._source.path):
            yield self._bad(item) if isinstance(item, BadRow) else self._clip(item)
        self._check_table()

    def _check_table(self) -> None:
        """Raise SourceError where the table of people cannot split those met so far."""
        if not (self._source.people and self._params.catalog.split.use_published):
            return
        if why := misfit(self._published, self._people):
            raise SourceError(f"{self._root / self._source.people}: {why}; {REMEDY}")

    def _bad(self, bad: BadRow) -> Row:
        where = f"{self._source.name}/{bad.where}"
        if names := self._takedowns.named_in(f"{where} {bad.reason}"):
            self.taken_out.update(names)
            return self._excluded(where, bad.video or where)
        # The publisher's own words stay out of the identifiers: they may be anything.
        return _row(
            key=where,
            source=self._source.name,
            status=Status.BAD_ANNOTATION,
            detail=f"{bad.where}: {bad.reason}",
        )

    def _excluded(self, key: str, video: str) -> Row:
        # The row stays, so that counts and shard numbers do; who it was does not.
        name = "x" + hashlib.sha256(key.encode()).hexdigest()[:16]
        return _row(
            key=name,
            source=self._source.name,
            person="excluded",
            video="x" + hashlib.sha256(video.encode()).hexdigest()[:16],
            utterance=name,
            status=Status.EXCLUDED,
        )

    def _clip(self, item: Annotation) -> Row:
        key = clip_key(item.person, item.video, item.utterance)
        self._people.add(item.person)
        published = item.split or self._published.get(item.person)
        split = split_of(item.person, published, self._params.catalog.split)
        if taken := self._keys.taken_by(item):
            return self._bad(_second(item, key, taken))
        self.clips[split] += 1
        if names := self._takedowns.covering(item, key):
            self.taken_out.update(names)
            return self._excluded(key, item.video)
        if self._splits.setdefault(item.person, split) != split:
            self.torn.add(item.person)
        why = filtered(item, self._params.catalog.filters)
        media = item.media
        if media is not None and Path(media).is_relative_to(self._root.absolute()):
            media = str(Path(media).relative_to(self._root.absolute()))
        return _row(
            key=key,
            source=self._source.name,
            person=item.person,
            video=item.video,
            utterance=item.utterance,
            split=split,
            first_frame=item.first_frame,
            frames=item.frames,
            fps=item.fps,
            segment_start=item.segment_start,
            boxes=item.boxes,
            box_height=item.box_height,
            crop_ready=item.crop_ready,
            url=item.url,
            media=media,
            offset=item.offset,
            fv_conf=item.fv_conf,
            asd_conf=item.asd_conf,
            status=Status.FILTERED if why else Status.OK,
            detail=why,
        )


def _second(item: Annotation, key: str, first: str) -> BadRow:
    """A clip whose key another has: two of a name would be one sample in a tar."""
    name = f"{item.person}/{item.video}/{item.utterance}"
    if name == first:
        return BadRow(key, "the same clip is annotated twice")
    return BadRow(name, f"its key {key} is that of {first} too; rename one of them")


def _row(**values: object) -> Row:
    row: Row = dict.fromkeys(CATALOG.names)
    row.update(person="", video="", utterance="", split="", shard="", detail="", crop_ready=False)
    row.update(values)
    return row


def _table(rows: Sequence[Row]) -> pa.Table:
    arrays = []
    for column in CATALOG:
        values = [row[column.name] for row in rows]
        arrays.append(_boxes(values) if column.name == "boxes" else pa.array(values, column.type))
    return pa.Table.from_arrays(arrays, schema=CATALOG)


def _boxes(values: Sequence[object]) -> pa.Array:
    """A column of box lists straight from the numpy arrays: the bulk of the catalog."""
    arrays = [v for v in values if isinstance(v, np.ndarray)]
    ends = np.cumsum([0, *(len(v) if isinstance(v, np.ndarray) else 0 for v in values)])
    flat = np.concatenate(arrays).astype(np.float32, copy=False) if arrays else np.empty((0, 4))
    boxes = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel(), pa.float32()), type=BOX)
    missing = pa.array([v is None for v in values])
    return pa.ListArray.from_arrays(
        pa.array(ends, pa.int32()), boxes, CATALOG.field("boxes").type, mask=missing
    )


def build(params: Params) -> Summary:
    """Write catalog.parquet. Raises UserError where a source or takedowns.csv is unusable."""
    started = time.monotonic()
    summary = Summary(STAGE, "clips")
    takedowns = read_takedowns(params.catalog.takedowns)
    met: set[str] = set()
    torn: dict[str, set[str]] = {}
    with (
        storage.scratch_folder(params.paths.work) as scratch,
        ManifestWriter(params.paths.manifest(STAGE), CATALOG) as writer,
        progress.simple(STAGE, "clips", None) as tick,
    ):
        for source in sorted(params.catalog.sources, key=lambda s: s.name):
            spill = scratch / f"{source.name}.parquet"
            try:
                builder = _Builder(source, params, takedowns)
                _spill(builder, spill, tick)
                met |= builder.taken_out
                torn[source.name] = builder.torn
            except SourceError as error:
                raise UserError(f"catalog.sources.{source.name}: {error}") from None
            for table in _with_shards(spill, source.name, builder.clips, params.shard.clips):
                writer.write(table)
                summary.statuses.update(table.column("status").to_pylist())
        summary.rows = summary.items = writer.rows
    usage = resource.getrusage(resource.RUSAGE_SELF)
    summary.cpu_seconds = usage.ru_utime + usage.ru_stime
    summary.peak_mib = usage.ru_maxrss / 1024
    summary.seconds = time.monotonic() - started
    write_metrics(params, summary)
    for name, people in torn.items():
        if people:
            progress.complain(
                f"catalog.sources.{name}: the publisher put clips of one person into several "
                f"splits (people: {len(people)}, such as {min(people)}); "
                "catalog.split.use_published: false keeps people whole"
            )
    if idle := sorted(line for name, line in takedowns.lines.items() if name not in met):
        # By its line: the names of those who were taken out stay out of logs.
        progress.complain(
            f"{params.catalog.takedowns}: line{'s' * (len(idle) > 1)} {', '.join(map(str, idle))} "
            "take out nothing that these lists hold; are kind and id right?"
        )
    return summary


def _spill(builder: _Builder, path: Path, tick: Callable[[int], None]) -> None:
    # Read once and deleted: quick to write rather than small.
    with pq.ParquetWriter(path, CATALOG, compression="lz4", use_dictionary=False) as spill:
        batch: list[Row] = []
        for row in builder.rows():
            batch.append(row)
            if len(batch) == ROW_GROUP:
                spill.write_table(_table(batch))
                tick(len(batch))
                batch = []
        if batch:
            spill.write_table(_table(batch))
            tick(len(batch))


def _with_shards(
    spill: Path, source: str, clips: Counter[str], clips_per_shard: int
) -> Iterator[pa.Table]:
    buckets = {split: max(1, -(-n // clips_per_shard)) for split, n in clips.items()}
    for batch in pq.ParquetFile(spill).iter_batches(ROW_GROUP):
        splits, videos = batch["split"].to_pylist(), batch["video"].to_pylist()
        shards = [
            f"{source}-{split}-{bucket_of(video, buckets[split]):05d}" if split else ""
            for split, video in zip(splits, videos, strict=True)
        ]
        table = pa.Table.from_batches([batch])
        at = CATALOG.get_field_index("shard")
        yield table.set_column(at, CATALOG.field(at), pa.array(shards, pa.string()))


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m pipelines.catalog`."""
    options = arguments(__doc__ or "").parse_args(argv)

    def command() -> int:
        params = load(options.params)
        summary = build(params)
        progress.show_summary(summary)
        code, why = exit_status(summary, params.catalog.max_bad)
        if why:
            progress.complain(why)
        return code

    return guarded(command)


if __name__ == "__main__":
    sys.exit(main())
