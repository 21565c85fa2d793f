"""Few-shot: make a trained G into one person's, from T of their frames; docs/model.md.

ff (feed-forward): psi' = P e-hat and nothing is tuned. ft (fine-tuned): from that very start,
psi', G and a discriminator with w' = w0 + e-hat are trained on the T frames; E has no part in it.

Shapes: T frames of the person, F frames to be rendered, pictures 3 x S x S in [-1, 1].
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf, isfinite, log2
from typing import Any, Literal

import torch
from torch import Tensor, nn

from training.ema import average_of, follow
from training.layers import shared_weights, update_spectral_norm
from training.losses import discriminator_loss, frozen, generator_losses
from training.networks import Discriminator, Embedder, Generator


@dataclass(frozen=True, slots=True)
class AdaptConfig:
    """How to adapt; the defaults are those of docs/model.md."""

    variant: Literal["ft", "ff"] = "ft"
    iterations: int | None = None
    """Of fine-tuning; None: as many as `budget` says."""
    patience: int | None = None
    """Stop after so many iterations without a better content loss (`Patience`); None: never."""
    batch_size: int = 8
    """Frames an iteration, drawn from the T; fewer where T is less."""
    lr_generator: float = 5e-5
    lr_discriminator: float = 2e-4
    betas: tuple[float, float] = (0.0, 0.999)
    eps: float = 1e-5
    d_steps: int = 2
    feature_weight: float = 10.0
    ema: float | None = 0.972
    """Decay of the average of G and psi', which is the result; None: the last values are."""
    seed: int = 0
    """Of the order of frames."""
    bf16: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        if self.variant not in ("ft", "ff"):
            raise ValueError(f"variant is {self.variant!r}; it must be ft or ff")
        if (self.iterations or 0) < 0:
            raise ValueError(f"iterations is {self.iterations}; it must be 0 or more")
        if self.batch_size < 1 or self.d_steps < 1:
            raise ValueError("batch_size and d_steps must be 1 or more")
        if self.patience is not None and self.patience < 1:
            raise ValueError("patience must be 1 or more, or none at all")


def budget(frames: int) -> int:
    """Iterations of fine-tuning: 125 for one frame, 21 more for each doubling, so 230 for 32."""
    return round(125 + 21 * log2(frames))


class Patience:
    """Tells when a noisy loss has stopped to fall.

    Frames are drawn at random, so it is the mean over about `SPAN` iterations that must get
    better, by `GAIN` of itself at least: a last digit that goes on falling is no progress.
    """

    SPAN = 10
    GAIN = 1e-3

    def __init__(self, iterations: int | None) -> None:
        self.iterations = iterations
        self._seen = self._since = 0
        self._total, self._best = 0.0, inf

    def ended(self, loss: float) -> bool:
        """Take the next loss; True once `iterations` of them brought nothing better."""
        keep = 1 - 1 / self.SPAN
        self._seen += 1
        self._total = keep * self._total + (1 - keep) * loss
        smooth = self._total / (1 - keep**self._seen)  # from the first one on a true mean
        self._since += 1
        if smooth < self._best * (1 - self.GAIN):
            self._best, self._since = smooth, 0
        return self.iterations is not None and self._since >= self.iterations


class Person:
    """A generator and one person's psi': everything `animate` needs of them."""

    def __init__(self, generator: Generator, psi: Tensor, *, tuned: bool) -> None:
        self.generator, self.psi, self.tuned = generator, psi, tuned

    @contextmanager
    def ready(self) -> Iterator[Callable[[Tensor], Tensor]]:
        """Yields `render` for many batches: the weights are normalised once for all of them."""
        training = self.generator.training
        self.generator.eval()
        try:
            with torch.no_grad(), shared_weights(self.generator):
                yield lambda landmarks: self.generator.render(landmarks, self.psi)
        finally:
            self.generator.train(training)

    def render(self, landmarks: Tensor) -> Tensor:
        """Landmark pictures (F, 3, S, S) to pictures (F, 3, S, S) in [-1, 1]."""
        with self.ready() as render:
            return render(landmarks)

    def state_dict(self) -> dict[str, Any]:
        """Just what was adapted: psi', and G without its projection where it was tuned."""
        tuned = without_projection(self.generator) if self.tuned else {}
        return {"psi": self.psi.detach(), "tuned": self.tuned, "generator": tuned}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any], generator: Generator) -> Person:
        """On the trained G that it was adapted from; a tuned G is a copy."""
        if state["tuned"]:
            generator = copy.deepcopy(generator)
            expected = without_projection(generator).keys()
            if expected != state["generator"].keys():
                raise ValueError("this person was adapted from a generator of another shape")
            generator.load_state_dict(state["generator"], strict=False)
        return cls(
            generator, state["psi"].to(generator.projection.weight.device), tuned=state["tuned"]
        )


def without_projection(generator: Generator) -> dict[str, Tensor]:
    """G's state but for P, which psi' stands in for."""
    state = generator.state_dict()
    return {k: v for k, v in state.items() if not k.startswith("projection.")}


