"""Who competes: FF and FT, and what costs nothing or knows nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.params.training import Adapt
from training import finetune
from training.evaluation.frames import Shown
from training.finetune import AdaptConfig, Person
from training.metrics.alignment import aligned
from training.networks import Embedder, Generator
from training.pixels import Pixels, to_uint8
from training.trained import Trained

FF, FT, NEAREST, MEAN, UNTRAINED, REAL = (
    *("FF", "FT", "nearest source", "mean of sources"),
    *("untrained", "real"),
)
ORDER = (FF, FT, NEAREST, MEAN, UNTRAINED, REAL)
MADE = (FF, FT)
"""The networks' own work."""

BATCH = 16

Method = Callable[[Shown], Pixels]
"""A driver's frames to as many pictures of the person, (n, S, S, 3)."""


class Methods:
    """Everything that can be learned from T frames, by name."""

    def __init__(
        self,
        model: Trained,
        content_loss: nn.Module | None,
        adapt: Adapt,
        seed: int,
        device: torch.device,
    ) -> None:
        """content_loss: for fine-tuning; None: the model was trained without it, no FT."""
        self.model, self.content_loss, self.device = model, content_loss, device
        self.config = AdaptConfig(**{**adapt.model_dump(), "variant": "ft"})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.untrained = Embedder(model.networks), Generator(model.networks)
        for network in self.untrained:
            network.to(device).eval().requires_grad_(False)

    @property
    def names(self) -> list[str]:
        """Those that there are, in the order of tables; `real` is no method."""
        return [name for name in ORDER[:-1] if name != FT or self.content_loss is not None]

    def learn(self, sources: Shown) -> Mapping[str, Method]:
        """What each makes of T source frames."""
        x, y = sources.tensors(self.device)
        learned: dict[str, Method] = {
            FF: self._render(_feed_forward(self.model.embedder, self.model.generator, x, y)),
            NEAREST: lambda driver: sources.pictures[nearest(sources, driver)],
            MEAN: lambda driver: mean(sources, len(driver.pictures)),
            UNTRAINED: self._render(_feed_forward(*self.untrained, x, y)),
        }
        if self.content_loss is not None:
            parts = self.model.embedder, self.model.generator, self.model.discriminator
            tuned = finetune.adapt(*parts, self.content_loss, x, y, self.config)
            learned[FT] = self._render(tuned)
        return {name: learned[name] for name in self.names}

    def _render(self, person: Person) -> Method:
        def render(driver: Shown) -> Pixels:
            _, y = driver.tensors(self.device)
            return np.concatenate([to_uint8(person.render(part)) for part in y.split(BATCH)])

        return render


def _feed_forward(embedder: Embedder, generator: Generator, x: Tensor, y: Tensor) -> Person:
    return finetune.feed_forward(generator, finetune.embed(embedder, x, y))


def nearest(sources: Shown, driver: Shown) -> Any:
    """For each of n driver frames the place of the source whose landmarks are nearest: (n,).

    Mean distance of the 68 points after a similarity transform of the source's onto the
    driver's: place, size and roll of the head do not count, pose and expression do.
    """
    moved = aligned(sources.points[None], driver.points[:, None])  # (n, T, 68, 2)
    distance = np.linalg.norm(moved - driver.points[:, None], axis=-1).mean(-1)
    return distance.argmin(1)


def mean(sources: Shown, count: int) -> Pixels:
    """The mean of all source pictures, `count` times."""
    picture = sources.pictures.mean(0).round().astype(np.uint8)
    return np.repeat(picture[None], count, axis=0)
