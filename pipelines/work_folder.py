"""Where things lie in the work folder, for those who clear it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import fsspec

from pipelines import storage
from pipelines.errors import UserError

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


def refuse_while_busy(work: str) -> None:
    """Raise UserError while a stage is at work in this work folder."""
    storage.sweep_scratch(work)
    busy = storage.local_path(work) / "tmp" if storage.is_local(work) else None
    if busy is not None and busy.is_dir() and (left := sorted(busy.iterdir())):
        raise UserError(
            f"{left[0]}: a stage seems to be at work; let it end or stop it, then run this again "
            "(where none is, delete that folder)"
        )
