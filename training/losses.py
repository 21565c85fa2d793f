"""The losses of PAPER.md, each a function from tensors to a scalar in float32."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

CONTENT_WEIGHTS = {
    "v1": {"vgg19": 1e-2, "vggface": 2e-3},
    "v2": {"vgg19": 1.5e-1, "vggface": 2.5e-2},
}
"""Of the paper's first and second version."""

MATCH_WEIGHTS = {"v1": 80.0, "v2": 10.0}


def l1(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference, summed in float32 at least."""
    difference = (a - b).abs()
    wide = torch.float64 if difference.dtype == torch.float64 else torch.float32
    return difference.mean(dtype=wide)


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
