"""Records: what a stage has finished, one small file per item, named by what decides its rows."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import cast

import pyarrow as pa

from pipelines import storage
from pipelines.statuses import Status

DIGEST = b"sha256"
"""In a record's metadata: of its rows."""
REMOTE_READS = 32
"""Requests to an object store under way at once."""


class Records:
    """The finished items of a stage."""

    def __init__(self, work: str, stage: str) -> None:
        self._root = storage.join(work, "records", stage)

    def url(self, fingerprint: str) -> str:
        return storage.join(self._root, fingerprint[:2], f"{fingerprint}.arrow")

    def present(self) -> set[str]:
        """Fingerprints of all finished items."""
        return {
            name.removesuffix(".arrow")
            for name in storage.names_below(self._root)
            if name.endswith(".arrow") and not name.startswith(".")
        }

    def write(
        self, fingerprint: str, rows: pa.Table, seconds: float, scratch: Path | None = None
    ) -> None:
        """Keep the rows, their schema's metadata included, and the seconds that they took."""
        facts = {**(rows.schema.metadata or {}), "seconds": f"{seconds:.3f}"}
        # As it will be read: how rows are split into buffers is not theirs alone.
        rows = _table(_file(rows.replace_schema_metadata(None)))
        rows = rows.replace_schema_metadata(facts | {DIGEST: _digest(rows)})
        storage.write_bytes(self.url(fingerprint), _file(rows), scratch)

    def reads(self, fingerprints: Iterable[str]) -> Iterator[Callable[[], tuple[pa.Table, float]]]:
        """A call that reads, for each in order; an object store is asked many at a time."""
        if storage.is_local(self._root):
            yield from (partial(self.read, fingerprint) for fingerprint in fingerprints)
            return
        with ThreadPoolExecutor(REMOTE_READS) as pool:
            window: deque[Callable[[], tuple[pa.Table, float]]] = deque()
            for fingerprint in fingerprints:
                window.append(pool.submit(self.read, fingerprint).result)
                if len(window) > 2 * REMOTE_READS:
                    yield window.popleft()
            yield from window

    def read(self, fingerprint: str) -> tuple[pa.Table, float]:
        """Rows and the seconds they took. Raises FileNotFoundError or pa.ArrowInvalid."""
        data = storage.read_bytes(self.url(fingerprint))
        try:
            table = _table(data)
            table.validate(full=True)
            facts = dict(table.schema.metadata)
            seconds = float(facts.pop(b"seconds"))
            # Older records hold none: there a changed bit of a row may be another word.
            if facts.pop(DIGEST, None) not in (None, _digest(table)):
                raise ValueError("its rows are not those that were written")
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
            # A torn body may raise any, and ask for any amount of memory.
            raise pa.ArrowInvalid(f"damaged record: {error}") from error
        return table.replace_schema_metadata(facts or None), seconds


def _file(rows: pa.Table) -> bytes:
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(sink, rows.schema, options=options) as writer:
        writer.write_table(rows)
    return sink.getvalue()


def _table(data: bytes) -> pa.Table:
    return pa.ipc.open_file(data).read_all()


def _digest(rows: pa.Table) -> bytes:
    """Of the rows alone: Arrow has no checksum of its own, and zstd's notices some changes only."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, rows.schema.remove_metadata()) as writer:
        writer.write_table(rows.replace_schema_metadata(None))
    return storage.digest_bytes(sink.getvalue()).encode()


def statuses_of(rows: pa.Table) -> list[str]:
    """The rows' statuses; a manifest without that column (the index) holds only good rows."""
    if "status" not in rows.column_names:
        return [Status.OK] * len(rows)
    return cast("list[str]", rows.column("status").to_pylist())
