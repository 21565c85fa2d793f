"""Every path is a URL. Files appear under their final name only when complete.

Local paths and `file://` go straight to the operating system; anything else (`s3://`,
`gs://`, `memory://`) goes through fsspec. A file is written to a scratch name on the same
file system and renamed; object stores publish a whole object at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import fsspec
import psutil

CHUNK = 1 << 20


def is_local(url: str) -> bool:
    """Whether the URL names this machine's file system."""
    return "://" not in url or url.startswith("file://")


def local_path(url: str) -> Path:
    """The path of a local URL. Raises ValueError for a remote one."""
    if not is_local(url):
        raise ValueError(f"{url} is not on this machine")
    return Path(url.removeprefix("file://"))


def join(base: str, *parts: str) -> str:
    """Append path parts; an absolute path or a URL as the last part wins, as in `os.path.join`."""
    for part in parts:
        if "://" in part or part.startswith("/"):
            base = part
        else:
            base = f"{base.rstrip('/')}/{part}" if base else part
    return base


def exists(url: str) -> bool:
    """Whether a file is there."""
    if is_local(url):
        return local_path(url).is_file()
    fs, path = fsspec.url_to_fs(url)
    return bool(fs.isfile(path))


def size(url: str) -> int:
    """Bytes of a file. Raises FileNotFoundError."""
    if is_local(url):
        return local_path(url).stat().st_size
    fs, path = fsspec.url_to_fs(url)
    return int(fs.size(path))


def names(url: str) -> list[str]:
    """Sorted names of the files directly in a folder; empty when the folder is missing."""
    if is_local(url):
        try:
            with os.scandir(local_path(url)) as entries:
                return sorted(e.name for e in entries if e.is_file())
        except FileNotFoundError:
            return []
    fs, path = fsspec.url_to_fs(url)
    try:
        listing = fs.ls(path, detail=True)
    except FileNotFoundError:
        return []
    return sorted(Path(e["name"]).name for e in listing if e["type"] == "file")


def read_bytes(url: str) -> bytes:
    """The whole file. Raises FileNotFoundError."""
    if is_local(url):
        return local_path(url).read_bytes()
    return cast(bytes, fsspec.open(url, "rb").open().read())


def open_read(url: str) -> BinaryIO:
    """A seekable binary file."""
    if is_local(url):
        return local_path(url).open("rb")
    return cast(BinaryIO, fsspec.open(url, "rb").open())


def remove(url: str) -> None:
    """Delete a file; a missing one is fine."""
    if is_local(url):
        local_path(url).unlink(missing_ok=True)
        return
    fs, path = fsspec.url_to_fs(url)
    with contextlib.suppress(FileNotFoundError):
        fs.rm_file(path)


def write_bytes(url: str, data: bytes, scratch: Path | None = None) -> None:
    """Write a file atomically, making its folders; `scratch` as in `atomic`."""
    with atomic(url, scratch) as unfinished:
        unfinished.write_bytes(data)


@contextlib.contextmanager
def atomic(url: str, folder: Path | None = None) -> Iterator[Path]:
    """A local scratch path, published under `url` when the block ends without an error.

    It lies in `folder`, best a `scratch_folder`, or else beside a local target.
    """
    if folder is None:
        folder = local_path(url).parent if is_local(url) else Path(tempfile.gettempdir())
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / f".{_owner()}.{Path(url).name[-80:]}"
    try:
        yield scratch
        publish(scratch, url)
    finally:
        # Even what is not there cannot be deleted from a read-only disk.
        with contextlib.suppress(OSError):
            scratch.unlink()


def publish(scratch: Path, url: str) -> None:
    """Move a finished local file to its final name, in one step as others see it."""
    if not is_local(url):
        fs, path = fsspec.url_to_fs(url)
        fs.put_file(str(scratch), path)
        scratch.unlink()
        return
    target = local_path(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        scratch.replace(target)
    except OSError:
        if scratch.parent == target.parent:
            raise
        # Another file system: copy beside the target first, so that the last step is a rename.
        with atomic(url) as near:
            shutil.copyfile(scratch, near)
        scratch.unlink()


@contextlib.contextmanager
def local_copy(url: str, scratch: Path) -> Iterator[Path]:
    """The file as a local path: itself, or a copy in `scratch` that is removed after."""
    if is_local(url):
        yield local_path(url)
        return
    target = scratch / Path(url).name
    fs, path = fsspec.url_to_fs(url)
    try:
        fs.get_file(path, str(target))
        yield target
    finally:
        target.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Hex digest of a local file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_bytes(data: bytes) -> str:
    """Hex digest of bytes at hand."""
    return hashlib.sha256(data).hexdigest()


def digest(*parts: object) -> str:
    """Hex sha256 over parts, each framed by its length so that no two lists collide."""
    hasher = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        hasher.update(len(data).to_bytes(8, "little"))
        hasher.update(data)
    return hasher.hexdigest()


def _owner() -> str:
    return f"tmp-{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"


@contextlib.contextmanager
def scratch_folder(work: str) -> Iterator[Path]:
    """A private folder for unfinished files, on a local work folder's own file system."""
    parent = local_path(work) / "tmp" if is_local(work) else Path(tempfile.gettempdir())
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / _owner()
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep_scratch(work: str) -> None:
    """Delete what killed processes of this host left in the work folder's scratch space."""
    parent = local_path(work) / "tmp" if is_local(work) else None
    if parent is None or not parent.is_dir():
        return
    for folder in parent.iterdir():
        if _is_orphan(folder.name):
            shutil.rmtree(folder, ignore_errors=True)


def sweep_orphans(folder: str) -> None:
    """Delete the unfinished files that killed processes of this host left beside their targets."""
    for name in names(folder) if is_local(folder) else []:
        if name.startswith(".") and _is_orphan(name[1:]):
            remove(join(folder, name))


def _is_orphan(name: str) -> bool:
    rest = name.removeprefix(f"tmp-{socket.gethostname()}-")
    pid = rest.split("-")[0]
    return rest != name and pid.isdigit() and not psutil.pid_exists(int(pid))
