# mypy: allow-subclassing-any
"""How alike two sets of pictures are: Fréchet and kernel distance of a network's features.

FID and KID are their names with the Inception network of 2015 alone; with another network they
are `FD-<network>` and `KD-<network>`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training import perceptual
from training.metrics.bootstrap import Counts, Estimate, interval
from training.metrics.inception import inception
from training.pixels import to_unit

Features = npt.NDArray[np.floating]
Matrix = npt.NDArray[np.float64]
Network = Literal["inception", "squeezenet", "random"]

FEW_FRAMES = 2048
"""Fewer bias the Fréchet distance upwards by much (Heusel et al. 2017 ask for so many)."""
FEW_PEOPLE = 5
"""Fewer give the kernel distance no interval. Of two no resampling is like both once - one person
alone, or pairs between them that weigh twice - so that it may not hold the very estimate; of four
there are 35 different ones, too few for a percentile."""
SIDE = 224
"""Pixels at which the networks other than Inception see every picture."""


def names(network: Network) -> tuple[str, str]:
    """What the Fréchet and the kernel distance are called."""
    return ("FID", "KID") if network == "inception" else (f"FD-{network}", f"KD-{network}")


def extractor(network: Network, weights: perceptual.Weights | None) -> nn.Module:
    """Pictures (B, 3, H, W), RGB in [-1, 1], to features (B, d). Raises BackboneUnavailable."""
    if network == "inception":
        return inception(weights)
    return Pooled(perceptual.load(network, weights))


class Pooled(nn.Module):
    """A backbone's last feature map, averaged over the picture."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 512)."""
        x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True)
        pooled: Tensor = self.backbone(x)[-1].mean((2, 3))
        return pooled


def features(network: nn.Module, pictures: npt.NDArray[np.uint8], batch: int = 16) -> Features:
    """Pictures (n, H, W, 3) to features (n, d) float32."""
    device = next(network.parameters()).device
    places = range(0, len(pictures), batch)
    with torch.inference_mode():
        parts = [network(to_unit(pictures[at : at + batch], device)).cpu() for at in places]
    found: Features = torch.cat(parts).numpy()
    return found


def frechet(x: Features, y: Features) -> float:
    """Squared Fréchet distance of the Gaussians fitted to (n, d) and (m, d), n and m >= 2.

    Heusel et al. 2017 (arXiv 1706.08500): |mean difference|^2 + tr(A + B - 2 sqrt(A B)) with
    covariances A and B over n - 1. With X and Y the centred features, A B and (X Y^T)(X Y^T)^T
    have the same non-zero eigenvalues but for a factor, so the root's trace is a sum of singular
    values: exact also where the covariances are singular, and never larger than n x m.
    """
    shift = np.square(x.mean(0, dtype=np.float64) - y.mean(0, dtype=np.float64)).sum()
    a, b = _root(x), _root(y)
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(shift + np.square(a).sum() + np.square(b).sum() - 2 * cross)


def _root(x: Features) -> Matrix:
    """R, at most d rows, with R^T R the covariance of (n, d)."""
    wide = x.astype(np.float64)
    centred: Matrix = (wide - wide.mean(0)) / np.sqrt(len(x) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r")) if len(x) > x.shape[1] else centred


def kernel_distance(
    x: Sequence[Features], y: Sequence[Features], counts: Counts, confidence: float
) -> Estimate:
    """Squared maximum mean discrepancy of two sets of pictures, with its interval over people.

    NaN for the interval of fewer than `FEW_PEOPLE`.

    x, y: features (n, d) and (m, d) of each of P people; counts (count, P) from
    `bootstrap.resamples`. Binkowski et al. 2018 (arXiv 1801.01401): kernel (x.y / d + 1)^3, the
    unbiased estimate over all pairs, which may be below 0. Where a resampling draws a person
    twice, pairs between the copies count in none of the three terms, or equal frames would
    look like a concentrated distribution.
    """
    if sum(map(len, x)) < 2 or sum(map(len, y)) < 2:
        return Estimate(float("nan"), float("nan"), float("nan"), len(x))
    xx, yy, xy = (_mean_kernel(a, b, counts) for a, b in ((x, x), (y, y), (x, y)))
    values = xx + yy - 2 * xy
    few = len(x) < FEW_PEOPLE
    low, high = (float("nan"),) * 2 if few else interval(values[1:], confidence)
    return Estimate(float(values[0]), low, high, len(x))


def _mean_kernel(x: Sequence[Features], y: Sequence[Features], counts: Counts) -> Matrix:
    """The kernel's mean over pairs of different frames: of all people, then of each resampling."""
    same = x is y
    a, b = (np.concatenate(list(side)).astype(np.float64) for side in (x, y))
    kernel = (a @ b.T / a.shape[1] + 1) ** 3
    if same:
        np.fill_diagonal(kernel, 0)
    n, m = (np.array([len(person) for person in side]) for side in (x, y))
    starts_n, starts_m = (np.cumsum(sizes) - sizes for sizes in (n, m))
    sums = np.add.reduceat(np.add.reduceat(kernel, starts_n, axis=0), starts_m, axis=1)  # (P, P)
    pairs = np.outer(n, m) - (np.diag(n) if same else 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        resampled = _weighed(sums, counts) / _weighed(pairs.astype(np.float64), counts)
    return np.append(sums.sum() / pairs.sum(), resampled)


def _weighed(blocks: Matrix, counts: Counts) -> Matrix:
    """Sum of (P, P) with c_p c_q between people and c_p within one, for each row of counts.

    c_p c_q is less than 1 on average: made up for, or pairs within a person would weigh more than
    in the estimate itself.
    """
    within = np.diag(blocks)
    between = (blocks - np.diag(within)) * len(blocks) / max(len(blocks) - 1, 1)
    total: Matrix = ((counts @ between) * counts).sum(1) + counts @ within
    return total
