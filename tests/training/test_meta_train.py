"""The command's own part: what it checks and whom it keeps out, before Ray starts."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest
from tiny_run import params_of, run_of
from tiny_shards import Shards

from pipelines.errors import UserError
from training import meta_train


def test_a_run_has_one_driver_at_a_time(shards: Shards) -> None:
    run = run_of(shards)
    with (
        meta_train._alone(run),
        pytest.raises(UserError, match=r"this run is being trained already, by process \d+ on "),
        meta_train._alone(run),
    ):
        pass
    with meta_train._alone(run):  # and then the next one
        assert Path(run.folder, "driver.lock").read_text().count("process") == 1


def test_where_files_cannot_be_locked_it_trains_all_the_same(
    shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with meta_train._alone(run_of(shards)):
        pass


def test_too_few_frames_are_told_before_ray_starts(shards: Shards) -> None:
    with pytest.raises(UserError, match=r"^settings.tiny: .*take a smaller K"):
        meta_train.prepare(params_of(shards, k=60))


def test_only_runs_that_trained_are_named(shards: Shards) -> None:
    params, run = params_of(shards), run_of(shards)
    for name, files in (("a" * 12, ["history.jsonl"]), ("b" * 12, [])):
        folder = Path(run.folder).with_name(f"tiny-tiny-{name}")
        folder.mkdir(parents=True)
        for file in files:
            (folder / file).touch()
    assert meta_train._others(run, params) == ["tiny-tiny-" + "a" * 12]
