"""Every path is a URL. Files appear under their final name only when complete.

Local paths and `file://` go straight to the operating system; anything else (`s3://`,
`gs://`, `memory://`) goes through fsspec. A file is written to a scratch name on the same
file system and renamed; object stores publish a whole object at once.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
import psutil

from pipelines.errors import UserError

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


def below(base: str, path: str) -> str:
    """`join` for a path out of a manifest. Raises UserError where it leads out of `base`."""
    if "://" in path or path.startswith("/") or ".." in path.split("/"):
        raise UserError(f"a manifest names {path!r}, which is not below {base}: make it anew")
    return join(base, path)


@contextlib.contextmanager
def _remote(url: str) -> Iterator[tuple[Any, str]]:
    """The file system and the path of a remote URL.

    Every client has errors of its own: in the block they become OSErrors that name the URL.
    """
    try:
        fs, path = fsspec.url_to_fs(url)
        fs.invalidate_cache()  # other processes write there too
        yield fs, path
    except FileNotFoundError:
        raise
    except (ImportError, ValueError) as error:
        raise UserError(f"{url}: {error}") from error
    except Exception as error:
        number = getattr(error, "errno", None) or errno.EIO
        words = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise OSError(number, " ".join(words.split()), url) from error


def exists(url: str) -> bool:
    """Whether a file is there."""
    if is_local(url):
        return local_path(url).is_file()
    with _remote(url) as (fs, path):
        try:
            return bool(fs.info(path)["type"] == "file")  # `isfile` hides every failure
        except FileNotFoundError:
            return False


def size(url: str) -> int:
    """Bytes of a file. Raises FileNotFoundError."""
    if is_local(url):
        return local_path(url).stat().st_size
    with _remote(url) as (fs, path):
        return int(fs.size(path))


def stamp(url: str) -> tuple[int, int]:
    """Bytes of a file, and on this machine when it was last written, in ns: has it been replaced?

    Raises FileNotFoundError.
    """
    if is_local(url):
        found = local_path(url).stat()
        return found.st_size, found.st_mtime_ns
    return size(url), 0


def names(url: str) -> list[str]:
    """Sorted names of the files directly in a folder; empty when the folder is missing."""
    if is_local(url):
        try:
            with os.scandir(local_path(url)) as entries:
                return sorted(e.name for e in entries if e.is_file())
        except FileNotFoundError:
            return []
    with _remote(url) as (fs, path):
        try:
            listing = fs.ls(path, detail=True)
        except FileNotFoundError:
            return []
    return sorted(Path(e["name"]).name for e in listing if e["type"] == "file")


def walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk` that raises OSError for what cannot be listed; it would pass it over in silence."""

    def failed(error: OSError) -> None:
        # It went meanwhile, was never there, or is a file: there is nothing in it.
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise error

    return os.walk(folder, onerror=failed)


def names_below(url: str) -> Iterator[str]:
    """Names of the files in a folder and in all folders below it, in no order."""
    if is_local(url):
        for _, _, files in walk(local_path(url)):
            yield from files
        return
    with _remote(url) as (fs, path):
        # One listing: an object store answers a thousand names a request, whatever the folders.
        found = fs.find(path)
    yield from (Path(name).name for name in found)


def sizes_below(url: str) -> Iterator[tuple[str, int]]:
    """Name and bytes of each file in a folder and in all folders below it, in no order."""
    if is_local(url):
        for top, _, files in walk(local_path(url)):
            for name in files:
                with contextlib.suppress(FileNotFoundError):
                    yield name, os.stat(os.path.join(top, name)).st_size  # noqa: PTH116, PTH118
        return
    with _remote(url) as (fs, path):
        found = fs.find(path, detail=True)
    yield from ((Path(name).name, int(facts["size"])) for name, facts in found.items())


def read_bytes(url: str) -> bytes:
    """The whole file. Raises FileNotFoundError."""
    if is_local(url):
        return local_path(url).read_bytes()
    with _remote(url) as (fs, path):
        return cast(bytes, fs.cat_file(path))


def open_read(url: str) -> BinaryIO:
    """A seekable binary file."""
    if is_local(url):
        return local_path(url).open("rb")
    with _remote(url) as (fs, path):
        return cast(BinaryIO, fs.open(path, "rb"))


def remove(url: str) -> None:
    """Delete a file; a missing one is fine."""
    if is_local(url):
        local_path(url).unlink(missing_ok=True)
        return
    with _remote(url) as (fs, path), contextlib.suppress(FileNotFoundError):
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
        with _remote(url) as (fs, path):
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
    try:
        with _remote(url) as (fs, path):
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
    parent = _scratch_space(work)
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / _owner()
    folder.mkdir(mode=0o700)  # a remote work folder's scratch space is everybody's /tmp
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _scratch_space(work: str) -> Path:
    return local_path(work) / "tmp" if is_local(work) else Path(tempfile.gettempdir())


def sweep_scratch(work: str) -> None:
    """Delete what killed processes of this host left in the work folder's scratch space."""
    parent = _scratch_space(work)
    if not parent.is_dir():
        return
    for left in parent.iterdir():
        if _is_orphan(left):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:  # beside what was to be published to a store
                left.unlink(missing_ok=True)


def sweep_orphans(folder: str) -> None:
    """Delete the unfinished files that killed processes of this host left beside their targets."""
    for name in names(folder) if is_local(folder) else []:
        if name.startswith(".") and _is_orphan(local_path(folder) / name):
            remove(join(folder, name))


def _is_orphan(path: Path) -> bool:
    # The whole name, since another host may be called as this one with a number behind.
    ours = rf"\.?tmp-{re.escape(socket.gethostname())}-(\d+)-[0-9a-f]+(\..*)?"
    named = re.fullmatch(ours, path.name)
    if named is None:
        return False
    try:
        owner = psutil.Process(int(named[1]))
        # Numbers are given out again: one who came later than the file does not own it.
        late = owner.create_time() > path.stat().st_mtime + 5
        return late or owner.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except FileNotFoundError:
        return False
