"""Trouble of every kind: one line, the right exit status, nothing half-written, and a way on."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rig import MANIFESTS, OUTPUTS, Rig, kill_group, sdk_workers, sha256, wait_until

from pipelines.errors import UserError
from pipelines.params import load

# --- a disk that is full or read-only --------------------------------------------------------


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """Something mounted on a folder; skips the test where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    made = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"cannot mount a small disk here: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def used_kib(folder: Path) -> int:
    return sum(-(-p.stat().st_size // 4096) * 4 for p in folder.rglob("*") if p.is_file())


def assert_nothing_truncated(rig: Rig, stage: str, undisturbed: Rig) -> None:
    """Every file under a final name is byte for byte what an undisturbed run puts there."""
    assert not (rig.data / MANIFESTS[stage]).exists()
    for output in OUTPUTS[stage]:
        for path in (rig.folder / output).rglob("*"):
            if path.is_file() and not path.name.endswith(".part"):
                assert sha256(path) == sha256(undisturbed.folder / path.relative_to(rig.folder))


@pytest.mark.parametrize("stage", ["download", "crop", "shard"])
def test_full_disk(stage: str, undisturbed: Rig, tmp_path: Path) -> None:
    rig = undisturbed.copy_to(tmp_path / "rig")
    rig.forget(stage)
    full = rig.data if stage == "shard" else rig.work
    kept = shutil.move(full, tmp_path / "kept")
    needs = used_kib(undisturbed.folder / OUTPUTS[stage][0])
    # Room for what is there and for about half of what is to come.
    room = used_kib(kept) + needs // 2
    with mounted(full, "-t", "tmpfs", "-o", f"size={room}k", "tmpfs"):
        shutil.copytree(kept, full, dirs_exist_ok=True, symlinks=True)
        line = rig.run(stage).one_line(1)
        assert "No space left on device" in line, line
        assert_nothing_truncated(rig, stage, undisturbed)
        remount(full, "size=64m")
        rig.run(stage).check()
        assert rig.hashes(stage) == undisturbed.hashes(stage)
        rig.assert_swept()


@pytest.mark.parametrize(
    "stage",
    ["catalog", "shard"]
    + [pytest.param(stage, marks=pytest.mark.slow) for stage in ("download", "crop", "landmarks")],
)
def test_read_only_disk(stage: str, undisturbed: Rig, tmp_path: Path) -> None:
    rig = undisturbed.copy_to(tmp_path / "rig")
    if stage != "catalog":
        rig.forget(stage)
    with mounted(rig.data, "--bind", str(rig.data)):
        remount(rig.data, "ro,bind")
        line = rig.run(stage).one_line(1)
        assert "Read-only file system" in line
        assert ".tmp-" not in line
    rig.run(stage).check()
    assert rig.hashes(stage) == undisturbed.hashes(stage)


# --- what a stage needs is not there ---------------------------------------------------------


def test_missing_weights(undisturbed: Rig, tmp_path: Path) -> None:
    pytest.importorskip("face_alignment", reason="the extra `face-alignment`")
    rig = undisturbed.copy_to(tmp_path / "rig")
    rig.change("landmarks", backend="face_alignment")
    rig.env |= {"TORCH_HOME": str(tmp_path / "empty"), "https_proxy": "http://127.0.0.1:9"}
    run = rig.run("landmarks", timeout=60)
    assert run.code == 1
    assert "Traceback" not in run.err
    assert len(run.complaints) <= 2, run.err  # torch may say what it tries to fetch
    assert "2DFAN4" in run.complaints[-1]
    assert "TORCH_HOME" in run.complaints[-1]


@pytest.mark.parametrize(
    ("stage", "manifest"),
    [
        ("download", "catalog"),
        ("crop", "downloads"),
        ("landmarks", "crops"),
        ("shard", "landmarks"),
    ],
)
@pytest.mark.parametrize("damage", ["missing", "cut", "rubbish"])
def test_unreadable_manifest(
    stage: str,
    manifest: str,
    damage: str,
    undisturbed: Rig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the command turns into one line; see below for the whole way."""
    rig = undisturbed.copy_to(tmp_path / "rig")
    spoil(rig.data / f"{manifest}.parquet", damage)
    monkeypatch.chdir(rig.folder)
    with pytest.raises(UserError, match=f"{manifest}.parquet") as stopped:
        importlib.import_module(f"pipelines.{stage}").prepare(load("params.yaml"))
    assert len(str(stopped.value).splitlines()) == 1


@pytest.mark.parametrize(("damage", "code"), [("missing", 2), ("hole", 2)])
def test_unreadable_manifest_told_in_one_line(
    damage: str, code: int, undisturbed: Rig, tmp_path: Path
) -> None:
    rig = undisturbed.copy_to(tmp_path / "rig")
    spoil(rig.data / "crops.parquet", damage)
    assert "crops.parquet" in rig.run("landmarks").one_line(code)


def spoil(path: Path, damage: str) -> None:
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "hole":
        # The footer still opens; the pages behind it do not.
        path.write_bytes(data[:4] + bytes(len(data) // 2) + data[4 + len(data) // 2 :])
    else:
        path.write_bytes(b"PAR1" + bytes(range(256)) * 8 + b"PAR1")


# --- a worker dies ---------------------------------------------------------------------------


def test_killed_worker(undisturbed: Rig, tmp_path: Path) -> None:
    """Beam's local runner would wait for ever."""
    rig = undisturbed.copy_to(tmp_path / "rig")
    options = {"direct_running_mode": "multi_processing", "direct_num_workers": 2}
    rig.change("beam", options=options)
    rig.forget("crop")
    process = rig.start("crop")
    try:
        assert wait_until(lambda: any((rig.work / "tmp").glob("tmp-*")), process)
        workers = sdk_workers(process)
        workers[-1].kill()
        line = rig.finish(process, timeout=30).one_line(1)
    finally:
        kill_group(process)
    assert "a worker process was killed (SIGKILL" in line
    deadline = time.monotonic() + 10
    while any(w.is_running() and w.status() != "zombie" for w in workers):
        assert time.monotonic() < deadline, "a worker lives on"
        time.sleep(0.05)
    rig.run("crop").check()
    assert rig.hashes("crop") == undisturbed.hashes("crop")
    rig.assert_swept()
