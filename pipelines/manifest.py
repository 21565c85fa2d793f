"""Read and write manifests: Parquet files whose bytes depend on their rows alone."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines import storage
from pipelines.errors import UserError

ROW_GROUP = 2048
"""Rows: small enough that a worker reads one to get at one video's clips."""


class ManifestReader:
    """Rows of a manifest by number, keeping the last row groups read."""

    def __init__(
        self, url: str, columns: list[str] | None = None, encoded: Sequence[str] = ()
    ) -> None:
        self._url, self._columns = url, columns
        with self._readable():
            try:
                self._file = pq.ParquetFile(
                    _source(url), read_dictionary=list(encoded), page_checksum_verification=True
                )
            except FileNotFoundError:
                raise UserError(f"{url} is missing: run the stage that writes it first") from None
        if lacking := set(columns or ()) - set(self._file.schema_arrow.names):
            names = ", ".join(sorted(lacking))
            raise UserError(f"{url} has no column {names}; run the stage that writes it again")
        self._cache: dict[int, pa.Table] = {}
        self._lock = threading.Lock()
        self._starts = [0]
        for i in range(self._file.num_row_groups):
            self._starts.append(self._starts[-1] + self._file.metadata.row_group(i).num_rows)

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's trouble, not the file's
            words = " ".join(str(error).split())
            raise UserError(
                f"{self._url} is not a readable manifest ({words}); delete it and rerun"
            ) from error

    def __len__(self) -> int:
        return self._starts[-1]

    def rows(self, start: int, stop: int) -> pa.Table:
        """Rows [start, stop)."""
        groups = [
            i
            for i in range(self._file.num_row_groups)
            if self._starts[i] < stop and self._starts[i + 1] > start
        ]
        if not groups:
            return self.empty()
        with self._lock, self._readable():
            if any(i not in self._cache for i in groups):
                self._cache = {i: self._file.read_row_group(i, self._columns) for i in groups}
            table = pa.concat_tables([self._cache[i] for i in groups])
        return table.slice(start - self._starts[groups[0]], stop - start)

    def empty(self) -> pa.Table:
        """No rows, with this manifest's columns."""
        return self._file.schema_arrow.empty_table().select(
            self._columns or self._file.schema_arrow.names
        )

    def groups(self, columns: list[str]) -> Iterator[tuple[int, pa.Table]]:
        """Runs of neighbouring rows that agree in `columns`, as (first row number, rows)."""
        start, held = 0, pa.table({})
        for batch in self.batches():
            table = pa.Table.from_batches([batch])
            held = pa.concat_tables([held, table]) if len(held) else table
            keys = held.select(columns)
            changed = pc.not_equal(keys[0].slice(1), keys[0].slice(0, len(held) - 1))
            for column in keys.columns[1:]:
                differs = pc.not_equal(column.slice(1), column.slice(0, len(held) - 1))
                changed = pc.or_(changed, differs)
            cuts = [0, *(i + 1 for i in np.flatnonzero(changed.to_numpy()).tolist())]
            # The last run may go on in the next batch.
            for begin, end in pairwise(cuts):
                yield start + begin, held.slice(begin, end - begin)
            start += cuts[-1]
            held = held.slice(cuts[-1])
        if len(held):
            yield start, held

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All rows in order, a row group at a time."""
        with self._readable():
            yield from self._file.iter_batches(ROW_GROUP, columns=columns or self._columns)


def _source(url: str) -> str | BinaryIO:
    """What Arrow opens: its threads must not need the interpreter, which may be ending by then."""
    return str(storage.local_path(url)) if storage.is_local(url) else storage.open_read(url)


def read(url: str, columns: list[str] | None = None, encoded: Sequence[str] = ()) -> pa.Table:
    """A whole manifest, for those that are small enough.

    encoded: columns of words of which each is held once, as Arrow's dictionaries.
    """
    reader = ManifestReader(url, columns, encoded)
    return reader.rows(0, len(reader)) if len(reader) else reader.empty()


def clip_names(rows: pa.Table | pa.RecordBatch) -> pa.ChunkedArray | pa.Array:
    """`source/key` of each row: what tells clips apart, as two sources may use the same key."""
    return pc.binary_join_element_wise(rows["source"], rows["key"], "/")


def ready_names(rows: pa.Table | pa.RecordBatch) -> pa.ChunkedArray | pa.Array:
    """`source/person/video` of each row: what downloads.parquet calls it if its crops are ready."""
    return pc.binary_join_element_wise(rows["source"], rows["person"], rows["video"], "/")


def older_ready_names(rows: pa.Table | pa.RecordBatch) -> pa.ChunkedArray | pa.Array:
    """`person/video`: what manifests of before called it, whatever its source."""
    return pc.binary_join_element_wise(rows["person"], rows["video"], "/")


class ManifestWriter:
    """Writes a manifest row group by row group; the file appears when the block ends well."""

    def __init__(self, url: str, schema: pa.Schema) -> None:
        self.schema = schema
        self.rows = 0
        self._url = url
        self._atomic = storage.atomic(url)
        self._pending: list[pa.Table] = []
        self._pending_rows = 0

    def __enter__(self) -> Self:
        path: Path = self._atomic.__enter__()
        with self._named_errors():
            self._writer = pq.ParquetWriter(
                path,
                self.schema,
                compression="zstd",
                compression_level=3,
                store_schema=True,
                write_page_checksum=True,  # else a flipped bit is another number, and no error
            )
        return self

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Arrow's errors name the scratch file or none: name the manifest."""
        try:
            yield
        except OSError as error:
            if error.errno is None:
                raise
            raise OSError(error.errno, os.strerror(error.errno), self._url) from error

    def write(self, table: pa.Table) -> None:
        """Append rows. Raises pa.ArrowInvalid where they do not fit the schema."""
        if not table.schema.equals(self.schema):
            table = table.cast(self.schema)
        self._pending.append(table)
        self._pending_rows += len(table)
        self.rows += len(table)
        while self._pending_rows >= ROW_GROUP:
            self._flush(ROW_GROUP)

    def _flush(self, count: int) -> None:
        # Groups are cut at fixed row numbers, so the bytes do not tell how the rows arrived.
        table = pa.concat_tables(self._pending)
        whole = table.slice(0, count).combine_chunks()
        with self._named_errors():
            self._writer.write_table(whole, row_group_size=ROW_GROUP)
        rest = table.slice(count)
        self._pending, self._pending_rows = [rest], len(rest)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and self._pending_rows:
                self._flush(self._pending_rows)
            with self._named_errors():
                self._writer.close()
        except BaseException as failure:
            self._atomic.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._atomic.__exit__(kind, error, trace)
