"""A worker's whole life without Ray: resume, faults, agreement."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny_setting import SETTING
from tiny_shards import MakeShards, Shards

from pipelines import storage
from pipelines.errors import UserError
from pipelines.params import Params
from pipelines.schemas import INDEX
from training import run as run_module
from training import trained
from training.events import Event, Pictured, Saved, Started, Stepped, Stopped
from training.meta import Reducer
from training.meta_train import prepare
from training.run import Run, plan
from training.trainer import Worker

EPOCHS = 4
STEPS = 10  # of 5 videos, 2 a step


def params_of(shards: Shards, **changes: Any) -> Params:
    return Params.model_validate(
        {
            "name": "tiny",
            "paths": {
                "data": str(shards.folder.parent),
                "work": str(shards.folder.parent / "work"),
            },
            "catalog": {"metadata": ".", "sources": ({"name": "a", "reader": "mp4"},)},
            "card": {"title": "t", "licence": "other", "description": "d"},
            "setting": "tiny",
            "settings": {"tiny": SETTING | {"epochs": EPOCHS} | changes},
            "ray": {"checkpoint_every": 3, "grid_every": 5, "keep": 2},
        },
        strict=False,
    )


def run_of(shards: Shards, **changes: Any) -> Run:
    params = params_of(shards, **changes)
    run = plan(params, params.settings[params.setting], storage.sha256(shards.index))
    return replace(run, cache=str(shards.folder.parent / "cache"))


def trained_events(run: Run, **options: Any) -> list[Event]:
    events: list[Event] = []
    Worker(run, report=events.append, **options).train()
    return events


def losses(events: list[Event]) -> dict[int, dict[str, float]]:
    return {event.step: event.losses for event in events if isinstance(event, Stepped)}


class Killed(BaseException):
    """Ends a worker at once."""


def die_at(step: int) -> Callable[[Event], None]:
    def report(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == step:
            raise Killed

    return report


class Meeting:
    """Where the workers of one process, a thread each, agree on tensors."""

    def __init__(self, world: int) -> None:
        self.world, self.brought = world, [[torch.zeros(0)]] * world
        self.barrier = threading.Barrier(world, timeout=60)

    def all(self, rank: int, tensors: list[torch.Tensor]) -> list[list[torch.Tensor]]:
        self.brought[rank] = [tensor.clone() for tensor in tensors]
        self.barrier.wait()
        everybody = list(self.brought)
        self.barrier.wait()
        return everybody


class Seat(Reducer):
    """One worker's place at a meeting."""

    def __init__(self, meeting: Meeting, rank: int) -> None:
        self.meeting, self.rank = meeting, rank

    def mean_(self, tensors: Sequence[torch.Tensor]) -> None:
        for mine, *all_of_it in zip(
            tensors, *self.meeting.all(self.rank, list(tensors)), strict=True
        ):
            mine.copy_(torch.stack(all_of_it).mean(0))

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        return torch.cat([part for (part,) in self.meeting.all(self.rank, [tensor])])

    @property
    def workers(self) -> int:
        return self.meeting.world


def together(runs: Sequence[Run]) -> list[list[Event]]:
    """Each worker's events; all of them must end."""
    meeting = Meeting(len(runs))
    seats = [Seat(meeting, rank) for rank in range(len(runs))]
    with ThreadPoolExecutor(len(runs)) as pool:
        calls = [
            pool.submit(trained_events, run, rank=rank, world=len(runs), reducer=seats[rank])
            for rank, run in enumerate(runs)
        ]
        return [call.result(timeout=120) for call in calls]


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


def test_a_damaged_newest_checkpoint_is_passed_over(shards: Shards) -> None:
    run = run_of(shards)
    expected = losses(trained_events(run))
    newest = Path(run.folder, "checkpoints", f"step-{STEPS:09d}.safetensors")
    newest.write_bytes(newest.read_bytes()[:-100])
    events = trained_events(run)
    assert isinstance(events[0], Started) and events[0].step == 9
    assert len(events[0].notes) == 1 and newest.name in events[0].notes[0]
    assert losses(events) == {10: expected[10]}


