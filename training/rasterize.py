"""68 landmarks to the landmark picture that E, G and D see (docs/model.md)."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Stroke(NamedTuple):
    """One polyline over consecutive landmarks."""

    first: int
    last: int
    colour: tuple[int, int, int]
    closed: bool = False


WHITE, RED, GREEN, BLUE = (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)
MAGENTA, CYAN, YELLOW = (255, 0, 255), (0, 255, 255), (255, 255, 0)

STROKES = (
    Stroke(0, 16, WHITE),  # jaw
    Stroke(17, 21, RED),  # brows
    Stroke(22, 26, GREEN),
    Stroke(27, 30, BLUE),  # nose
    Stroke(31, 35, BLUE),
    Stroke(36, 41, MAGENTA, closed=True),  # eyes
    Stroke(42, 47, CYAN, closed=True),
    Stroke(48, 59, YELLOW, closed=True),  # outer lip; the inner one, 60-67, is not drawn
)


def _segments() -> tuple[npt.NDArray[np.intp], npt.NDArray[np.uint8]]:
    """Landmark indices (segments, 2) and colours (segments, 3), in the order of drawing."""
    ends, colours = [], []
    for stroke in STROKES:
        points = [*range(stroke.first, stroke.last + 1), *([stroke.first] * stroke.closed)]
        ends += list(pairwise(points))
        colours += [stroke.colour] * (len(points) - 1)
    return np.array(ends, np.intp), np.array(colours, np.uint8)


ENDS, COLOURS = _segments()
PEN = np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)])
"""(dx, dy): the pixels whose centres lie within half the thickness, 1, of a point of the line."""
BORDER = 2
"""Pixels around the picture that a line just outside of it, with the pen on it, may touch."""

RGB = COLOURS.view("V3")[:, 0]
"""(segments,): the colours, three bytes each as one item."""

DRAWN = 60
"""Landmarks that are drawn."""


def rasterize(
    points: npt.ArrayLike, size: int = 256, *, source_size: int = 256
) -> npt.NDArray[np.uint8]:
    """Draw landmarks (68, 2), x then y in pixels of a square of `source_size`, as (size, size, 3).

    Coordinates are scaled, then rounded to pixels; the line is 2 thick at every size. Landmarks
    with a NaN among them, no face found, make a black picture.
    """
    scaled_p2 = np.asarray(points, np.float64)[:DRAWN]
    if not np.isfinite(scaled_p2).all():
        return np.zeros((size, size, 3), np.uint8)
    if source_size != size:
        scaled_p2 = (scaled_p2 + 0.5) * (size / source_size) - 0.5  # pixel centres stay centres
    # Far outside, where nothing shows, a wild point must not make a line of a million pixels.
    pixels_p2 = np.floor(scaled_p2.clip(-4 * size, 5 * size) + 0.5).astype(np.intp)

    start_s2, end_s2 = pixels_p2[ENDS[:, 0]], pixels_p2[ENDS[:, 1]]
    steps_s = np.abs(end_s2 - start_s2).max(axis=1)
    segment_n = np.repeat(np.arange(len(ENDS)), steps_s + 1)  # n: every pixel of every segment
    offset_s = np.cumsum(steps_s + 1) - (steps_s + 1)
    walked_n = np.arange(len(segment_n)) - offset_s[segment_n]
    slope_s2 = (end_s2 - start_s2) / np.maximum(steps_s, 1)[:, None]
    line_n2 = start_s2[segment_n] + np.floor(slope_s2[segment_n] * walked_n[:, None] + 0.5).astype(
        np.intp
    )
    near_n = ((line_n2 >= -1) & (line_n2 <= size)).all(axis=1)
    x_n, y_n = (line_n2[near_n] + BORDER).T
    rgb_n = RGB[segment_n[near_n]]

    # One item a pixel, in a canvas with a border: every touched pixel is one index of a flat
    # array. Of several colours at a pixel the last drawn stays: numpy assigns in order.
    side = size + 2 * BORDER
    canvas = np.zeros(side * side, RGB.dtype)
    pen = PEN @ (1, side)
    canvas[((y_n * side + x_n)[:, None] + pen).ravel()] = np.repeat(rgb_n, len(pen))
    inner = slice(BORDER, -BORDER)
    return np.ascontiguousarray(canvas.view(np.uint8).reshape(side, side, 3)[inner, inner])
