"""Deletes from the work folder what was made of the forgotten, and what nobody can be told to own.

Files are named by digests, so their records tell whose they are. A file without a record is
what a killed stage left: it may be anyone's, is made again when it is needed, and goes too.
Records go last: a run that is interrupted finds its way again.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from pipelines import download, storage
from pipelines.errors import StopStage, UserError
from pipelines.forget.requests import Request
from pipelines.forget.whose import Forgotten
from pipelines.params import Params
from pipelines.records import Records
from pipelines.work_folder import (
    RECORDS,
    files_below,
    inside,
    refuse_while_busy,
    refuse_while_training,
)

DIGESTED = ("videos", "crops")
"""Files whose digest tells whose they are; landmarks of two faceless clips may be the same."""


@dataclass
class Purged:
    """What was deleted."""

    counts: Counter[str] = field(default_factory=Counter)
    files: list[tuple[Request, int, str]] = field(default_factory=list)
    """(request, bytes, sha256) of their videos and crops."""


@dataclass
class Owners:
    """What the records say of the files in the work folder, by path below it."""

    kept: set[str] = field(default_factory=set)
    theirs: dict[str, Request] = field(default_factory=dict)
    """Files of the forgotten alone."""
    records: list[str] = field(default_factory=list)
    """Records that name someone forgotten, and damaged ones."""


def counted(counts: Counter[str]) -> str:
    """How many of what, for people."""
    return ", ".join(f"{n:,} {what}" for what, n in counts.items() if n) or "nothing"


def owners(params: Params, forgotten: Forgotten) -> Owners:
    """Read every record."""
    found = Owners()
    named: dict[str, Request | None] = {}
    for stage in RECORDS:
        records = Records(params.paths.work, stage)
        fingerprints = sorted(records.present())
        for fingerprint, read in zip(fingerprints, records.reads(fingerprints), strict=True):
            try:
                rows = read()[0]
            except (pa.ArrowInvalid, FileNotFoundError):
                found.records.append(records.url(fingerprint))
                continue
            columns = ["person", "video", "key", "path"]
            table = rows.select([name for name in columns if name in rows.column_names])
            requests = [(row, forgotten.of_row(row)) for row in table.to_pylist()]
            doomed = any(request for _, request in requests)
            if doomed:
                found.records.append(records.url(fingerprint))
            for row, request in requests:
                if (path := row.get("path")) is None:
                    continue
                if not doomed:
                    found.kept.add(path)
                named[path] = request if named.get(path, request) == request else None
    found.theirs = {p: r for p, r in named.items() if r is not None and p not in found.kept}
    return found


def live_downloads(params: Params, forgotten: Forgotten) -> set[str]:
    """How the videos of those who stay begin: they may be there before their record."""
    try:
        items = download.prepare(params).items
    except (UserError, StopStage, OSError):
        return set()
    return {item.fingerprint[:16] for item in items if item.name not in forgotten.videos}


def strays(params: Params, forgotten: Forgotten, found: Owners) -> Iterator[tuple[str, str]]:
    """(folder, URL) of files of the forgotten and of nobody."""
    live = live_downloads(params, forgotten)
    for folder in filter(None, RECORDS.values()):
        for url in files_below(storage.join(params.paths.work, folder)):
            path = inside(folder, url)
            known = folder == "videos" and path.rpartition("/")[2][:16] in live
            if path not in found.kept and not (known and path not in found.theirs):
                yield folder, url
    for url in files_below(storage.join(params.paths.work, "partial")):
        if live.isdisjoint(url.split("/")):
            yield "partial", url


def purge(params: Params, forgotten: Forgotten) -> Purged:
    """Delete it. Raises UserError while a stage is at work or a run trains."""
    work, purged = params.paths.work, Purged()
    refuse_while_busy(work)
    refuse_while_training(work)
    found = owners(params, forgotten)
    for folder, url in list(strays(params, forgotten, found)):
        request = found.theirs.get(inside(folder, url))
        if request is not None and folder in DIGESTED:
            purged.files.append((request, *_digest(url)))
        storage.remove(url)
        purged.counts[folder if request else f"{folder} without an owner"] += 1
    for url in files_below(storage.join(work, "plans")):
        storage.remove(url)
        purged.counts["plans"] += 1
    if storage.is_local(work):
        for empty in storage.local_path(work).glob("partial/*"):
            if empty.is_dir() and not any(empty.iterdir()):
                shutil.rmtree(empty)
    for url in found.records:
        storage.remove(url)
        purged.counts["records"] += 1
    return purged


def _digest(url: str) -> tuple[int, str]:
    if storage.is_local(url):
        path = storage.local_path(url)
        return path.stat().st_size, storage.sha256(path)
    data = storage.read_bytes(url)
    return len(data), storage.digest_bytes(data)