def test_when_all_checkpoints_are_damaged_it_says_that_it_begins_anew(shards: Shards) -> None:
    run = run_of(shards)
    trained_events(run)
    for checkpoint in Path(run.folder, "checkpoints").iterdir():
        checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    started = trained_events(run)[0]
    assert isinstance(started, Started) and started.step == 0
    first, second = started.notes
    assert "the checkpoint before it is taken" in first and "training begins anew" in second


def test_workers_that_see_different_checkpoints_do_not_mix_their_weights(
    shards: Shards, tmp_path: Path
) -> None:
    """A work folder that is not shared: only the first node has the checkpoint."""
    run = run_of(shards)
    with pytest.raises(Killed):
        Worker(run, report=die_at(7)).train()
    elsewhere = replace(run, folder=str(tmp_path / "another node"))
    first, second = together([run, elsewhere])
    assert isinstance(first[0], Started) and first[0].step == 6
    stopped = first[-1]
    assert isinstance(stopped, Stopped) and stopped.mistake
    assert "different steps there (0, 6); paths.work must be one folder" in stopped.why
    assert not losses(first) and not losses(second) and not Path(elsewhere.model).exists()


def damage_a_picture(shards: Shards) -> str:
    """The member whose first bytes are overwritten."""
    episodes = shards.open()
    for frame in episodes.index.frames_of(3):
        start = int(episodes.index.offsets[frame])
        tar = episodes.index.shards[int(episodes.index.shard_of[episodes.index.clip_of(frame)])]
        path = shards.folder / "train" / f"{tar}.tar"
        data = bytearray(path.read_bytes())
        data[start : start + 4] = b"\0" * 4
        path.write_bytes(data)
    return path.name


@pytest.mark.parametrize("changes", [{}, {"loader": "stream"}], ids=["mmap", "stream"])
def test_a_damaged_picture_ends_the_run_and_is_named(
    make_shards: MakeShards, changes: dict[str, Any]
) -> None:
    shards = make_shards()
    tar = damage_a_picture(shards)
    stopped = trained_events(run_of(shards, **changes))[-1]
    assert isinstance(stopped, Stopped) and stopped.mistake
    assert tar in stopped.why and stopped.why.endswith("is no whole JPEG: make its shard anew")


def test_in_a_loader_s_process_too(make_shards: MakeShards) -> None:
    shards = make_shards()
    tar = damage_a_picture(shards)
    stopped = trained_events(replace(run_of(shards), loader_workers=1))[-1]
    assert isinstance(stopped, Stopped) and "\n" not in stopped.why
    assert tar in stopped.why and stopped.why.endswith("is no whole JPEG: make its shard anew")


def test_what_one_worker_cannot_read_ends_all(make_shards: MakeShards) -> None:
    shards = make_shards()
    damage_a_picture(shards)
    everybody = together([run_of(shards, batch=2)] * 2)
    stopped = [event for events in everybody for event in events if isinstance(event, Stopped)]
    assert stopped and all("is no whole JPEG" in event.why for event in stopped)
    assert all(len(losses(events)) < STEPS for events in everybody)


def test_held_out_tars_that_are_missing_are_told(make_shards: MakeShards) -> None:
    shards = make_shards()
    rows = pq.read_table(shards.index).to_pylist()
    held_out = [
        row | {"split": "val", "shard": row["shard"].replace("train", "val")} for row in rows
    ]
    pq.write_table(pa.Table.from_pylist(rows + held_out, schema=INDEX), shards.index)
    stopped = trained_events(run_of(shards))[-1]
    assert isinstance(stopped, Stopped) and "is missing, as the index says" in stopped.why


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


