"""The one interface of a landmark backend."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pipelines.errors import UserError

POINTS = 68
WIDEN = 0.25
"""Annotated boxes often end at the brows or the lips: they grow by this much before a test."""
_DEVICE = re.compile(r"cpu|cuda(:[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Landmarks:
    """68 iBUG points for every frame of one clip.

    points: (frames, 68, 2) float32, pixels of the frame, NaN where no face was found.
    confidence: (frames,) float32, 0..1; 0 where no face was found.
    """

    points: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float32]


class Detector(Protocol):
    """A loaded model. Built once per worker; holds no state from one clip to the next."""

    name: str

    def __call__(
        self,
        frames: npt.NDArray[np.uint8],
        face_boxes: npt.NDArray[np.float32] | None,
    ) -> Landmarks:
        """Find the landmarks of one clip.

        frames: (n, height, width, 3) RGB. face_boxes: (n, 4) or (1, 4) x, y, w, h in pixels,
        where the annotation already tells where the face is; None to search the picture.
        """


class DetectorUnavailable(Exception):
    """The backend's library or weights are missing; the message names the remedy."""


def check_device(backend: str, device: str) -> None:
    """Raises UserError for a device that the backend can have on no machine; loads nothing."""
    if backend == "mediapipe" and device != "cpu":
        raise UserError(
            f"landmarks.device: mediapipe runs on the CPU only, not on {device!r}: set it to cpu, "
            "or landmarks.backend to face_alignment"
        )
    if not _DEVICE.fullmatch(device):
        raise UserError(f"landmarks.device: {device!r} is none of cpu, cuda and cuda:N")


def share_inside(
    points: npt.NDArray[np.float32], boxes: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Share of the landmarks that lie in the annotated box, widened by `WIDEN` of its sides.

    points: (..., 68, 2) pixels. boxes: (..., 4) x, y, w, h. Returns (...) float32, 0..1;
    0 where the points are NaN.
    """
    corner, sides = boxes[..., None, :2], boxes[..., None, 2:]
    low, high = corner - sides * WIDEN / 2, corner + sides * (1 + WIDEN / 2)
    inside = ((points >= low) & (points <= high)).all(axis=-1)
    share: npt.NDArray[np.float32] = inside.mean(axis=-1, dtype=np.float32)
    return share


def cut(
    frame: npt.NDArray[np.uint8], left: int, top: int, right: int, bottom: int
) -> npt.NDArray[np.uint8]:
    """Pixels [left, right) x [top, bottom) of a (height, width, 3) frame, black beyond its edge."""
    out = np.zeros((bottom - top, right - left, 3), np.uint8)
    inner = frame[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    y, x = max(-top, 0), max(-left, 0)
    out[y : y + inner.shape[0], x : x + inner.shape[1]] = inner
    return out
