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
        rows = rows.replace_schema_metadata(facts)
        sink = io.BytesIO()
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(sink, rows.schema, options=options) as writer:
            writer.write_table(rows)
        storage.write_bytes(self.url(fingerprint), sink.getvalue(), scratch)

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
            table = pa.ipc.open_file(data).read_all()
            table.validate(full=True)
            facts = dict(table.schema.metadata)
            seconds = float(facts.pop(b"seconds"))
        except (OSError, KeyError, TypeError, ValueError) as error:  # a torn body may be any
            raise pa.ArrowInvalid(f"damaged record: {error}") from error
        return table.replace_schema_metadata(facts or None), seconds


def statuses_of(rows: pa.Table) -> list[str]:
    """The rows' statuses; a manifest without that column (the index) holds only good rows."""
    if "status" not in rows.column_names:
        return [Status.OK] * len(rows)
    return cast("list[str]", rows.column("status").to_pylist())
