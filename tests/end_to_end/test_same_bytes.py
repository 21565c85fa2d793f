"""Same input, same bytes: whatever the number of workers or the history."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from rig import BEAM_STAGES, Rig, kill_group, wait_until


def test_the_rebuild_is_whole(undisturbed: Rig) -> None:
    rows = {stage: undisturbed.rows(stage) for stage in ("catalog", *BEAM_STAGES)}
    assert len(rows["catalog"]) == len(rows["crop"]) == 10
    assert [row["status"] for row in rows["crop"]].count("out_of_range") == 1
    assert len(rows["landmarks"]) == len(rows["shard"]) == 9
    assert len(list(undisturbed.data.glob("shards/*/*.tar"))) >= 3
    undisturbed.run("verify").check()
    undisturbed.assert_swept()


def test_a_second_run_changes_nothing(undisturbed: Rig, tmp_path: Path) -> None:
    rig = undisturbed.copy_to(tmp_path / "again")
    before = rig.hashes()
    rig.run_all("shard")
    assert rig.hashes() == before


def test_two_processes_give_the_same_bytes(
    undisturbed: Rig, make_rig: Callable[..., Rig], tmp_path: Path
) -> None:
    assert make_rig(tmp_path, workers=2).run_all().hashes() == undisturbed.hashes()


@pytest.mark.slow  # test_kill.py has its harder sister
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_gives_the_same_bytes(
    undisturbed: Rig, make_rig: Callable[..., Rig], tmp_path: Path, number: int, code: int
) -> None:
    """Ctrl-C or `kill` in every stage, once the first item is done; a plain rerun goes on."""
    rig = make_rig(tmp_path)
    rig.change("download", concurrency=1)
    rig.run_all("catalog")
    for stage in BEAM_STAGES:
        process = rig.start(stage)
        assert wait_until(lambda: len(rig.records(stage)) > 0, process), rig.finish(process)  # noqa: B023
        kill_group(process, number)
        line = rig.finish(process, timeout=20).one_line(code)
        assert line.startswith("likeness: interrupted; finished items are kept")
        kept = rig.records(stage)
        assert kept
        again = rig.run(stage).check()
        assert f"{len(kept)} of" in again.out
        assert kept.items() <= rig.records(stage).items()
    assert rig.hashes() == undisturbed.hashes()
    rig.assert_swept()
