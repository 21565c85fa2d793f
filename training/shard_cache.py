"""Shards of an object store on local disk: random access wants files.

A tar is kept under its digest and linked into a folder for each state of the dataset, so that a
new state fetches only what changed. Workers of one machine wait for the one that fetches a tar;
a file appears only when it is whole, so nothing breaks where files cannot be locked.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

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
    for row in table.group_by(["split", "shard", "shard_sha256"]).aggregate([]).to_pylist():
        if not all(PLAIN_NAME.fullmatch(str(word)) for word in row.values()):
            raise UserError(f"{index} names {row['shard']!r}, which is no shard: make it anew")
        target = view / "shards" / row["split"] / f"{row['shard']}.tar"
        if row["split"] not in splits or target.exists():
            continue
        stored = Path(cache, "tars", f"{row['shard_sha256']}.tar")
        with _alone(stored):
            if not stored.exists():
                url = storage.join(shards, row["split"], target.name)
                _fetch(url, stored, row["shard_sha256"])
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(stored, target)
        except FileExistsError:  # another worker was quicker
            continue
    return str(local_index), str(view / "shards")


@contextmanager
def _alone(stored: Path) -> Iterator[None]:
    """One process of this machine at a time: the workers of a node want the same tars at once."""
    stored.parent.mkdir(parents=True, exist_ok=True)
    with stored.with_suffix(".lock").open("w") as lock:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


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
