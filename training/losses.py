# mypy: allow-subclassing-any
"""The losses of docs/model.md, each a function from tensors to a scalar in float32.

B pictures, N embedding entries. The objectives of E,G and of D are apart, because one backward
through their sum makes the adversarial gradient at x-hat exactly zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.kernels import mean_absolute
from training.layers import shared_weights
from training.networks import Discriminator

CONTENT_WEIGHTS = {
    "v1": {"vgg19": 1e-2, "vggface": 2e-3},
    "v2": {"vgg19": 1.5e-1, "vggface": 2.5e-2},
}
"""Of the paper's first and second version."""


def l1(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference, summed in float32 at least."""
    return mean_absolute(a - b)


def content(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """L_CNT of one backbone: the sum over its layers of the L1 between their outputs."""
    return torch.stack([l1(f, r.detach()) for f, r in zip(fake, real, strict=True)]).sum()


def feature_matching(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """L_FM: the mean over D's blocks of the L1 between their outputs; no gradient into the real."""
    return torch.stack([l1(f, r.detach()) for f, r in zip(fake, real, strict=True)]).mean()


def match(e_hat: Tensor, rows: Tensor) -> Tensor:
    """L_MCH, (B, N) twice: draws e-hat to W_i. Its gradient reaches E only."""
    return l1(e_hat, rows.detach())


def adversarial(fake_score: Tensor) -> Tensor:
    """G's part of L_ADV, from scores (B,) without a sigmoid."""
    return -fake_score.mean()


def hinge(real_score: Tensor, fake_score: Tensor) -> Tensor:
    """D's loss: 2 for a D that knows nothing, 0 for one that is sure. Scores have no bounds."""
    return F.relu(1 - real_score).mean() + F.relu(1 + fake_score).mean()


class ContentLoss(nn.Module):
    """L_CNT: the weighted sum over frozen backbones (`training.perceptual`)."""

    def __init__(self, *parts: tuple[nn.Module, float]) -> None:
        super().__init__()
        self.backbones = nn.ModuleList(backbone for backbone, _ in parts)
        self.weights = tuple(weight for _, weight in parts)
        self.requires_grad_(False)  # no gradient is computed for what never learns

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1] twice to a scalar; the real branch keeps no graph."""
        total = torch.zeros((), device=fake.device)
        for backbone, weight in zip(self.backbones, self.weights, strict=True):
            with torch.no_grad():
                real_features = backbone(real)
            total = total + weight * content(backbone(fake), real_features)
        return total


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Inside, gradients pass through the module but none is computed for its parameters."""
    trained = [p for p in module.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def generator_losses(
    discriminator: Discriminator,
    content_loss: nn.Module,
    fake: Tensor,
    real: Tensor,
    landmarks: Tensor,
    rows: Tensor,
) -> dict[str, Tensor]:
    """What E and G are told about x-hat, unweighted but for the backbones' weights.

    Call inside `frozen(discriminator)`: D judges here and does not learn.
    """
    with shared_weights(discriminator):
        fake_score, fake_features = discriminator(fake, landmarks, rows)
        with torch.no_grad():
            _, real_features = discriminator(real, landmarks, rows)
    return {
        "content": content_loss(fake, real),
        "feature_matching": feature_matching(fake_features, real_features),
        "adversarial": adversarial(fake_score),
    }


def discriminator_loss(
    discriminator: Discriminator, fake: Tensor, real: Tensor, landmarks: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Hinge loss, and the mean scores of real and fake, in one pass over both halves."""
    pictures = torch.cat((real, fake.detach()))
    scores, _ = discriminator(pictures, torch.cat((landmarks, landmarks)), torch.cat((rows, rows)))
    real_score, fake_score = scores.chunk(2)
    return hinge(real_score, fake_score), real_score.detach().mean(), fake_score.detach().mean()
