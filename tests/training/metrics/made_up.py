"""Pictures and faces drawn by chance."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F


def pictures(count: int, side: int = 48, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    smooth = torch.from_numpy(rng.uniform(0, 255, (count, 3, side // 4, side // 4)))
    large = F.interpolate(smooth, (side, side), mode="bicubic").clamp(0, 255)
    return large.byte().permute(0, 2, 3, 1).contiguous().numpy()


def noisy(x: np.ndarray, much: float, seed: int = 1) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, much, x.shape)
    return (x + noise).clip(0, 255).astype(np.uint8)


def face(seed: int = 0) -> np.ndarray:
    """68 points around an oval, eye corners 60 apart."""
    points = np.random.default_rng(seed).uniform(60, 190, (68, 2))
    points[[36, 45]] = (90, 110), (150, 110)
    return points


def moved(points: np.ndarray, angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return scale * points @ turn.T + shift
