"""Several workers, a thread each: they agree, or all of them end."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_run import STEPS, Killed, damage_a_picture, die_at, losses, run_of, trained_events
from tiny_shards import MakeShards, Shards

from training.events import Event, Started, Stopped
from training.meta import Reducer
from training.run import Run
from training.trainer import Worker


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


def test_what_one_worker_cannot_read_ends_all(make_shards: MakeShards) -> None:
    shards = make_shards()
    damage_a_picture(shards)
    everybody = together([run_of(shards, batch=2)] * 2)
    stopped = [event for events in everybody for event in events if isinstance(event, Stopped)]
    assert stopped and all("is no whole JPEG" in event.why for event in stopped)
    assert all(len(losses(events)) < STEPS for events in everybody)
