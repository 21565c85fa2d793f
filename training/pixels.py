"""Pictures as bytes and as the networks take them: the one place that scales and rounds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Pixels = npt.NDArray[np.uint8]


def to_unit(pictures: Pixels, device: torch.device) -> Tensor:
    """(n, H, W, 3) to (n, 3, H, W) in [-1, 1], channels last as they lie."""
    return torch.from_numpy(pictures).to(device).movedim(-1, 1).float() / 127.5 - 1


def to_uint8(x: Tensor) -> Pixels:
    """(n, 3, H, W) in [-1, 1], of any float type, to (n, H, W, 3)."""
    pictures = (x.detach().float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(pictures.movedim(1, -1).cpu().numpy())
