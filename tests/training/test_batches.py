"""The place of the next batch: where a run goes on, by random access and by a stream."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch
from tiny_run import params_of
from tiny_shards import Shards

from pipelines.errors import UserError
from training.batches import Indexed, Streamed
from training.meta import EpisodeBatch
from training.stream import EpisodeStream, stream_loader

VIDEOS, BATCH = 5, 2


def source(
    kind: type[Indexed] | type[Streamed], shards: Shards, world: int = 1, batch: int = BATCH
) -> Any:
    setting = params_of(shards, batch=batch).settings["tiny"]
    return kind(
        setting, str(shards.index), str(shards.folder), "train",
        rank=0, world=world, workers=0, pin_memory=False,
    )  # fmt: skip


def equal(one: EpisodeBatch, two: EpisodeBatch) -> bool:
    return all(torch.equal(getattr(one, name), getattr(two, name)) for name in ("rows", "source"))


def test_random_access_goes_on_at_the_very_batch(shards: Shards) -> None:
    whole = list(islice(source(Indexed, shards).batches(0), 9))
    stopped = source(Indexed, shards)
    taken = stopped.batches(0)
    for _ in range(4):
        next(taken)
    other = source(Indexed, shards)
    other.resume(stopped.state())
    again = islice(other.batches(4), 5)
    assert all(equal(one, two) for one, two in zip(whole[4:], again, strict=True))


@pytest.mark.parametrize(
    ("done", "epoch"), [(0, 0), (2, 0), (3, 1), (4, 1), (5, 2), (6, 2), (25, 10)]
)
def test_a_stream_goes_on_at_the_epoch_that_was_begun(
    shards: Shards, done: int, epoch: int
) -> None:
    """Of 5 videos, 2 a step: after 2 steps epoch 0 lacks a video, after 3 epoch 1 is begun."""
    setting = params_of(shards).settings["tiny"]
    expected = EpisodeStream(
        shards.index, shards.folder, "train",
        setting.k, setting.networks.image_size, setting.seed, epoch=epoch,
    )  # fmt: skip
    first = islice(stream_loader(expected, BATCH), 3)
    found = islice(source(Streamed, shards).batches(done), 3)
    assert all(equal(one, two) for one, two in zip(first, found, strict=True))


def test_a_stream_s_batch_has_equal_parts(shards: Shards) -> None:
    with pytest.raises(UserError, match="batch 5 has no equal parts for 2 workers"):
        source(Streamed, shards, world=2, batch=5)
    assert len(next(source(Streamed, shards, world=2, batch=4).batches(0)).rows) == 2
