"""Checks of the machine."""

from __future__ import annotations

import os
import resource
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
from dvc.cli import main as dvc
from visit import clips, told

from pipelines import crop
from pipelines.doctor import corpus, machine, plan
from pipelines.params import Params
from pipelines.records import Records

MakeParams = Callable[..., Params]


def test_disk_and_memory(make_params: MakeParams, monkeypatch: pytest.MonkeyPatch) -> None:
    params = make_params()
    clips(params)
    assert told(machine.space(params)) == {"disk": "ok", "memory": "ok"}
    assert not Path(params.paths.work).exists()
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    small = psutil.virtual_memory()._replace(available=1 << 20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: small)
    assert told(machine.space(params)) == {"disk": "fail", "memory": "fail"}


def test_every_folder_is_held_against_what_the_plan_leaves_in_it(
    make_params: MakeParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cache = tmp_path / "large" / "files" / "md5"
    assert dvc(["init", "-q", "--no-scm"]) == 0
    assert dvc(["cache", "dir", "-q", str(tmp_path / "large")]) == 0
    params = make_params(settings={"paper": {"content": {"random": {"weight": 1.0}}}})
    clips(params)
    monkeypatch.setattr(machine, "_mount", lambda path: path)  # as if each were a disk
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(machine, "_gb", lambda size: f"{size:.0f} B")

    def told_of(folder: Path | str) -> str:
        (words,) = [v.words for v in machine.space(params) if f" on {folder}," in v.words]
        return words.partition(f" on {folder}, ")[2]

    made = plan.estimate(params, corpus.count(params), 1)
    work = sum(made[name].bytes for name in ("download", "crop", "landmarks", "meta_train"))
    assert made["meta_train"].bytes > 1e9
    assert told_of(params.paths.work) == f"{work:.0f} B needed, 0 B of it there"
    need = f"{made['DVC cache'].bytes:.0f} B"
    assert told_of(cache) == f"{need} needed, 0 B of it there"
    (cache / "ab").mkdir(parents=True)
    (cache / "ab" / "cd").write_bytes(bytes(1000))
    assert told_of(cache) == f"{need} needed, 1000 B of it there"
    (cache / "ab" / "ef").write_bytes(bytes(10**7))  # older versions are no room for the new
    assert told_of(cache) == f"{need} needed, {need} of it there"


def test_crops_of_an_older_version_are_no_part_of_what_is_needed(
    finished: Callable[..., Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stay beside those that are made anew."""
    params = finished()
    records, rows = Records(params.paths.work, "crop"), pa.table({"status": ["ok"]})
    for item in crop.prepare(params).items:
        records.write(item.fingerprint, rows, 1.0)
    monkeypatch.setattr(machine, "OLD", 0)
    monkeypatch.setattr(machine, "_gb", lambda size: f"{size:.0f} B")
    assert "besides" not in next(machine.space(params)).words
    size = sum(f.stat().st_size for f in Path(params.paths.work, "crops").iterdir())
    monkeypatch.setattr(crop, "VERSION", "the next")
    assert f", besides {size} B of other versions or settings" in next(machine.space(params)).words
    for item in crop.prepare(params).items:
        records.write(item.fingerprint, rows, 1.0)
    assert f", besides {size / 2:.0f} B of" in next(machine.space(params)).words


def test_clock(make_params: MakeParams, monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(machine.clock(make_params())) == {"clock": "ok"}
    now = time.time
    monkeypatch.setattr(machine.time, "time", lambda: now() + 3600)
    assert told(machine.clock(make_params())) == {"clock": "fail"}


def test_limits(make_params: MakeParams, monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, level in ((65_536, "ok"), (1000, "warn"), (64, "fail")):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, 65_536))
        assert told(machine.files(make_params())) == {"open files": level}
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 26))
    if Path("/dev/shm").is_dir():
        assert told(machine.shm(make_params())) == {"/dev/shm": "warn"}


def test_folders(make_params: MakeParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = make_params()
    assert told(machine.folders(params))["temp folder"] in ("ok", "warn")
    monkeypatch.setattr(machine.tempfile, "gettempdir", lambda: str(tmp_path / "none" / "x"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1))  # type: ignore[attr-defined]
    assert told(machine.folders(params))["temp folder"] == "fail"
    if os.getuid():  # root may write anywhere
        tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
        assert told(machine.folders(params))["paths.work"] == "fail"


@pytest.mark.parametrize("name", ["data", "work", "metrics", "cards", "models", "results"])
def test_every_folder_of_the_settings_is_tried(
    make_params: MakeParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    params = make_params(paths={name: str(closed / "inside")})
    monkeypatch.setattr(
        machine, "_refuses", lambda folder: "Permission denied" if folder == closed else ""
    )
    assert told(machine.folders(params))[f"paths.{name}"] == "fail"