def test_whatever_decides_the_result_makes_another_run(shards: Shards) -> None:
    other = params_of(shards)
    names = {
        run_of(shards).name,
        run_of(shards, seed=1).name,
        run_of(shards, meta={"lr_generator": 1e-3}).name,
        plan(other, other.settings[other.setting], "0" * 64).name,
    }
    assert len(names) == 4
    adapt = {"iterations": 7}
    assert run_of(shards, about="called otherwise", adapt=adapt).name == run_of(shards).name
    assert run_of(shards, adapt=adapt).facts == run_of(shards).facts


def test_other_code_makes_another_run(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    before = run_of(shards).name
    seen: list[Path] = []
    monkeypatch.setattr(run_module, "source_digest", lambda files: seen.extend(files) or "other")
    assert run_of(shards).name != before
    assert {"meta.py", "losses.py", "episodes.py"} < {path.name for path in seen}


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


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda s: s.tar(0).unlink(), "is missing, as the index says"),
        (lambda s: s.tar(0).write_bytes(b"x"), "has 1 bytes, not"),
        (lambda s: s.index.unlink(), "no such file; `dvc repro shard`"),
    ],
)
def test_what_shards_lack_is_one_line(
    shards: Shards, break_it: Callable[[Shards], None], words: str
) -> None:
    run = run_of(shards)
    break_it(shards)
    [stopped] = trained_events(run)
    assert isinstance(stopped, Stopped) and stopped.mistake and words in stopped.why


def test_k_larger_than_a_video_has_frames(shards: Shards) -> None:
    [stopped] = trained_events(run_of(shards, k=9, few_frames="error"))
    assert isinstance(stopped, Stopped) and "take a smaller K" in stopped.why
    [stopped] = trained_events(run_of(shards, k=50))
    assert isinstance(stopped, Stopped) and "has the 51 frames of K = 50" in stopped.why


def test_videos_that_are_left_out_are_told(make_shards: MakeShards) -> None:
    shards = make_shards()
    counts = [len(shards.open().index.frames_of(n)) for n in range(5)]
    k = sorted(counts)[2] - 1  # of five videos, those with fewer frames than the middle one
    few = sum(count < k + 1 for count in counts)
    assert few
    events = trained_events(run_of(shards, k=k, batch=2, epochs=1))
    assert isinstance(events[0], Started) and events[0].videos == 5 - few
    assert f"{few} of 5 videos store fewer than k + 1 = {k + 1} frames" in events[0].notes[0]


def test_a_damaged_index_stops_before_ray_starts(shards: Shards) -> None:
    params = params_of(shards)
    Path(shards.index).write_bytes(Path(shards.index).read_bytes()[:-50])
    with pytest.raises(UserError, match=r"index.parquet is not a readable manifest .*rerun"):
        prepare(params)


def test_a_diverging_run_stops_and_says_what_to_do(shards: Shards) -> None:
    events = trained_events(run_of(shards, content={"pixels": {"weight": 1e39}}))
    assert isinstance(events[-1], Stopped) and not events[-1].mistake
    assert "lower the learning rates" in events[-1].why


def test_a_full_disk_while_saving_keeps_the_checkpoints_before(
    shards: Shards, tmp_path: Path
) -> None:
    """A real one: a small file system that takes one checkpoint and not the second."""
    folder = tmp_path / "small"
    folder.mkdir()
    run = replace(run_of(shards), folder=str(folder))
    expected = losses(trained_events(replace(run, folder=str(tmp_path / "undisturbed"))))
    size = Path(tmp_path, "undisturbed", "checkpoints", "step-000000010.safetensors").stat().st_size
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size * 5 // 4 // 1024}k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a small disk here")
    try:
        events = trained_events(run)
        assert isinstance(events[-1], Stopped) and not events[-1].mistake
        assert "no checkpoint could be saved" in events[-1].why and "make room" in events[-1].why
        assert [p.name for p in Path(folder, "checkpoints").iterdir()] == [
            "step-000000003.safetensors"
        ]
        more = ["mount", "-o", f"remount,size={size * 9 // 1024}k", str(folder)]
        subprocess.run(more, check=True)
        events = trained_events(run)
        assert losses(events) == {n: v for n, v in expected.items() if n > 3}
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
