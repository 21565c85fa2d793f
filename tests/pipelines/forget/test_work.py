"""The work folder: what is deleted and what stays."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest
from leaver import LEAVER, OWN, asked

from pipelines import catalog, download, storage
from pipelines.errors import UserError
from pipelines.forget import work
from pipelines.forget.whose import whose
from pipelines.params import Params
from pipelines.work_folder import RUN_LOCK


def test_what_is_deleted_and_what_stays(
    worked: Params, tree_bytes: Callable[[str], dict[str, bytes]]
) -> None:
    forgotten = whose(worked, asked(worked, f"person,{LEAVER}"))
    purged = work.purge(worked, forgotten)
    left = {p for p in tree_bytes(worked.paths.work) if not p.startswith("records/")}
    assert left == {
        "videos/bb/bb22-site.mp4",  # the friend needs it
        "videos/cc/cc33-site.mp4",
        "crops/33/3301.mp4",
        "landmarks/66/6601.npz",
    }
    names = {p.split("/")[1] for p in tree_bytes(worked.paths.work) if p.startswith("records/")}
    assert names == {"download", "crop", "landmarks"}
    assert len(work.owners(worked, forgotten).records) == 0
    # The friend's crop goes with the record they share, and is no file of the leaver's.
    whats = {sha256 for _, _, sha256 in purged.files}
    body = b"body of crops/22/"
    assert storage.digest_bytes(body + b"2201.mp4") in whats
    assert storage.digest_bytes(body + b"2202.mp4") not in whats
    assert len(purged.files) == 4
    again = work.purge(worked, forgotten)
    assert work.counted(again.counts) == "nothing"


def test_a_video_that_waits_for_its_record_stays(
    worked: Params, write_manifest: Callable[..., None]
) -> None:
    catalog.build(worked)
    items = {item.name: item.fingerprint[:16] for item in download.prepare(worked).items}
    waiting = [f"videos/{f[:2]}/{f}-site.mp4" for f in items.values()]
    waiting += [f"partial/{f}/video.part" for f in items.values()]
    for path in waiting:
        storage.write_bytes(storage.join(worked.paths.work, path), b"unrecorded")
    work.purge(worked, whose(worked, asked(worked, f"person,{LEAVER}")))
    there = {p for p in waiting if storage.exists(storage.join(worked.paths.work, p))}
    assert there == {p for p in waiting if items[OWN] not in p}


def test_a_stage_at_work_is_not_disturbed(worked: Params) -> None:
    forgotten = whose(worked, asked(worked, f"person,{LEAVER}"))
    with (
        storage.scratch_folder(worked.paths.work),
        pytest.raises(UserError, match="seems to be at work"),
    ):
        work.purge(worked, forgotten)
    assert storage.exists(storage.join(worked.paths.work, "crops/11/1101.mp4"))


def test_nothing_goes_while_a_run_trains(worked: Params) -> None:
    """It would draw the forgotten into its next picture."""
    forgotten = whose(worked, asked(worked, f"person,{LEAVER}"))
    place = Path(worked.paths.work, "runs", "a-run", RUN_LOCK)
    place.parent.mkdir(parents=True)
    with place.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("process 7 on here\n")
        lock.flush()
        with pytest.raises(UserError, match="a-run: this run is being trained, by process 7 on"):
            work.purge(worked, forgotten)
    assert storage.exists(storage.join(worked.paths.work, "crops/11/1101.mp4"))
    work.purge(worked, forgotten)
    assert not storage.exists(storage.join(worked.paths.work, "crops/11/1101.mp4"))
