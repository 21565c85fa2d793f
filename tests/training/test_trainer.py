"""A worker's whole life without Ray: from beginning to end, and on after it was killed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_run import STEPS, Killed, die_at, losses, run_of, trained_events
from tiny_shards import MakeShards, Shards

from pipelines import storage
from training import trained
from training.events import Pictured, Saved, Started, Stopped
from training.trainer import Worker


def test_a_run_from_its_beginning_to_its_model(shards: Shards) -> None:
    run = run_of(shards)
    events = trained_events(run)
    assert isinstance(events[0], Started) and (events[0].step, events[0].total) == (0, STEPS)
    assert list(losses(events)) == list(range(1, STEPS + 1))
    assert [e.step for e in events if isinstance(e, Saved)] == [3, 6, 9, 10]
    grids = [e for e in events if isinstance(e, Pictured)]
    assert [grid.step for grid in grids] == [5, 10]
    assert len(grids[0].rows) == 5 and {len(row) for row in grids[0].rows} == {4}
    assert not np.array_equal(grids[0].rows[0][2], grids[1].rows[0][2])  # the output has learned
    assert np.array_equal(grids[0].rows[0][0], grids[1].rows[0][0])  # the source is the same

    model = trained.load_model(run.model)
    assert model.facts["step"] == STEPS and model.facts["epoch"] == 4
    assert model.facts["dataset"]["index_sha256"] == storage.sha256(shards.index)
    assert model.facts["dataset"]["videos"] == 5
    assert model.facts["parents"][0]["kind"] == "index"
    assert model.facts["setting"]["content"]["pixels"]["weight"] == 100.0


@pytest.mark.parametrize("at", [2, 3, 7, 10])
def test_killed_at_any_step_it_goes_on_bit_for_bit(
    make_shards: MakeShards, at: int, tmp_path: Path
) -> None:
    shards = make_shards()
    undisturbed = run_of(shards)
    expected = losses(trained_events(replace(undisturbed, folder=str(tmp_path / "undisturbed"))))
    run = replace(undisturbed, folder=str(tmp_path / "killed"))
    with pytest.raises(Killed):
        Worker(run, report=die_at(at)).train()
    events = trained_events(run)
    saved = max((n for n in (3, 6, 9) if n < at), default=0)
    assert isinstance(events[0], Started) and events[0].step == saved
    assert losses(events) == {n: v for n, v in expected.items() if n > saved}
    assert {old.step: old.losses for old in events[0].history}.items() <= expected.items()
    one, two = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("undisturbed", "killed")
    )
    assert one == two


def test_more_epochs_go_on_from_where_fewer_ended(shards: Shards) -> None:
    first = run_of(shards)
    trained_events(first)
    longer = run_of(shards, epochs=6)
    assert longer.folder == first.folder
    events = trained_events(longer)
    assert list(losses(events)) == [11, 12, 13, 14, 15]
    assert trained.load_model(longer.model).facts["step"] == 15

    [_, stopped] = [None, *trained_events(first)]
    assert isinstance(stopped, Stopped) and stopped.mistake
    assert "already at step 15, beyond the 10 steps of epochs: 4" in stopped.why


def test_a_finished_run_leaves_its_model_alone(shards: Shards) -> None:
    run = run_of(shards)
    trained_events(run)
    before = Path(run.model).stat()
    trained_events(replace(run, facts=run.facts | {"code": "a later commit"}))
    after = Path(run.model).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_stream_trains_too_and_goes_on_at_an_epoch(shards: Shards) -> None:
    run = run_of(shards, loader="stream")
    with pytest.raises(Killed):
        Worker(run, report=die_at(7)).train()
    events = trained_events(run)
    assert isinstance(events[0], Started) and events[0].step == 6
    assert list(losses(events)) == [7, 8, 9, 10]
    assert trained.load_model(run.model).facts["step"] == STEPS
    [grid] = [event for event in events if isinstance(event, Pictured)]
    assert grid.labels == ["trained on"] * 2 and len(grid.rows) == 2, "of a batch of two"


def test_shards_of_an_object_store_are_cached(shards: Shards) -> None:
    root = f"memory:/{shards.folder.parent}"
    storage.write_bytes(f"{root}/index.parquet", shards.index.read_bytes())
    rows = {}
    for at in (0, 1):
        rows[shards.tar(at).stem] = storage.sha256(shards.tar(at))
        url = f"{root}/shards/train/{shards.tar(at).name}"
        storage.write_bytes(url, shards.tar(at).read_bytes())
    expected = losses(trained_events(run_of(shards)))
    shards.edit(lambda row: row.update(shard_sha256=rows[row["shard"]]))
    storage.write_bytes(f"{root}/index.parquet", shards.index.read_bytes())
    run = run_of(shards)
    run = replace(run, index=f"{root}/index.parquet", shards=f"{root}/shards")
    assert losses(trained_events(run)) == expected
    storage.remove(f"{root}/shards/train/{shards.tar(0).name}")  # not asked for again
    assert isinstance(trained_events(run)[0], Started)

    url = f"{root}/shards/train/{shards.tar(1).name}"
    storage.write_bytes(url, b"something else")
    [stopped] = trained_events(replace(run, cache=run.cache + "2"))
    assert isinstance(stopped, Stopped)


def test_videos_that_are_left_out_are_told(make_shards: MakeShards) -> None:
    shards = make_shards()
    counts = [len(shards.open().index.frames_of(n)) for n in range(5)]
    k = sorted(counts)[2] - 1  # of five videos, those with fewer frames than the middle one
    few = sum(count < k + 1 for count in counts)
    assert few
    events = trained_events(run_of(shards, k=k, batch=2, epochs=1))
    assert isinstance(events[0], Started) and events[0].videos == 5 - few
    assert f"{few} of 5 videos store fewer than k + 1 = {k + 1} frames" in events[0].notes[0]
