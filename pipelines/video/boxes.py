"""Where to crop: from annotated face boxes to the squares that are cut out of the picture.

Boxes are arrays (n, 4) of x, y, width, height, in pixels of the upright source picture as it
is stored. Where its pixels are not square (`sar`, width over height of one pixel, is not 1), a
square on the screen is `sar` times narrower in stored pixels.

Every crop has even coordinates and sides: chroma is stored at half the resolution, and an odd
crop would silently be moved by a pixel. What is recorded is then exactly what was cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float64]
"""(n, 4): x, y, width, height."""

NEARLY_SQUARE = 1.1
"""Longest ratio of sides at which a ready-made crop is scaled as it is."""


@dataclass(frozen=True, slots=True)
class Crop:
    """What to cut: `boxes` (1 or n, 4) of one size; (even) integers in pixels of the picture."""

    boxes: NDArray[np.int64]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of every box."""
        return int(self.boxes[0, 2]), int(self.boxes[0, 3])

    def overhang(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Black pixels needed left, top, right and bottom of the picture so that all fits."""
        x, y, w, h = self.boxes.T
        sides = (-x, -y, x + w - width, y + h - height)
        left, top, right, bottom = (max(0, int(side.max())) for side in sides)
        return left, top, right, bottom

    def padding(self, width: int, height: int) -> float:
        """Mean share of the crop outside a picture of that size, 0..1."""
        return float(np.mean(1.0 - _inside(self.boxes, width, height)))


def to_pixels(
    boxes: NDArray[np.floating], box_height: int | None, width: int, height: int, sar: float = 1.0
) -> Boxes:
    """Annotated boxes (n, 4) in pixels of a picture `width` x `height`.

    They are fractions of the picture where `box_height` is None, else square pixels of a
    picture that many lines high: annotations outlive the resolution they were made on.
    """
    if box_height is None:
        scale = np.array([width, height, width, height], np.float64)
    else:
        lines = height / box_height
        scale = np.array([lines / sar, lines, lines / sar, lines], np.float64)
    return np.asarray(boxes, np.float64).reshape(-1, 4) * scale


def smooth(boxes: Boxes, window: int) -> Boxes:
    """Take the jitter of a detector out of (n, 4) boxes: a median, then a mean over `window`.

    The median drops single bad boxes, the mean removes the steps that it leaves. Centres and
    sizes are smoothed, since a detector errs in those independently.
    """
    window = min(window, len(boxes)) | 1
    if len(boxes) < 2 or window < 3:
        return boxes
    values = np.hstack([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]])
    half = window // 2
    for average in (np.median, np.mean):
        padded = np.pad(values, ((half, half), (0, 0)), mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, window, axis=0)
        values = np.asarray(average(windows, axis=-1))
    return np.hstack([values[:, :2] - values[:, 2:] / 2, values[:, 2:]])


def still(boxes: Boxes, margin: float, sar: float = 1.0) -> Crop:
    """One square for the whole clip that holds the face all along.

    `boxes` (n, 4) should be smooth. The square holds the span of the boxes, less the outermost
    5 % at each edge but never less than every centre, plus `margin` times the face's own side:
    a face that moves about is not also given a wider margin. An unmoving face of side s
    gets a square of side s * (1 + margin).
    """
    unit = _to_screen(boxes, sar)
    low, high = unit[:, :2], unit[:, :2] + unit[:, 2:]
    centres = (low + high) / 2
    low = np.minimum(np.percentile(low, 5, axis=0), centres.min(axis=0))
    high = np.maximum(np.percentile(high, 95, axis=0), centres.max(axis=0))
    face = float(np.median(unit[:, 2:].max(axis=1)))
    side = float(max(high - low)) + margin * face
    return _squares(((low + high) / 2)[None], side, sar)


def moving(boxes: Boxes, margin: float, sar: float = 1.0) -> Crop:
    """One square per box of (n, 4), all of one side, that follows the face.

    The side is constant, so that the scale does not pump: the 90th percentile of the boxes'
    longer side, times 1 + margin.
    """
    unit = _to_screen(boxes, sar)
    side = float(np.percentile(unit[:, 2:].max(axis=1), 90)) * (1 + margin)
    return _squares(unit[:, :2] + unit[:, 2:] / 2, side, sar)


def ready(boxes: Boxes | None, width: int, height: int, sar: float = 1.0) -> Crop:
    """A crop that was decided elsewhere: the median of `boxes`, or None: the whole picture.

    Taken as it is if it is nearly square on the screen; else widened to a square, so
    that faces are never squashed.
    """
    if boxes is None:
        boxes = np.array([[0, 0, width, height]], np.float64)
    box = np.median(boxes, axis=0)[None]
    unit = _to_screen(box, sar)
    longest, shortest = float(unit[0, 2:].max()), float(unit[0, 2:].min())
    if longest > shortest * NEARLY_SQUARE:
        return _squares(unit[:, :2] + unit[:, 2:] / 2, longest, sar)
    low = _even(box[:, :2])
    return Crop(np.hstack([low, np.maximum(2, _even(box[:, :2] + box[:, 2:] - low))]))


def outside(crop: Crop, width: int, height: int) -> bool:
    """Does a box of the crop show nothing at all of a picture of that size?"""
    return bool(np.any(_inside(crop.boxes, width, height) <= 0.0))


def into_crop(boxes: Boxes, crop: Crop, size: int) -> Boxes:
    """Boxes (n, 4) of the picture in pixels of the crop once scaled to `size` x `size`.

    One box per crop box, or one row where both have one.
    """
    scale = size / crop.boxes[:, 2:]
    rows = np.broadcast_to(boxes, (max(len(boxes), len(crop.boxes)), 4))
    return np.hstack([(rows[:, :2] - crop.boxes[:, :2]) * scale, rows[:, 2:] * scale])


def _to_screen(boxes: Boxes, sar: float) -> Boxes:
    unit: Boxes = boxes * np.array([sar, 1.0, sar, 1.0])
    return unit


def _squares(centres: NDArray[np.float64], side: float, sar: float) -> Crop:
    """Squares of one side around centres (n, 2), both in screen pixels, as stored pixels."""
    extent = np.maximum(2, _even(np.array([[side / sar, side]])))
    middle = centres / np.array([sar, 1.0])
    low = _even(middle - extent / 2)
    return Crop(np.hstack([low, np.broadcast_to(extent, low.shape)]))


def _even(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return (2 * np.floor(values / 2 + 0.5)).astype(np.int64)


def _inside(boxes: NDArray[np.int64], width: int, height: int) -> NDArray[np.float64]:
    low = np.maximum(boxes[:, :2], 0)
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], [width, height])
    shown = np.maximum(high - low, 0)
    share: NDArray[np.float64] = shown.prod(axis=1) / boxes[:, 2:].prod(axis=1)
    return share
