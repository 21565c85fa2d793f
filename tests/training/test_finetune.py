from __future__ import annotations

import io
from collections.abc import Callable

import pytest
import torch

from training import finetune
from training.finetune import AdaptConfig, FineTuner, Patience, Person, budget
from training.losses import ContentLoss
from training.meta import MetaLearner
from training.networks import NetworkConfig
from training.perceptual import Pixels

CONTENT = ContentLoss((Pixels(), 1.0))


@pytest.fixture
def learner(make_learner: Callable[..., MetaLearner]) -> MetaLearner:
    return make_learner()


@pytest.fixture
def frames() -> torch.Tensor:
    return torch.rand(3, 3, 32, 32) * 2 - 1


@pytest.fixture
def marks() -> torch.Tensor:
    return torch.rand(3, 3, 32, 32) * 2 - 1


def tuner(
    learner: MetaLearner, frames: torch.Tensor, marks: torch.Tensor, **settings: object
) -> FineTuner:
    e_hat = finetune.embed(learner.embedder, frames, marks)
    return FineTuner(
        learner.generator,
        learner.discriminator,
        CONTENT,
        e_hat,
        frames,
        marks,
        AdaptConfig(**settings),
    )


def test_fine_tuning_starts_at_feed_forward_bit_for_bit(
    learner: MetaLearner, frames: torch.Tensor, marks: torch.Tensor
) -> None:
    ff = finetune.feed_forward(learner.generator, finetune.embed(learner.embedder, frames, marks))
    ft = tuner(learner, frames, marks).person()
    assert torch.equal(ff.psi, ft.psi)
    assert torch.equal(ff.render(marks), ft.render(marks))
    with torch.no_grad():  # and both are what the meta-learner's own G says
        e_hat = finetune.embed(learner.embedder, frames, marks)
        expected = learner.generator.eval()(marks[:1], e_hat)
    assert torch.equal(ff.render(marks[:1]), expected)


def test_w_prime_is_w0_plus_e_hat_and_d_prime_is_d(
    learner: MetaLearner, frames: torch.Tensor, marks: torch.Tensor
) -> None:
    e_hat = finetune.embed(learner.embedder, frames, marks)
    start = tuner(learner, frames, marks)
    assert torch.equal(start.discriminator.w0.detach(), learner.discriminator.w0 + e_hat[0])
    with torch.no_grad():
        mine, _ = start.discriminator(frames, marks, start.no_row)
        theirs, _ = learner.discriminator(frames, marks, e_hat)
    torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)


def test_fine_tuning_moves_psi_w_g_and_d_but_neither_p_nor_the_originals(
    learner: MetaLearner, frames: torch.Tensor, marks: torch.Tensor
) -> None:
    originals = [learner.embedder, learner.generator, learner.discriminator]
    before = [v.clone() for m in originals for v in m.state_dict().values()]
    ft = tuner(learner, frames, marks)
    psi, w = ft.psi.detach().clone(), ft.discriminator.w0.detach().clone()
    for _ in range(2):  # the first gives attention its gain, the second what is behind it
        ft.step()
    assert not torch.equal(ft.psi, psi)
    assert not torch.equal(ft.discriminator.w0, w)
    for mine, theirs in (
        (ft.generator, learner.generator),
        (ft.discriminator, learner.discriminator),
    ):
        for (name, new), old in zip(mine.named_parameters(), theirs.parameters(), strict=True):
            if name != "b":  # moved only once a score is beyond the hinge
                assert torch.equal(new, old) == name.startswith("projection."), name
    assert all(
        torch.equal(new, old)
        for new, old in zip(
            [v for m in originals for v in m.state_dict().values()], before, strict=True
        )
    )
    assert all(p.grad is None for m in originals for p in m.parameters())


def test_fine_tuning_learns_the_frames(learner: MetaLearner, marks: torch.Tensor) -> None:
    frames = torch.full((3, 3, 32, 32), 0.5)
    ft = tuner(learner, frames, marks, iterations=30, lr_generator=2e-3, ema=None)
    losses = [logs["content"] for logs in ft.run()]
    assert len(losses) == 30
    assert losses[-1] < losses[0] / 2
    assert (ft.person().render(marks) - frames).abs().mean() < losses[0] / 2


def test_the_averages_follow_g_and_psi(
    learner: MetaLearner, frames: torch.Tensor, marks: torch.Tensor
) -> None:
    ft = tuner(learner, frames, marks, ema=0.8, lr_generator=1e-2)
    exact = {"rtol": 1e-6, "atol": 1e-7}
    before = [p.detach().clone() for p in (ft.psi, *ft.generator.parameters())]
    ft.step()
    after = [p.detach() for p in (ft.psi, *ft.generator.parameters())]
    expected = [0.8 * old + 0.2 * new for old, new in zip(before, after, strict=True)]
    assert not torch.equal(before[1], after[1])
    person = ft.person()
    torch.testing.assert_close([person.psi, *person.generator.parameters()], expected, **exact)
    assert AdaptConfig().ema == 0.972


