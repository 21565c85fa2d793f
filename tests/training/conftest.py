"""Tiny networks and random episodes: the algorithm is the same at 32 pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("torch") is None:  # the `train` extra is not installed
    collect_ignore_glob = ["*"]
else:
    import torch
    from tiny_model import SETTING, write_model
    from tiny_setting import NETWORKS
    from tiny_shards import make_shards, shards

    from training.faces import Finder
    from training.losses import ContentLoss
    from training.meta import EpisodeBatch, MetaConfig, MetaLearner
    from training.networks import NetworkConfig
    from training.perceptual import Pixels

    __all__ = ["make_shards", "shards"]

VIDEOS = 7


@pytest.fixture(autouse=True)
def steady() -> Iterator[None]:
    """One thread, one seed, and the old setting afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny() -> NetworkConfig:
    return NetworkConfig(**NETWORKS)


def pictures(*shape: int, seed: int = 0, size: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, 3, size, size, generator=generator) * 2 - 1


@pytest.fixture
def make_batch() -> Callable[..., EpisodeBatch]:
    def make(
        rows: list[int] | None = None, frames: int = 3, seed: int = 0, size: int = 32
    ) -> EpisodeBatch:
        rows = [1, 4] if rows is None else rows
        b = len(rows)
        return EpisodeBatch(
            pictures(b, frames, seed=4 * seed, size=size),
            pictures(b, frames, seed=4 * seed + 1, size=size),
            pictures(b, seed=4 * seed + 2, size=size),
            pictures(b, seed=4 * seed + 3, size=size),
            torch.tensor(rows),
        )

    return make


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    return write_model(tmp_path / "tiny.safetensors", SETTING)


@pytest.fixture(scope="module")
def finder() -> Finder:
    """For tests that skip themselves where MediaPipe is not installed."""
    return Finder()


@pytest.fixture
def make_learner(tiny: NetworkConfig) -> Callable[..., MetaLearner]:
    def make(seed: int = 0, networks: NetworkConfig = tiny, **settings: object) -> MetaLearner:
        torch.manual_seed(seed)
        return MetaLearner(VIDEOS, ContentLoss((Pixels(), 1.0)), MetaConfig(**settings), networks)

    return make
