"""Whether a file holds anything of the forgotten, read as what it is.

Parquet pages and Arrow records are compressed: their text columns are decoded. A tar's bytes are
searched as they lie, pictures included, and its facts (KEY.json) are read. Everything else is
searched as bytes. Tables and facts are also read by meaning, which finds ids of any length.
"""

from __future__ import annotations

import json
import mmap
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import storage
from pipelines.forget.requests import Request
from pipelines.forget.search import Names
from pipelines.forget.whose import Forgotten, Row, label
from pipelines.manifest import ROW_GROUP
from pipelines.report.table import rows_of
from pipelines.schemas import DOWNLOADS

MEANING = ("person", "video", "key")


class Searcher:
    """Looks into one file after another."""

    def __init__(self, forgotten: Forgotten, files: Mapping[tuple[int, str], Request]) -> None:
        self._forgotten = forgotten
        self._names: Names = forgotten.names()
        self._files = files
        self._sizes = {size for size, _ in files}

    def look(self, path: Path, shown: str) -> str | None:
        """What of the forgotten a file holds, in words; None for nothing.

        shown: the file's name in the project, which is searched too.
        """
        if found := self._names.find(shown.encode()):
            return f"its name has {found}"
        size = path.stat().st_size
        if size in self._sizes and (request := self._files.get((size, storage.sha256(path)))):
            return f"it is a file of {label(request)}"
        with path.open("rb") as file:
            head = file.read(512)
            if not head:
                return None
            if head.startswith(b"PAR1") or head.startswith(b"ARROW1"):
                try:
                    return self._table(path, parquet=head.startswith(b"PAR1"))
                except (pa.ArrowInvalid, OSError) as error:
                    # What cannot be read cannot be vouched for.
                    words = str(error).splitlines()[0]
                    return f"it cannot be read as the table that it begins as ({words})"
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                if found := self._names.find(data):
                    return f"it names {found}"
        if head[257:262] == b"ustar" and (request := self._in_facts(path)):
            return f"it holds {label(request)}"
        if path.suffix == ".html":
            # A report keeps keys in parts, which no search for a whole one finds.
            for row in rows_of(path.read_text(encoding="utf-8", errors="replace")):
                if request := self._of_facts(row):
                    return f"its table has {label(request)}"
        return None

    def _table(self, path: Path, parquet: bool) -> str | None:
        for batch in _batches(path, parquet):
            for column in batch.columns:
                if not pa.types.is_string(column.type) and not pa.types.is_large_string(
                    column.type
                ):
                    continue
                text = "\n".join(value for value in column.unique().to_pylist() if value)
                if found := self._names.find(text.encode()):
                    return f"its rows name {found}"
            if found_row := next(covered(self._forgotten, batch), None):
                return f"it has rows of {label(found_row[0])}"
        return None

    def _in_facts(self, path: Path) -> Request | None:
        try:
            with tarfile.open(path, mode="r:") as tar:
                for member in tar:
                    if member.isfile() and member.name.endswith(".json"):
                        body = tar.extractfile(member)
                        facts = json.loads(body.read()) if body else {}
                        if request := self._of_facts(facts):
                            return request
        except (tarfile.TarError, ValueError, OSError):
            return None  # not a whole tar of ours: its bytes have been searched
        return None

    def _of_facts(self, facts: Any) -> Request | None:
        if isinstance(facts, dict) and all(isinstance(facts.get(n), str) for n in MEANING):
            return self._forgotten.of_row(facts)
        return None


def covered(forgotten: Forgotten, batch: pa.RecordBatch) -> Iterator[tuple[Request, Row]]:
    """The requests that rows of any manifest or record fall under, by what the columns mean."""
    names = set(batch.schema.names)
    if not (names.issuperset(MEANING) or names.issuperset({"video", "origin"})):
        return
    columns = [name for name in MEANING if name in names]
    if any(not pa.types.is_string(batch.schema.field(name).type) for name in columns):
        return
    kept = [*columns, *({"split"} & names)]
    for row in batch.select(kept).to_pylist():
        if all(row[name] is not None for name in columns):
            yield from ((request, row) for request in forgotten.all_of_row(row))


def _batches(path: Path, parquet: bool) -> Iterator[pa.RecordBatch]:
    if parquet:
        with pq.ParquetFile(path) as file:
            text = [
                f.name
                for f in file.schema_arrow
                if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)
            ]
            yield from file.iter_batches(ROW_GROUP, columns=text)
        return
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)


assert set(DOWNLOADS.names) >= {"video", "origin"}
