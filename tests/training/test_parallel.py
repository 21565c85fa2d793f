from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tiny_setting import NETWORKS

from training.losses import ContentLoss
from training.meta import EpisodeBatch, MetaLearner, Reducer
from training.networks import NetworkConfig
from training.parallel import DistributedReducer
from training.perceptual import Pixels

TINY = NetworkConfig(**NETWORKS)


class Recorder(Reducer):
    """Keeps the gradients that another reducer has agreed on."""

    def __init__(self, inner: Reducer) -> None:
        self.inner, self.seen = inner, []

    def mean_(self, tensors: list[torch.Tensor]) -> None:
        self.inner.mean_(tensors)
        self.seen.append([t.clone() for t in tensors])

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        return self.inner.gather(tensor)

    @property
    def workers(self) -> int:
        return self.inner.workers


def batch() -> EpisodeBatch:
    generator = torch.Generator().manual_seed(7)

    def pictures(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, 3, 32, 32, generator=generator) * 2 - 1

    rows = torch.tensor([0, 2, 2, 1])  # video 2 is with both workers
    return EpisodeBatch(pictures(4, 2), pictures(4, 2), pictures(4), pictures(4), rows)


def train(reducer: Reducer, part: EpisodeBatch) -> dict[str, object]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    recorder = Recorder(reducer)
    learner = MetaLearner(3, ContentLoss((Pixels(), 1.0)), networks=TINY, reducer=recorder)
    learner.step(part)
    return {
        "grads": recorder.seen,
        "table": learner.table.weight_vn,
        "steps": learner.table.steps_v,
    }


def work(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(train(DistributedReducer(), batch().split(2)[rank]), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available() or sys.platform != "linux", reason="needs gloo")
def test_two_workers_have_the_gradients_of_one(tmp_path: Path) -> None:
    mp.spawn(work, (str(tmp_path),), nprocs=2)
    alone = train(Reducer(), batch())
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for mine, theirs in zip(first["grads"], second["grads"], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    # E,G's gradients and D's first: what follows is a step further from the rounding.
    for ours, whole in zip(first["grads"][:2], alone["grads"][:2], strict=True):
        ours_flat = torch.cat([g.flatten() for g in ours])
        whole_flat = torch.cat([g.flatten() for g in whole])
        assert (ours_flat - whole_flat).norm() <= 1e-5 * whole_flat.norm()
    assert torch.equal(first["table"], second["table"])
    assert first["steps"].tolist() == alone["steps"].tolist() == [2, 2, 2]
    torch.testing.assert_close(first["table"], alone["table"], rtol=1e-4, atol=1e-5)
