"""One step of meta-learning: who learns from what, the paper's losses, averages."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from parameters import same, snapshot

from training.layers import update_spectral_norm
from training.losses import ContentLoss, discriminator_loss, frozen
from training.meta import EpisodeBatch, MetaConfig, MetaLearner
from training.networks import Discriminator, NetworkConfig
from training.perceptual import Pixels
from training.table import VideoTable

MakeLearner = Callable[..., MetaLearner]
MakeBatch = Callable[..., EpisodeBatch]


def test_hinge_is_about_two_at_the_start(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    logs = make_learner().step(make_batch())
    assert logs["discriminator"] == pytest.approx(2, abs=0.2)


def test_hinge_is_about_two_at_the_start_at_the_papers_width(make_batch: MakeBatch) -> None:
    batch = make_batch(size=64)
    discriminator = Discriminator(NetworkConfig(64))
    w = VideoTable(7, 512, lr=2e-4, betas=(0, 0.999), eps=1e-5)
    loss, *_ = discriminator_loss(
        discriminator, -batch.target, batch.target, batch.target_landmarks, w(batch.rows)
    )
    assert float(loss.detach()) == pytest.approx(2, abs=0.2)


def test_an_e_g_step_leaves_d_and_w_untouched(
    make_learner: MakeLearner, make_batch: MakeBatch
) -> None:
    learner = make_learner()
    d_w = snapshot(learner.discriminator, learner.table)
    e_g = snapshot(learner.embedder, learner.generator)
    learner.update_generator([make_batch()])
    assert same(d_w, snapshot(learner.discriminator, learner.table))
    assert all(p.grad is None for p in learner.discriminator.parameters())
    assert not same(e_g, snapshot(learner.embedder, learner.generator))


def test_a_d_step_leaves_e_and_g_untouched(
    make_learner: MakeLearner, make_batch: MakeBatch
) -> None:
    learner = make_learner()
    batch = make_batch()
    fakes, _ = learner.update_generator([batch])
    d = snapshot(learner.discriminator)
    e_g = snapshot(learner.embedder, learner.generator, learner.ema_embedder, learner.ema_generator)
    learner.update_discriminator([batch], fakes)
    after = (learner.embedder, learner.generator, learner.ema_embedder, learner.ema_generator)
    assert same(e_g, snapshot(*after))
    assert all(p.grad is None for m in after for p in m.parameters())
    assert not same(d, snapshot(learner.discriminator))


def test_every_parameter_learns(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    learner = make_learner()
    before = {
        (i, name): p.clone()
        for i, m in enumerate((learner.embedder, learner.generator, learner.discriminator))
        for name, p in m.named_parameters()
    }
    for seed in range(3):
        learner.step(make_batch(seed=seed))
    modules = (learner.embedder, learner.generator, learner.discriminator)
    for (i, name), old in before.items():
        new = dict(modules[i].named_parameters())[name]
        if name != "b":  # moved only once a score is beyond the hinge
            assert not torch.equal(old, new), name


def test_only_the_batchs_rows_of_w_ever_change(
    make_learner: MakeLearner, make_batch: MakeBatch
) -> None:
    learner = make_learner()
    before = learner.table.weight_vn.clone()
    for seed in range(3):
        learner.step(make_batch([1, 4], seed=seed))
    changed = (learner.table.weight_vn != before).any(1)
    assert changed.nonzero().flatten().tolist() == [1, 4]
    assert learner.table.steps_v.tolist() == [0, 6, 0, 0, 6, 0, 0]


def test_a_step_is_the_papers_written_out_by_hand(
    make_learner: MakeLearner, make_batch: MakeBatch
) -> None:
    learner = make_learner(feature_weight=3.0, match_weight=7.0)
    twin, batch = copy.deepcopy(learner), make_batch()  # no two pictures of it are equal
    reduced: list[list[torch.Tensor]] = []
    mean_ = learner.reducer.mean_

    def spy(tensors: list[torch.Tensor]) -> None:
        reduced.append([tensor.clone() for tensor in tensors])
        mean_(tensors)

    learner.reducer.mean_ = spy  # type: ignore[method-assign, assignment]
    logs = learner.step(batch)

    e, g, d = twin.embedder, twin.generator, twin.discriminator
    rows = twin.table(batch.rows).detach()
    update_spectral_norm(e, g)  # once a step
    shots = zip(batch.source.unbind(1), batch.source_landmarks.unbind(1), strict=True)
    e_hat = torch.stack([e(x, y) for x, y in shots]).mean(0)
    fake = g(batch.target_landmarks, e_hat)
    score, features = d(fake, batch.target_landmarks, rows)
    _, wanted = d(batch.target, batch.target_landmarks, rows)
    matching = [(f - w.detach()).abs().mean() for f, w in zip(features, wanted, strict=True)]
    content, adversarial = (fake - batch.target).abs().mean(), -score.mean()
    apart = (e_hat - rows).abs().mean()
    loss = content + 3 * sum(matching) / len(matching) + adversarial + 7 * apart
    assert logs["generator"] == pytest.approx(float(loss.detach()), rel=1e-5)
    (at_fake,) = torch.autograd.grad(adversarial, fake, retain_graph=True)
    assert at_fake.abs().max() > 0
    by_hand = torch.autograd.grad(loss, [*e.parameters(), *g.parameters()])
    torch.testing.assert_close(reduced[0], [*by_hand], rtol=1e-4, atol=1e-6)

    fake, optimizer = fake.detach(), twin.discriminator_optimizer
    for gradients in reduced[1:]:  # twice, each after a power iteration of its own
        update_spectral_norm(d)
        own = rows.clone().requires_grad_()
        real_score, _ = d(batch.target, batch.target_landmarks, own)
        fake_score, _ = d(fake, batch.target_landmarks, own)
        hinge = (1 - real_score).relu().mean() + (1 + fake_score).relu().mean()
        optimizer.zero_grad()
        hinge.backward()
        found = [p.grad for p in d.parameters() if p.grad is not None]
        torch.testing.assert_close(gradients, found, rtol=1e-4, atol=1e-6)
        assert own.grad is not None
        optimizer.step()
        twin.table.update(batch.rows, own.grad)
        rows = twin.table(batch.rows).detach()
    assert len(reduced) == 3
    assert logs["discriminator"] == pytest.approx(float(hinge.detach()), rel=1e-4)
    assert logs["real_score"] == pytest.approx(float(real_score.detach().mean()), rel=1e-4)


def test_match_loss_draws_e_alone_and_ff_has_none(
    make_learner: MakeLearner, make_batch: MakeBatch
) -> None:
    learner, batch = make_learner(), make_batch()
    with frozen(learner.discriminator):
        _, terms = learner.forward_generator(batch)
    terms["match"].backward()
    assert any(p.grad is not None for p in learner.embedder.parameters())
    assert all(p.grad is None for p in learner.generator.parameters())
    assert "match" not in make_learner(variant="ff").step(batch)


def test_d_takes_two_updates_and_e_g_one(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    learner = make_learner()
    learner.step(make_batch())
    for optimizer, steps in (
        (learner.generator_optimizer, 1),
        (learner.discriminator_optimizer, 2),
    ):
        assert {int(s["step"]) for s in optimizer.state.values()} == {steps}
        group = optimizer.param_groups[0]
        assert group["betas"] == (0.0, 0.999)
        assert group["eps"] == 1e-5
    assert learner.generator_optimizer.param_groups[0]["lr"] == 5e-5
    assert learner.discriminator_optimizer.param_groups[0]["lr"] == 2e-4


def test_averages_follow_e_and_g(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    learner = make_learner(ema=0.15, lr_generator=1e-2)  # so large that a wrong decay shows
    expected = [p.detach().clone() for p in learner.generator.parameters()]
    averages = list(learner.ema_generator.parameters())
    for seed, decay in enumerate((0.1, 0.15, 0.15)):  # 2/11 is more already
        learner.step(make_batch(seed=seed))
        for old, new, average in zip(
            expected, learner.generator.parameters(), averages, strict=True
        ):
            old.lerp_(new.detach(), 1 - decay)
            torch.testing.assert_close(average, old, rtol=1e-5, atol=1e-7)
    assert not any(average.requires_grad for average in averages)
    assert same(
        list(learner.ema_embedder.buffers()),
        list(learner.embedder.buffers()),
    )
    without = make_learner(ema=None)
    assert without.ema_generator is without.generator
    assert MetaConfig().ema == 0.999


def test_accumulated_gradients_are_the_batchs(
    make_learner: MakeLearner, make_batch: MakeBatch
) -> None:
    batch = make_batch([0, 1, 2, 1])
    grads: list[list[torch.Tensor]] = []
    for parts in (1, 2, 4):
        learner = make_learner()
        learner.reducer.mean_ = lambda tensors: grads.append([t.clone() for t in tensors])  # type: ignore[method-assign]
        learner.update_generator(batch.split(parts))
    for others in grads[1:]:
        for whole, pieces in zip(grads[0], others, strict=True):
            # By the norm: a processor's kernels may leave other last digits in single elements.
            assert (pieces - whole).norm() <= 1e-4 * whole.norm() + 1e-6
    with pytest.raises(ValueError, match="3 equal parts"):
        batch.split(3)
    make_learner(accumulate=2).step(batch)


def test_fused_adam_is_adam(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    """One step from zero moments: lr * g / (|g| + eps), channels last or not."""
    learner = make_learner()
    before = [p.detach().clone() for p in learner.discriminator.parameters()]
    grads: list[torch.Tensor] = []
    learner.reducer.mean_ = lambda tensors: grads.extend(t.clone() for t in tensors)  # type: ignore[method-assign]
    batch = make_batch()
    learner.update_discriminator([batch], [batch.target.flip(3)])
    for old, g, new in zip(before, grads, learner.discriminator.parameters(), strict=True):
        torch.testing.assert_close(new, old - 2e-4 * g / (g.abs() + 1e-5))


def test_uint8_pictures_become_floats_in_range() -> None:
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 1, 16, 16).expand(1, 2, 3, 16, 16)
    batch = EpisodeBatch(ramp, ramp, ramp[:, 0], ramp[:, 0], torch.tensor([0]))
    for channels_last in (False, True):
        moved = batch.to(torch.device("cpu"), channels_last=channels_last)
        assert moved.source.shape == ramp.shape
        assert moved.target.min() == -1
        assert moved.target.max() == 1
        torch.testing.assert_close(moved.source[:, 0], moved.target)
        assert moved.target.is_contiguous(memory_format=torch.channels_last) == channels_last


@pytest.mark.parametrize(
    "settings", [{"bf16": True}, {"channels_last": False}, {"bf16": True, "accumulate": 2}]
)
def test_other_ways_to_compute_the_same_step(
    make_learner: MakeLearner, make_batch: MakeBatch, settings: dict[str, Any]
) -> None:
    batch = make_batch()
    expected = make_learner().step(batch)
    assert make_learner(**settings).step(batch) == pytest.approx(expected, rel=0.05, abs=0.02)


def test_a_step_that_is_not_finite_stops_the_run(
    make_learner: MakeLearner, make_batch: MakeBatch
) -> None:
    batch = make_batch()
    batch.target[0, 0, 0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="at step 1"):
        make_learner().step(batch)


@pytest.mark.parametrize(
    "settings", [{"variant": "fast"}, {"d_steps": 0}, {"accumulate": 0}, {"ema": 1.0}]
)
def test_impossible_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        MetaConfig(**settings)


def test_it_learns() -> None:
    """Two people of one colour each: G must render the one whose frames E has seen."""
    networks = NetworkConfig(32, 8, 32, attention=False, generator_levels=3, residual_blocks=1)
    learner = MetaLearner(
        2, ContentLoss((Pixels(), 100.0)), MetaConfig(lr_generator=1e-3, ema=None), networks
    )
    colours = torch.tensor([[0.8, -0.6, 0.2], [-0.7, 0.5, -0.1]])
    target = colours[:, :, None, None].expand(2, 3, 32, 32).contiguous()
    marks = (torch.rand(1, 3, 32, 32) * 2 - 1).repeat(2, 1, 1, 1)  # they say nothing of who
    batch = EpisodeBatch(target[:, None], marks[:, None], target, marks, torch.arange(2))
    losses = [learner.step(batch)["content"] for _ in range(50)]
    assert losses[-1] < losses[0] / 3
    with torch.no_grad():
        e_hat = learner.embedder.embed(batch.source, batch.source_landmarks)
        swapped = learner.generator(marks, e_hat.flip(0)).mean((2, 3))
    assert (swapped - colours.flip(0)).abs().mean() < (swapped - colours).abs().mean() / 2


@pytest.mark.slow
@pytest.mark.timeout(1200)  # of which the compiler takes minutes
def test_compiled_steps_are_those_of_eager_ones(
    make_learner: MakeLearner, make_batch: MakeBatch
) -> None:
    """As both real settings train."""
    eager, compiled = (make_learner(compile=flag, seed=1) for flag in (False, True))
    for seed in range(3):
        expected, found = (one.step(make_batch(seed=seed)) for one in (eager, compiled))
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)
