"""Files appear whole under their final name or not at all, here and in object stores."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import storage


@pytest.fixture(params=["local", "file", "memory"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder's URL in each kind of storage."""
    if request.param == "memory":
        yield "memory://bucket/set"
        fsspec.filesystem("memory").store.clear()
    else:
        yield ("file://" if request.param == "file" else "") + str(tmp_path / "set")


def everything(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_file_is_written_read_measured_listed_and_removed(base: str) -> None:
    url = storage.join(base, "a", "b.bin")
    assert not storage.exists(url)
    assert storage.names(storage.join(base, "a")) == []
    storage.write_bytes(url, b"one")
    storage.write_bytes(url, b"three")
    storage.write_bytes(storage.join(base, "a", "a.bin"), b"")
    storage.write_bytes(storage.join(base, "a", "deeper", "c.bin"), b"")
    assert storage.exists(url)
    assert storage.read_bytes(url) == b"three"
    assert storage.size(url) == 5
    assert storage.names(storage.join(base, "a")) == ["a.bin", "b.bin"]
    with storage.open_read(url) as file:
        file.seek(2)
        assert file.read() == b"ree"
    storage.remove(url)
    storage.remove(url)
    assert not storage.exists(url)
    for read in (storage.read_bytes, storage.size, storage.open_read):
        with pytest.raises(FileNotFoundError):
            read(url)


def test_a_folder_is_no_file(base: str) -> None:
    storage.write_bytes(storage.join(base, "a", "b.bin"), b"x")
    assert not storage.exists(storage.join(base, "a"))


def test_a_block_that_raises_publishes_nothing_and_leaves_nothing(base: str) -> None:
    url = storage.join(base, "out.bin")
    storage.write_bytes(url, b"old")
    with pytest.raises(RuntimeError), storage.atomic(url) as scratch:
        scratch.write_bytes(b"half of the new")
        raise RuntimeError
    assert storage.read_bytes(url) == b"old"
    assert not scratch.exists()
    if storage.is_local(url):
        assert everything(storage.local_path(base)) == ["out.bin"]


def test_until_the_block_ends_the_name_shows_the_old_file(base: str) -> None:
    url = storage.join(base, "out.bin")
    with storage.atomic(url) as scratch:
        scratch.write_bytes(b"new")
        assert not storage.exists(url)
    assert storage.read_bytes(url) == b"new"
    assert not scratch.exists()


def test_a_scratch_name_is_no_longer_than_a_file_system_takes(tmp_path: Path) -> None:
    name = "x" * 240
    storage.write_bytes(str(tmp_path / name), b"x")
    assert everything(tmp_path) == [name]


def test_publish_moves_a_finished_file(base: str, tmp_path: Path) -> None:
    scratch = tmp_path / "finished.bin"
    scratch.write_bytes(b"done")
    storage.publish(scratch, storage.join(base, "deep", "final.bin"))
    assert storage.read_bytes(storage.join(base, "deep", "final.bin")) == b"done"
    assert not scratch.exists()


def test_publish_across_file_systems_ends_in_a_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    scratch, target = tmp_path / "here" / "a", tmp_path / "there" / "a"
    scratch.write_bytes(b"done")
    rename = Path.replace

    def replace(self: Path, to: Path) -> Path:
        if self.parent != to.parent:
            raise OSError(18, "Invalid cross-device link")
        return rename(self, to)

    monkeypatch.setattr(Path, "replace", replace)
    storage.publish(scratch, str(target))
    assert everything(tmp_path) == ["a"]
    assert target.read_bytes() == b"done"


def test_a_rename_that_fails_raises_and_cleans_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace(self: Path, to: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OSError, match="No space left"):
        storage.write_bytes(str(tmp_path / "a"), b"x")
    assert everything(tmp_path) == []


def test_a_local_copy_is_the_file_itself_or_a_copy_that_goes(base: str, tmp_path: Path) -> None:
    url = storage.join(base, "a.bin")
    storage.write_bytes(url, b"x")
    with storage.local_copy(url, tmp_path) as path:
        assert path.read_bytes() == b"x"
        assert (path == storage.local_path(url)) if storage.is_local(url) else True
    assert storage.exists(url)
    assert storage.is_local(url) == path.exists()


@pytest.mark.parametrize(
    ("parts", "url"),
    [
        (("a", "b"), "a/b"),
        (("a/", "b", "c"), "a/b/c"),
        (("", "b"), "b"),
        (("a", "/b"), "/b"),
        (("a", "s3://b/c"), "s3://b/c"),
        (("s3://b", "c"), "s3://b/c"),
        (("/a", "b", "/c", "d"), "/c/d"),
        (("/a",), "/a"),
        ((".", "videos/a.mp4"), "./videos/a.mp4"),
    ],
)
def test_join(parts: tuple[str, ...], url: str) -> None:
    assert storage.join(*parts) == url


def test_only_local_urls_have_paths() -> None:
    assert storage.local_path("file:///a/b") == Path("/a/b")
    assert storage.local_path("a/b") == Path("a/b")
    with pytest.raises(ValueError, match="not on this machine"):
        storage.local_path("s3://bucket/a")


@given(st.lists(st.text(max_size=4), max_size=4), st.lists(st.text(max_size=4), max_size=4))
def test_digests_of_different_lists_differ(first: list[str], second: list[str]) -> None:
    assert (storage.digest(*first) == storage.digest(*second)) == (first == second)


def test_digests_are_plain_sha256(tmp_path: Path) -> None:
    data = b"x" * 3_000_000
    (tmp_path / "a").write_bytes(data)
    expected = hashlib.sha256(data).hexdigest()
    assert storage.sha256(tmp_path / "a") == storage.digest_bytes(data) == expected
    assert storage.digest("a") == hashlib.sha256(b"\1" + bytes(7) + b"a").hexdigest()


# --- what killed processes leave ---------------------------------------------------------------


@pytest.fixture(scope="module")
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_scratch_folder_goes_with_its_block(tmp_path: Path) -> None:
    with storage.scratch_folder(str(tmp_path)) as folder:
        assert folder.is_relative_to(tmp_path)
        (folder / "half").touch()
    with pytest.raises(RuntimeError), storage.scratch_folder(str(tmp_path)) as other:
        raise RuntimeError
    assert not folder.exists()
    assert not other.exists()
    with storage.scratch_folder("memory://work") as far:
        assert far.is_dir()
    assert not far.exists()


def test_sweeping_takes_what_dead_processes_left_and_nothing_else(
    tmp_path: Path, dead_pid: int
) -> None:
    host = socket.gethostname()
    dead = tmp_path / "tmp" / f"tmp-{host}-{dead_pid}-00aa"
    kept = [
        tmp_path / "tmp" / name
        for name in (
            f"tmp-{host}-{os.getpid()}-00aa",
            f"tmp-elsewhere-{dead_pid}-00aa",
            f"tmp-{host}-{dead_pid}-{os.getpid()}-00aa",
            f"tmp-{host}-word-00aa",
            "notes",
        )
    ]
    for folder in (dead, *kept):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    storage.sweep_scratch(str(tmp_path))
    assert not dead.exists()
    assert all((folder / "file").exists() for folder in kept)
    storage.sweep_scratch(str(tmp_path / "nowhere"))
    storage.sweep_scratch("memory://work")


def test_orphans_beside_their_targets_are_swept(tmp_path: Path, dead_pid: int) -> None:
    host = socket.gethostname()
    (tmp_path / f".tmp-{host}-{dead_pid}-00aa.crops.parquet").touch()
    kept = [f".tmp-{host}-{os.getpid()}-00aa.crops.parquet", ".gitignore", "crops.parquet"]
    for name in kept:
        (tmp_path / name).touch()
    storage.sweep_orphans(str(tmp_path))
    assert everything(tmp_path) == sorted(kept)
    storage.sweep_orphans(str(tmp_path / "nowhere"))
    storage.sweep_orphans("memory://data")


def test_a_folder_that_cannot_be_listed_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    assert sorted(storage.names_below(str(tmp_path))) == ["file", "file"]
    assert list(storage.names_below(str(tmp_path / "gone"))) == []
    assert list(storage.names_below(str(tmp_path / "a" / "file"))) == []
    listed = os.scandir

    def unanswered(path: Any) -> Any:
        if str(path).endswith("b"):
            raise OSError(errno.EIO, "Input/output error")
        return listed(path)

    monkeypatch.setattr(os, "scandir", unanswered)
    with pytest.raises(OSError, match="Input/output"):
        list(storage.names_below(str(tmp_path)))
