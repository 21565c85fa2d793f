"""Where things lie in the work folder, for those who clear it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator

import fsspec

from pipelines import storage
from pipelines.errors import UserError
from pipelines.params import Params

RUN_LOCK = "driver.lock"
"""In a training run's folder: held by the process that trains it, and names it."""
RECORDS = {"download": "videos", "crop": "crops", "landmarks": "landmarks", "shard": None}
"""Stages that leave records, and where their files lie."""


def files_below(url: str) -> Iterator[str]:
    """URLs of all files in a folder and below; none where it is missing."""
    if storage.is_local(url):
        for top, _, names in storage.walk(storage.local_path(url)):
            yield from (os.path.join(top, name) for name in names)  # noqa: PTH118 - a million
        return
    fs, path = fsspec.url_to_fs(url)
    fs.invalidate_cache()
    yield from (fs.unstrip_protocol(name) for name in sorted(fs.find(path)))


def inside(folder: str, url: str) -> str:
    """A file's path below the work folder: they all lie as folder/xx/name."""
    name = url.rpartition("/")[2]
    return f"{folder}/{name[:2]}/{name}"


def shard_cache(params: Params) -> str:
    """Where shards of an object store are kept: in the work folder, if that is on this machine."""
    local = params.paths.work if storage.is_local(params.paths.work) else "work"
    return storage.join(local, "shard_cache")


def refuse_while_busy(work: str) -> None:
    """Raise UserError while a stage is at work in this work folder."""
    storage.sweep_scratch(work)
    busy = storage.local_path(work) / "tmp" if storage.is_local(work) else None
    if busy is not None and busy.is_dir() and (left := sorted(busy.iterdir())):
        raise UserError(
            f"{left[0]}: a stage seems to be at work; let it end or stop it, then run this again "
            "(where none is, delete that folder)"
        )


def refuse_while_training(work: str) -> None:
    """Raise UserError while a run of this work folder trains: its next picture may show anybody."""
    runs = storage.local_path(work) / "runs" if storage.is_local(work) else None
    for place in sorted(runs.glob(f"*/{RUN_LOCK}")) if runs is not None else ():
        with place.open("r+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"{place.parent}: this run is being trained, by {lock.read().strip()}; let it "
                    "end or stop it, then run this again"
                ) from None
            except OSError:  # a file system without locks
                continue
