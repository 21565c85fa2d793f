"""What a learner leaves on disk: a run that goes on, and the model of averages."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from parameters import same, snapshot

from training import tensor_file, trained
from training.meta import EpisodeBatch, MetaLearner
from training.networks import NetworkConfig

MakeLearner = Callable[..., MetaLearner]
MakeBatch = Callable[..., EpisodeBatch]


def test_a_killed_run_goes_on_bit_for_bit(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    learner = make_learner()
    for step in range(3):
        learner.step(make_batch([step % 7, 5], seed=step))
    file = io.BytesIO()
    torch.save(learner.state_dict(), file)
    batches = [make_batch([step % 7, (3 * step) % 5], seed=step) for step in range(3, 23)]
    on = [learner.step(batch) for batch in batches]
    random = torch.rand(3)

    file.seek(0)
    other = make_learner(seed=99)
    other.step(make_batch(seed=50))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.step_count == 3
    assert [other.step(batch) for batch in batches] == on
    assert torch.equal(torch.rand(3), random)

    mine, theirs = learner.state_dict(), other.state_dict()
    for part in ("embedder", "generator", "discriminator", "table", "ema_generator"):
        assert same(list(mine[part].values()), list(theirs[part].values())), part
    moments = mine["generator_optimizer"]["state"]
    for index, moment in theirs["generator_optimizer"]["state"].items():
        assert same(list(moment.values()), list(moments[index].values()))


def test_a_learner_without_averages_is_saved_once(make_learner: MakeLearner) -> None:
    learner = make_learner(ema=None)
    tensors, skeleton = tensor_file.flatten(learner.state_dict())
    assert len({tensor.data_ptr() for tensor in tensors.values() if tensor.numel()}) == len(
        [tensor for tensor in tensors.values() if tensor.numel()]
    )
    other = make_learner(ema=None, seed=5)
    other.load_state_dict(tensor_file.unflatten(tensors, skeleton))
    assert same(list(other.generator.parameters()), list(learner.generator.parameters()))


def test_a_checkpoint_of_other_networks_is_refused(
    make_learner: MakeLearner, tiny: NetworkConfig
) -> None:
    state = make_learner().state_dict()
    other = make_learner(networks=NetworkConfig(64, 4, 16))
    with pytest.raises(ValueError, match="'image_size': 32"):
        other.load_state_dict(state)


def test_the_model_is_the_averages(
    make_learner: MakeLearner, make_batch: MakeBatch, tmp_path: Path
) -> None:
    learner = make_learner(lr_generator=1e-2)
    for seed in range(3):
        learner.step(make_batch(seed=seed))
    path = tmp_path / "model.safetensors"
    trained.save_model(str(path), learner, {})
    model = trained.load_model(path)
    assert same(snapshot(model.generator), snapshot(learner.ema_generator))
    assert same(snapshot(model.embedder), snapshot(learner.ema_embedder))
    assert not same(snapshot(model.generator), snapshot(learner.generator))
