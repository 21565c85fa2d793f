"""Notes in the ledger which datasets and DVC objects hold the forgotten, while they still do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import storage
from pipelines.errors import UserError
from pipelines.forget import ledger, repository
from pipelines.forget.contents import MEANING, covered
from pipelines.forget.requests import Request
from pipelines.forget.whose import Forgotten
from pipelines.manifest import ROW_GROUP, ManifestReader
from pipelines.params import MANIFESTS, Params
from pipelines.work_folder import files_below


def note(
    params: Params,
    project: Path,
    inforce: Sequence[Request],
    forgotten: Forgotten,
    files: Iterable[tuple[Request, int, str]],
    book: ledger.Ledger | None = None,
) -> ledger.Ledger:
    """Write the ledger with what holds the requests now; `book`: manifests are known already."""
    if book is None:
        book = ledger.read(params)
        for request in inforce:
            book.setdefault(request.digest, ledger.Held())
        for path, oid in _manifests(params, project):
            holding, is_index = _holds(path, forgotten)
            digest = storage.sha256(path) if is_index else ""
            if is_index and digest not in book.people:
                book.people[digest] = _people(path)
            for request in inforce:
                held = book[request.digest]
                if is_index and request not in holding:
                    held.without.add(digest)
                if request in holding:
                    held.datasets |= {(digest, split) for split in holding[request] if is_index}
                    held.objects |= {oid} if oid else set()
    for request in inforce:
        names = sum(one == request for one in forgotten.ids.values())
        book[request.digest].names = max(book[request.digest].names, names)
    for request, size, sha256 in files:
        book[request.digest].files.add((size, sha256))
    ledger.write(params, book, inforce)
    return book


def files(params: Params, forgotten: Forgotten) -> Iterator[tuple[Request, int, str]]:
    """(request, bytes, sha256) of their videos and crops by the manifests, wherever they lie.

    Videos of a mirror folder are read in place: the work folder has no copy that could tell.
    """
    for stage in ("download", "crop"):
        url = params.paths.manifest(stage)
        if not storage.exists(url):
            continue
        names = [*(["video"] if stage == "download" else MEANING), "sha256", "bytes"]
        try:
            for batch in ManifestReader(url, names).batches():
                for row in batch.to_pylist():
                    if row["sha256"] and row["bytes"] and (request := forgotten.of_row(row)):
                        yield request, row["bytes"], row["sha256"]
        except UserError:
            continue  # a damaged manifest tells nothing


def _manifests(params: Params, project: Path) -> Iterator[tuple[Path, str | None]]:
    """Manifests in place, and every table in the DVC cache with its md5."""
    with storage.scratch_folder(params.paths.work) as scratch:
        for stage in MANIFESTS:
            url = params.paths.manifest(stage)
            if storage.exists(url):
                with storage.local_copy(url, scratch) as path:
                    yield path, None
    if (repo := repository.find(project)) is not None:
        for name in files_below(str(repo.cache)):
            path = Path(name)
            if oid := repo.object_of(path):
                yield path, oid


def _people(path: Path) -> dict[str, str]:
    """Everybody of an index by digest, and their split."""
    names = [name for name in ("person", "split") if name in pq.read_schema(path).names]
    rows = pq.read_table(path, columns=names).group_by(names).aggregate([]).to_pylist()
    return {ledger.person(row["person"]): row.get("split") or "" for row in rows}


def _holds(path: Path, forgotten: Forgotten) -> tuple[dict[Request, set[str]], bool]:
    """Whom a table holds, of an index in which splits, and whether it is an index."""
    found: dict[Request, set[str]] = {}
    with path.open("rb") as file:
        if file.read(4) != b"PAR1":
            return {}, False
    try:
        with pq.ParquetFile(path) as table:
            names = table.schema_arrow.names
            is_index = "shard_sha256" in names
            columns = [n for n in (*MEANING, "origin", "split") if n in names]
            for batch in table.iter_batches(ROW_GROUP, columns=columns):
                for request, row in covered(forgotten, batch):
                    found.setdefault(request, set()).add(row.get("split") or "")
    except (pa.ArrowInvalid, OSError):
        return {}, False
    return found, is_index
