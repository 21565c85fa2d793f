"""SIGKILL at any moment: the next run goes on where it stopped and ends in the same bytes."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from rig import BEAM_STAGES, OUTPUTS, Rig, kill_group, sdk_workers, stamps, wait_until

from pipelines import storage
from pipelines.sample.server import SampleServer

KILLS, MANY_KILLS = 3, 10
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "stage",
    # By default the first and the last of them.
    [s if s in ("download", "shard") else pytest.param(s, marks=SLOW) for s in BEAM_STAGES],
)
def test_killed_at_random_moments(
    stage: str, undisturbed: Rig, site: SampleServer, tmp_path: Path
) -> None:
    _kill_and_go_on(stage, KILLS, 1, undisturbed, site, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("stage", BEAM_STAGES)
def test_killed_many_times(
    stage: str, workers: int, undisturbed: Rig, site: SampleServer, tmp_path: Path
) -> None:
    _kill_and_go_on(stage, MANY_KILLS, workers, undisturbed, site, tmp_path)


def _kill_and_go_on(
    stage: str, kills: int, workers: int, undisturbed: Rig, site: SampleServer, folder: Path
) -> None:
    chance = random.Random(f"{stage}-{workers}")
    rig = undisturbed.copy_to(folder / "killed")
    if workers > 1:
        options = {"direct_running_mode": "multi_processing", "direct_num_workers": workers}
        rig.change("beam", options=options)
    rig.change("download", concurrency=1)
    rig.forget(stage)
    items = len(undisturbed.records(stage))
    done = 0
    while done < kills:
        kept, older = rig.records(stage), _scratch(rig)
        process = rig.start(stage)
        # A scratch folder marks the begin of an item's work.
        wait_until(lambda: bool(_scratch(rig) - older), process)  # noqa: B023
        time.sleep(chance.uniform(0, 1.5))
        kill_group(process)
        process.communicate()
        done += process.returncode != 0
        assert kept.items() <= rig.records(stage).items(), "a finished item was done again"
        if len(rig.records(stage)) == items and done < kills:
            _check_the_end(rig, stage, workers, undisturbed, site)
            rig.forget(stage)
    _check_the_end(rig, stage, workers, undisturbed, site)


def _scratch(rig: Rig) -> set[str]:
    return {path.name for path in (rig.work / "tmp").glob("tmp-*")}


def _check_the_end(
    rig: Rig, stage: str, workers: int, undisturbed: Rig, site: SampleServer
) -> None:
    """Run to the end: what is done is kept, and all is as if nothing had happened."""
    root = rig.folder / OUTPUTS[stage][0]
    kept, files = rig.records(stage), stamps(root)
    asked = {path: hits.requests for path, hits in site.hits.items()}
    again = rig.run(stage).check()
    assert not kept or f"{len(kept)} of" in again.out
    assert kept.items() <= rig.records(stage).items(), "a finished item was done again"
    now = stamps(root)
    redone = {name for name in files if now.get(name) != files[name]}
    in_hand = {"download": 0, "crop": 3 * workers, "landmarks": 0, "shard": 2 * workers}
    assert len(redone) <= in_hand[stage], f"done again: {redone}"
    if stage == "download":
        for row in undisturbed.rows("download"):
            if row["path"].removeprefix("videos/") in files:
                address = f"/watch/{row['video']}"
                assert site.hits[address].requests == asked[address], "fetched twice"
    assert rig.hashes(stage) == undisturbed.hashes(stage)
    rig.assert_swept()


def test_a_killed_download_resumes_its_part(
    undisturbed: Rig, site: SampleServer, tmp_path: Path
) -> None:
    rig = undisturbed.copy_to(tmp_path / "killed")
    rig.change("download", concurrency=1)
    rig.forget("download")
    process = rig.start("download")
    assert wait_until(lambda: any(p.stat().st_size for p in _parts(rig)), process)
    time.sleep(0.4)
    kill_group(process)
    process.communicate()
    ((part, kept),) = ((p, p.stat().st_size) for p in _parts(rig))
    row = next(r for r in undisturbed.rows("download") if part.parent.name in r["path"])
    hits = site.hits[f"/watch/{row['video']}"]
    ranges, sent = hits.partial, hits.bytes
    rig.run("download").check()
    assert hits.partial == ranges + 1, "the server was not asked to go on"
    peek = row["bytes"] // 4  # the look at what the address holds
    assert hits.bytes - sent <= row["bytes"] - kept + peek
    assert rig.hashes("download") == undisturbed.hashes("download")
    rig.assert_swept()


def _parts(rig: Rig) -> list[Path]:
    return list(rig.work.glob("partial/*/*.part"))


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_driver(undisturbed: Rig, tmp_path: Path) -> None:
    """Only the driver is killed: its workers notice and end."""
    rig = undisturbed.copy_to(tmp_path / "killed")
    options = {"direct_running_mode": "multi_processing", "direct_num_workers": 2}
    rig.change("beam", options=options)
    rig.forget("crop")
    process = rig.start("crop")
    try:
        assert wait_until(lambda: bool(_scratch(rig)), process)
        workers = sdk_workers(process)
        assert workers
        process.kill()
        # One that was still connecting gives up after Beam's two waits of a minute.
        _, alive = psutil.wait_procs(workers, timeout=180)
        assert not alive
    finally:
        kill_group(process)
        process.communicate()
    assert rig.run("crop").check()
    assert rig.hashes("crop") == undisturbed.hashes("crop")


def test_leftovers_of_a_reused_number_and_of_a_zombie_are_swept(tmp_path: Path) -> None:
    host = socket.gethostname()
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    watched = psutil.Process(zombie.pid)
    while watched.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    old = tmp_path / "tmp" / f"tmp-{host}-{os.getpid()}-00aa"
    dead = tmp_path / "tmp" / f"tmp-{host}-{zombie.pid}-00aa"
    own = tmp_path / "tmp" / f"tmp-{host}-{os.getpid()}-00bb"
    for folder in (old, dead, own):
        folder.mkdir(parents=True)
    os.utime(old, (0, 0))
    storage.sweep_scratch(str(tmp_path))
    zombie.wait()
    assert [own] == list((tmp_path / "tmp").iterdir())
