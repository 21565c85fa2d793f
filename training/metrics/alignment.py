"""Similarity transforms between sets of points: what alignment means everywhere here."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.floating]


def similarity(points: Points, targets: Points) -> npt.NDArray[np.float64]:
    """Rotation, scale and shift that take (..., k, 2) nearest to (..., k, 2), as (..., 2, 3).

    Least squares in closed form (Umeyama 1991, IEEE PAMI 13:376), without reflections. In the
    plane the best one is a complex number times the centred points, plus a shift. NaN gives NaN.
    """
    p, q = _complex(points), _complex(targets)
    p_mean, q_mean = p.mean(-1, keepdims=True), q.mean(-1, keepdims=True)
    p_centred = p - p_mean
    energy = np.square(np.abs(p_centred)).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        turn = (p_centred.conj() * (q - q_mean)).sum(-1) / energy
    shift = q_mean[..., 0] - turn * p_mean[..., 0]
    rows = [turn.real, -turn.imag, shift.real, turn.imag, turn.real, shift.imag]
    return np.stack(rows, axis=-1).reshape(*turn.shape, 2, 3)


def apply(transform: npt.NDArray[np.float64], points: Points) -> npt.NDArray[np.float64]:
    """(..., 2, 3) on (..., k, 2)."""
    moved: npt.NDArray[np.float64] = points @ np.swapaxes(transform[..., :2], -1, -2)
    return moved + transform[..., None, :, 2]


def aligned(points: Points, targets: Points) -> npt.NDArray[np.float64]:
    """Points (..., k, 2) moved, turned and scaled onto targets (..., k, 2)."""
    return apply(similarity(points, targets), points)


def _complex(points: Points) -> npt.NDArray[np.complex128]:
    x: npt.NDArray[np.complex128] = points[..., 0].astype(np.complex128) + 1j * points[..., 1]
    return x
