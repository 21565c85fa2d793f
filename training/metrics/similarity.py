"""How alike two pictures are, pixel by pixel: SSIM and PSNR."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

Pixels = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float64]

RANGE = 255.0
EQUAL = 99.0
"""dB at most, which equal pictures have."""
SIGMA = 1.5
RADIUS = 5
"""The Gaussian window is 11 x 11 pixels."""
C1, C2 = (0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2


def psnr(pictures: Pixels, references: Pixels) -> Scores:
    """Peak signal-to-noise ratio in dB of (n, H, W, 3) to (n, H, W, 3), (n,).

    Equal pictures have `EQUAL`: an infinite value would take its person out of every mean.
    """
    difference = pictures.astype(np.float64) - references
    error = np.square(difference).mean(axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        ratio: Scores = np.minimum(10 * np.log10(RANGE**2 / error), EQUAL)
    return ratio


def ssim(pictures: Pixels, references: Pixels) -> Scores:
    """Structural similarity of (n, H, W, 3) to (n, H, W, 3), H and W at least 11: (n,), at most 1.

    Wang et al. 2004 (IEEE TIP 13:600): Gaussian window of 11 x 11 with sigma 1.5, population
    covariances, constants (0.01 * 255)^2 and (0.03 * 255)^2; the mean over channels and over the
    places where the window fits. Values as scikit-image's `structural_similarity` with
    gaussian_weights=True, use_sample_covariance=False, data_range=255.
    """
    # One picture at a time: in float64 the five filtered pictures are forty times its size.
    return np.array([_ssim(x, y) for x, y in zip(pictures, references, strict=True)])


def _ssim(picture: Pixels, reference: Pixels) -> float:
    x, y = (torch.from_numpy(a.transpose(2, 0, 1).astype(np.float64)) for a in (picture, reference))
    mean_x, mean_y, xx, yy, xy = _blur(torch.stack((x, y, x * x, y * y, x * y)))
    variance = xx - mean_x**2 + yy - mean_y**2
    covariance = xy - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return float((luminance * (2 * covariance + C2) / (variance + C2)).mean())


def _blur(x: Tensor) -> Tensor:
    """The window over (m, 3, H, W), where it fits: (m, 3, H - 10, W - 10)."""
    steps = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float64)
    window = torch.exp(-0.5 * (steps / SIGMA) ** 2)
    window /= window.sum()
    flat = x.flatten(0, 1)[:, None]
    flat = F.conv2d(F.conv2d(flat, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))
    return flat[:, 0].unflatten(0, x.shape[:2])