def test_each_frame_goes_with_its_own_landmarks_and_all_take_turns(
    learner: MetaLearner,
    frames: torch.Tensor,
    marks: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ft = tuner(learner, frames, marks, batch_size=2, lr_generator=1e-4, lr_discriminator=3e-4)
    pairs: list[tuple[int, int]] = []

    def place(one: torch.Tensor, among: torch.Tensor) -> int:
        return next(at for at, other in enumerate(among) if torch.equal(one, other))

    original = finetune.generator_losses

    def spy(d: object, content: object, fake: object, *rest: torch.Tensor) -> object:
        for real, landmarks in zip(rest[0], rest[1], strict=True):
            pairs.append((place(real, frames), place(landmarks, marks)))
        return original(d, content, fake, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(finetune, "generator_losses", spy)
    for _ in range(6):
        ft.step()
    assert all(frame == landmarks for frame, landmarks in pairs)
    assert {frame for frame, _ in pairs} == {0, 1, 2}
    assert ft.generator_optimizer.param_groups[0]["lr"] == 1e-4
    assert ft.discriminator_optimizer.param_groups[0]["lr"] == 3e-4


def test_the_budget_of_the_paper() -> None:
    assert budget(1) == 125
    assert budget(8) == 188
    assert budget(32) == 230


def test_a_run_repeats_bit_for_bit(
    learner: MetaLearner, frames: torch.Tensor, marks: torch.Tensor
) -> None:
    config = AdaptConfig(iterations=3, batch_size=2)
    networks = (learner.embedder, learner.generator, learner.discriminator, CONTENT)
    first = finetune.adapt(*networks, frames, marks, config)
    torch.rand(5)  # it has its own generator
    second = finetune.adapt(*networks, frames, marks, config)
    assert torch.equal(first.render(marks), second.render(marks))


@pytest.mark.parametrize("variant", ["ff", "ft"])
def test_a_person_comes_back_from_a_small_state(
    learner: MetaLearner, frames: torch.Tensor, marks: torch.Tensor, variant: str
) -> None:
    person = finetune.adapt(
        learner.embedder,
        learner.generator,
        learner.discriminator,
        CONTENT,
        frames,
        marks,
        AdaptConfig(variant=variant, iterations=2),
    )
    assert (person.generator is learner.generator) == (variant == "ff")
    state = person.state_dict()
    assert bool(state["generator"]) == (variant == "ft")
    assert not any(k.startswith("projection") for k in state["generator"])
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    back = Person.from_state_dict(torch.load(file, weights_only=True), learner.generator)
    assert torch.equal(back.render(marks), person.render(marks))


def test_a_person_of_another_generator_is_refused(
    learner: MetaLearner,
    make_learner: Callable[..., MetaLearner],
    frames: torch.Tensor,
    marks: torch.Tensor,
) -> None:
    state = tuner(learner, frames, marks).person().state_dict()
    other = make_learner(networks=NetworkConfig(64, 4, 16, residual_blocks=2))
    with pytest.raises(ValueError, match="another shape"):
        Person.from_state_dict(state, other.generator)


def test_a_ready_person_renders_batch_after_batch(
    learner: MetaLearner, frames: torch.Tensor, marks: torch.Tensor
) -> None:
    person = finetune.feed_forward(
        learner.generator, finetune.embed(learner.embedder, frames, marks)
    )
    with person.ready() as render:
        batches = torch.cat([render(marks[:2]), render(marks[2:])])
    torch.testing.assert_close(batches, person.render(marks))
    assert learner.generator.training


def test_embedding_in_chunks_is_the_mean(
    learner: MetaLearner, frames: torch.Tensor, marks: torch.Tensor
) -> None:
    whole = finetune.embed(learner.embedder, frames, marks)
    torch.testing.assert_close(finetune.embed(learner.embedder, frames, marks, chunk=2), whole)
    assert not whole.requires_grad
    assert learner.embedder.training


def test_patience_ends_a_run_that_gets_no_better(
    learner: MetaLearner,
    frames: torch.Tensor,
    marks: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FineTuner, "step", lambda self: {"content": 1.0})
    assert len(list(tuner(learner, frames, marks, iterations=50, patience=4).run())) == 5
    assert len(list(tuner(learner, frames, marks, iterations=50).run())) == 50


def test_patience_outlasts_noise_but_not_a_plateau() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(2000, generator=generator).tolist()
    patience = Patience(20)
    falling = [100 * 0.97**i * (0.8 + 0.4 * noise[i]) for i in range(150)]
    assert not any(patience.ended(loss) for loss in falling)
    flat = [patience.ended(falling[-1] * (0.8 + 0.4 * value)) for value in noise[150:]]
    assert 15 < flat.index(True) < 200
    never = Patience(None)
    assert not any(never.ended(1.0) for _ in range(1000))


@pytest.mark.parametrize(
    "settings",
    [{"patience": 0}, {"variant": "none"}, {"batch_size": 0}, {"iterations": -1}, {"d_steps": 0}],
)
def test_impossible_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        AdaptConfig(**settings)
