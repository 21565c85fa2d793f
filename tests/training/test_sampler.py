"""The order of videos: each once an epoch, the same for all ranks, resumable anywhere."""

from __future__ import annotations

import json
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.sampler import EpisodeSampler, shuffled

Place = tuple[int, int]


def take(sampler: EpisodeSampler, batches: int) -> list[list[Place]]:
    """As a training loop uses them."""
    taken: list[list[Place]] = []
    while len(taken) < batches:
        for batch in islice(sampler, batches - len(taken)):
            sampler.advance()
            taken.append(batch)
    return taken


sizes = {"videos": st.integers(1, 40), "share": st.integers(1, 9), "seed": st.integers(0, 2**40)}


@given(**sizes)
def test_an_epoch_is_each_video_once_and_all_batches_are_full(
    videos: int, share: int, seed: int
) -> None:
    batches = take(EpisodeSampler(videos, share, seed), 3 * videos)
    assert {len(batch) for batch in batches} == {share}
    places = [place for batch in batches for place in batch]
    assert [epoch for epoch, _ in places] == sorted(epoch for epoch, _ in places)
    for epoch in range(3):
        assert sorted(v for e, v in places if e == epoch) == list(range(videos))


@given(**sizes, world=st.integers(1, 5))
def test_ranks_share_one_global_order(videos: int, share: int, seed: int, world: int) -> None:
    alone = take(EpisodeSampler(videos, share * world, seed), 12)
    ranks = [take(EpisodeSampler(videos, share * world, seed, r, world), 12) for r in range(world)]
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert [place for part in parts for place in part] == whole


@given(**sizes, used=st.integers(0, 30))
def test_a_state_resumes_on_the_same_next_batch(
    videos: int, share: int, seed: int, used: int
) -> None:
    first = EpisodeSampler(videos, share, seed)
    take(first, used)
    state = json.loads(json.dumps(first.state_dict()))
    assert state.keys() == {"seed", "epoch", "cursor"}
    second = EpisodeSampler(videos, share, seed)
    second.load_state_dict(state)
    assert len(second) == len(list(second)) == len(first)
    assert take(second, 10) == take(first, 10)


@given(**sizes, used=st.integers(0, 10), share2=st.integers(1, 9))
def test_a_resumed_run_may_have_another_batch(
    videos: int, share: int, seed: int, used: int, share2: int
) -> None:
    one, two = EpisodeSampler(videos, share, seed), EpisodeSampler(videos, share2, seed)
    places = [place for batch in take(one, used) for place in batch]
    two.load_state_dict(one.state_dict())
    places += [place for batch in take(two, 10) for place in batch]
    whole = take(EpisodeSampler(videos, 1, seed), len(places))
    assert places == [place for batch in whole for place in batch]


def test_looking_ahead_moves_nothing() -> None:
    sampler = EpisodeSampler(10, 3)
    assert list(sampler) == list(sampler)
    assert sampler.state_dict() == {"seed": 0, "epoch": 0, "cursor": 0}
    assert len(sampler) == 4


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    orders = [tuple(shuffled(20, 0, seed, epoch)) for seed in range(5) for epoch in range(5)]
    assert len(set(orders)) == 25


def test_the_order_is_this_one_for_all_time() -> None:
    assert shuffled(8, 0, 0, 0).tolist() == [3, 2, 1, 6, 0, 7, 4, 5]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, 1), "videos .0."),
        ((5, 0), "batch .0."),
        ((5, 2, -1), "seed .-1."),
        ((5, 2, 0, 2, 2), "rank is 2; of 2 ranks it must be 0 to 1"),
        ((5, 3, 0, 0, 2), "batch of 3 has no equal parts for 2 ranks"),
    ],
)
def test_what_cannot_be_is_refused(arguments: tuple[int, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EpisodeSampler(*arguments)


def test_a_state_of_another_order_is_refused() -> None:
    sampler = EpisodeSampler(5, 2)
    with pytest.raises(ValueError, match="seed is 1, not 0"):
        sampler.load_state_dict({"seed": 1, "epoch": 0, "cursor": 0})
    with pytest.raises(ValueError, match="no place among 5 videos"):
        sampler.load_state_dict({"seed": 0, "epoch": 0, "cursor": 5})
