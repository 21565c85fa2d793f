"""Shards of an object store on local disk: random access wants files.

A tar is kept under its digest and linked into a folder for each state of the dataset, so that a
new state fetches only what changed. Workers of one machine share the fetching and wait for each
other; a file appears only when it is whole, so nothing breaks where files cannot be locked.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from pipelines import storage
from pipelines.errors import StopStage, UserError
from pipelines.schemas import PLAIN_NAME


def localize(
    index: str, shards: str, index_sha256: str, splits: Sequence[str], cache: str
) -> tuple[str, str]:
    """Local paths of the index and of the folder of shards; local ones are returned as they are.

    splits: whose tars are fetched. Raises UserError for what is missing, StopStage for a tar
    with another digest than the index says.
    """
    if storage.is_local(index):
        if not storage.exists(index):
            raise UserError(f"{index}: no such file; `dvc repro shard` or `dvc pull` makes it")
        return str(storage.local_path(index)), str(storage.local_path(shards))
    view = Path(cache, index_sha256[:16])
    local_index = view / "index.parquet"
    if not local_index.exists():
        _fetch(index, local_index, index_sha256)
    table = pq.read_table(local_index, columns=["split", "shard", "shard_sha256"])
    wanted: list[_Tar] = []
    for row in table.group_by(["split", "shard", "shard_sha256"]).aggregate([]).to_pylist():
        if not all(PLAIN_NAME.fullmatch(str(word)) for word in row.values()):
            raise UserError(f"{index} names {row['shard']!r}, which is no shard: make it anew")
        target = view / "shards" / row["split"] / f"{row['shard']}.tar"
        if row["split"] not in splits or target.exists():
            continue
        stored = Path(cache, "tars", f"{row['shard_sha256']}.tar")
        url = storage.join(shards, row["split"], target.name)
        wanted.append(_Tar(url, row["shard_sha256"], stored, target))
    # Each worker begins elsewhere, and what another one is fetching has time until the others are.
    first = os.getpid() % max(len(wanted), 1)
    busy = [tar for tar in wanted[first:] + wanted[:first] if not _keep(tar, wait=False)]
    for tar in busy:
        _keep(tar, wait=True)
    return str(local_index), str(view / "shards")


class _Tar(NamedTuple):
    url: str
    sha256: str
    stored: Path
    target: Path


def _keep(tar: _Tar, *, wait: bool) -> bool:
    """Fetch a tar that is not there; False where another process does, and is not waited for."""
    with _alone(tar.stored, wait) as mine:
        if not mine:
            return False
        if not tar.stored.exists():
            _fetch(tar.url, tar.stored, tar.sha256)
    tar.target.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):  # another worker was quicker
        os.link(tar.stored, tar.target)
    return True


@contextmanager
def _alone(stored: Path, wait: bool) -> Iterator[bool]:
    """One process of this machine at a time: the workers of a node want the same tars at once."""
    stored.parent.mkdir(parents=True, exist_ok=True)
    with stored.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        except OSError:  # a file system without locks
            pass
        yield True


def _fetch(url: str, target: Path, sha256: str) -> None:
    try:
        with storage.atomic(str(target)) as path, storage.open_read(url) as body:
            with path.open("wb") as out:
                while chunk := body.read(storage.CHUNK):
                    out.write(chunk)
            if (found := storage.sha256(path)) != sha256:
                raise StopStage(
                    f"{url} has sha256 {found[:16]}, not {sha256[:16]} as the index says: "
                    "`python -m pipelines.verify` says more"
                )
    except FileNotFoundError:
        raise UserError(f"{url}: no such object; `dvc repro shard` makes it") from None