def embed(embedder: Embedder, frames: Tensor, landmarks: Tensor, *, chunk: int = 16) -> Tensor:
    """e-hat of T frames, (1, N): the mean over all of them, in eval mode, without a graph."""
    training = embedder.training
    embedder.eval()
    try:
        with torch.no_grad(), shared_weights(embedder):
            parts = zip(frames.split(chunk), landmarks.split(chunk), strict=True)
            return torch.cat([embedder(x, y) for x, y in parts]).mean(0, keepdim=True)
    finally:
        embedder.train(training)


def feed_forward(generator: Generator, e_hat: Tensor) -> Person:
    """The FF person: psi' = P e-hat on the shared, untouched G."""
    with torch.no_grad():
        return Person(generator, generator.projection(e_hat), tuned=False)


class FineTuner:
    """Fine-tuning of one person: copies of G and D, psi' and w', and the step that moves them."""

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        content_loss: nn.Module,
        e_hat: Tensor,
        frames: Tensor,
        landmarks: Tensor,
        config: AdaptConfig | None = None,
    ) -> None:
        self.config = config = config or AdaptConfig()
        self.content_loss = content_loss
        self.frames, self.landmarks = frames, landmarks
        self.generator = copy.deepcopy(generator).train().requires_grad_(True)
        self.discriminator = copy.deepcopy(discriminator).train().requires_grad_(True)
        # psi' and w' must be parameters before the optimizers are made, or nothing moves them.
        self.psi = nn.Parameter(feed_forward(self.generator, e_hat).psi)
        self.generator.projection.requires_grad_(False)
        with torch.no_grad():
            self.discriminator.w0 += e_hat[0]  # w0 is w' from here on, and no row of W is added
        self.no_row = torch.zeros_like(e_hat)

        adam: dict[str, Any] = {"betas": config.betas, "eps": config.eps, "fused": True}
        self.generator_optimizer = torch.optim.Adam(
            list(self._tuned()), lr=config.lr_generator, **adam
        )
        self.discriminator_optimizer = torch.optim.Adam(
            self.discriminator.parameters(), lr=config.lr_discriminator, **adam
        )
        self.average = average_of(self.generator, config.ema)
        self.average_psi = self.psi if config.ema is None else self.psi.detach().clone()
        self.order = torch.Generator().manual_seed(config.seed)

    @property
    def iterations(self) -> int:
        """The budget: the most that `run` does."""
        given = self.config.iterations
        return budget(len(self.frames)) if given is None else given

    def _tuned(self) -> Iterator[nn.Parameter]:
        yield self.psi
        yield from (p for p in self.generator.parameters() if p.requires_grad)

    def step(self) -> dict[str, float]:
        """One update of psi' and G, then `d_steps` of D and w', on frames drawn from the T."""
        config = self.config
        drawn = torch.randperm(len(self.frames), generator=self.order)[: config.batch_size]
        real = self.frames[drawn.to(self.frames.device)]
        landmarks = self.landmarks[drawn.to(self.frames.device)]
        rows = self.no_row.expand(len(real), -1)
        autocast = torch.autocast(real.device.type, torch.bfloat16, enabled=config.bf16)

        update_spectral_norm(self.generator)
        with frozen(self.discriminator):
            with autocast:
                fake = self.generator.render(landmarks, self.psi)
                terms = generator_losses(
                    self.discriminator, self.content_loss, fake, real, landmarks, rows
                )
                matching = config.feature_weight * terms["feature_matching"]
                loss = terms["content"] + matching + terms["adversarial"]
            loss.backward()
        self.generator_optimizer.step()
        self.generator_optimizer.zero_grad(set_to_none=True)
        if config.ema is not None:
            follow(self.average, self.generator, config.ema)
            with torch.no_grad():
                self.average_psi.lerp_(self.psi, 1 - config.ema)

        for _ in range(config.d_steps):
            update_spectral_norm(self.discriminator)
            with autocast:
                hinge, *_ = discriminator_loss(self.discriminator, fake, real, landmarks, rows)
            hinge.backward()
            self.discriminator_optimizer.step()
            self.discriminator_optimizer.zero_grad(set_to_none=True)

        logs = {name: float(term.detach()) for name, term in terms.items()}
        logs |= {"generator": float(loss.detach()), "discriminator": float(hinge.detach())}
        if not all(map(isfinite, logs.values())):
            raise FloatingPointError(f"fine-tuning diverged: {logs}")
        return logs

    def run(self) -> Iterator[dict[str, float]]:
        """The whole budget, or what patience leaves of it, with the losses of each iteration."""
        patience = Patience(self.config.patience)
        for _ in range(self.iterations):
            logs = self.step()
            yield logs
            if patience.ended(logs["content"]):
                return

    def person(self) -> Person:
        """The FT person as it stands."""
        return Person(self.average, self.average_psi.detach(), tuned=True)


def adapt(
    embedder: Embedder,
    generator: Generator,
    discriminator: Discriminator,
    content_loss: nn.Module,
    frames: Tensor,
    landmarks: Tensor,
    config: AdaptConfig | None = None,
) -> Person:
    """T frames and their landmark pictures, (T, 3, S, S) each, to the person of the variant."""
    config = config or AdaptConfig()
    e_hat = embed(embedder, frames, landmarks)
    if config.variant == "ff":
        return feed_forward(generator, e_hat)
    tuner = FineTuner(generator, discriminator, content_loss, e_hat, frames, landmarks, config)
    for _ in tuner.run():
        pass
    return tuner.person()
