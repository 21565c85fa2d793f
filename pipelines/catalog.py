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
from pipelines.placing import Clips, Places, places_of, torn_people
from pipelines.schemas import BOX, CATALOG
from pipelines.sources import READERS, metadata_folder
from pipelines.sources.base import Annotation, BadRow, SourceError
from pipelines.sources.people import read_people
from pipelines.splits import REMEDY, misfit, split_of
from pipelines.statuses import Status
from pipelines.summary import Summary, exit_status, write_metrics
from pipelines.takedowns import Takedowns, read_takedowns

STAGE = "catalog"
SPILL = CATALOG.append(pa.field("drawn", pa.bool_(), False))
"""A catalog row before all sources are read: `drawn`, its split is the seed's, nobody's word."""


# --- rules of one row ------------------------------------------------------------------------


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
        self._untold: dict[str, str] = {}
        """Where the table has a row of a person that cannot be read."""
        if source.people:
            self._published, self.people_rows = read_people(self._root / source.people)
            rows = (row for row in self.people_rows if row.person not in self._published)
            self._untold = {row.person: row.where for row in rows if row.person}
        self._people: set[str] = set()
        self._check_table()
        self._keys = Keys()
        self.taken_out: set[tuple[str, str]] = set()
        """Kinds and identifiers of the takedowns that were met."""
        self.clips = Clips()
        self.named: set[str] = set()
        """People who may be named: not all of their clips were taken out."""

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

    def unknown(self) -> str:
        """What to say of people that the table of people does not know; mostly nothing.

        Where it lists the held-out alone, all others are to train on.
        """
        held_out_alone = not any(split == "train" for split in self._published.values())
        if not self._params.catalog.split.use_published or held_out_alone:
            return ""
        strangers = sorted(self.named - self._published.keys())
        if not strangers:
            return ""
        return (
            f"{self._source.people} does not know {len(strangers)} of the {len(self.named)} "
            f"people met, such as {strangers[0]}: the seed draws their split"
        )

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
        settings = self._params.catalog.split
        if settings.use_published and not item.split and item.person in self._untold:
            name = f"{item.person}/{item.video}/{item.utterance}"
            where = self._untold[item.person]
            reason = f"{where}, which says who is held out, cannot be read for {item.person}"
            return self._bad(BadRow(name, reason, item.person, item.video, item.utterance))
        self._people.add(item.person)
        published = item.split or self._published.get(item.person)
        split, drawn = split_of(item.person, published, settings)
        if taken := self._keys.taken_by(item):
            return self._bad(_second(item, key, taken))
        self.clips[item.person, split, drawn] += 1
        if names := self._takedowns.covering(item, key):
            self.taken_out.update(names)
            return self._excluded(key, item.video)
        self.named.add(item.person)
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
            drawn=drawn,
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
    row: Row = dict.fromkeys(SPILL.names)
    row.update(person="", video="", utterance="", split="", shard="", detail="", crop_ready=False)
    row.update(drawn=False)
    row.update(values)
    return row


def _table(rows: Sequence[Row]) -> pa.Table:
    arrays = []
    for column in SPILL:
        values = [row[column.name] for row in rows]
        arrays.append(_boxes(values) if column.name == "boxes" else pa.array(values, column.type))
    return pa.Table.from_arrays(arrays, schema=SPILL)


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
    met: set[tuple[str, str]] = set()
    builders: dict[str, _Builder] = {}
    with (
        storage.scratch_folder(params.paths.work) as scratch,
        ManifestWriter(params.paths.manifest(STAGE), CATALOG) as writer,
        progress.simple(STAGE, "clips", None) as tick,
    ):
        for source in sorted(params.catalog.sources, key=lambda s: s.name):
            try:
                builders[source.name] = builder = _Builder(source, params, takedowns)
                _spill(builder, scratch / f"{source.name}.parquet", tick)
                met |= builder.taken_out
            except SourceError as error:
                raise UserError(f"catalog.sources.{source.name}: {error}") from None
        clips = {name: builder.clips for name, builder in builders.items()}
        places = {name: places_of(name, clips, params) for name in clips}
        for name, placed in places.items():
            for table in _placed(scratch / f"{name}.parquet", placed):
                writer.write(table)
                summary.statuses.update(table.column("status").to_pylist())
        summary.rows = summary.items = writer.rows
    usage = resource.getrusage(resource.RUSAGE_SELF)
    summary.cpu_seconds = usage.ru_utime + usage.ru_stime
    summary.peak_mib = usage.ru_maxrss / 1024
    summary.seconds = time.monotonic() - started
    write_metrics(params, summary)
    for name, builder in builders.items():
        if words := builder.unknown():
            progress.complain(f"catalog.sources.{name}: {words}")
    named = set().union(*(builder.named for builder in builders.values()))
    if torn := sorted(torn_people(places.values()) & named):
        progress.complain(
            f"catalog: the publishers put clips of one person into several splits "
            f"(people: {len(torn)}, such as {torn[0]}); "
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
    with pq.ParquetWriter(path, SPILL, compression="lz4", use_dictionary=False) as spill:
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


def _placed(spill: Path, places: Places) -> Iterator[pa.Table]:
    for batch in pq.ParquetFile(spill).iter_batches(ROW_GROUP):
        columns = (batch[name].to_pylist() for name in ("person", "split", "drawn", "video"))
        placed = [places.place(*row) for row in zip(*columns, strict=True)]
        table = pa.Table.from_batches([batch]).select(CATALOG.names)
        for name, values in zip(("split", "shard"), zip(*placed, strict=True), strict=True):
            at = CATALOG.get_field_index(name)
            table = table.set_column(at, CATALOG.field(at), pa.array(values, pa.string()))
        yield table


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
