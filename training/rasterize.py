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
RGB = COLOURS.view("V3")[:, 0]
"""(segments,): the colours, three bytes each as one item."""

DRAWN = 60
"""Landmarks that are drawn."""


def rasterize(
    points: npt.ArrayLike,
    size: int = 256,
    *,
    source_size: int = 256,
    out: npt.NDArray[np.uint8] | None = None,
) -> npt.NDArray[np.uint8]:
    """Draw landmarks (68, 2), x then y in pixels of a square of `source_size`, as (size, size, 3).

    Coordinates are scaled, then rounded to pixels; the line is 2 thick at every size. Landmarks
    with a NaN among them, no face found, make a black picture. `out` is a black picture to draw
    into, contiguous.
    """
    if out is None:
        out = np.zeros((size, size, 3), np.uint8)
    scaled_p2 = np.asarray(points, np.float64)[:DRAWN]
    if not np.isfinite(scaled_p2).all():
        return out
    if source_size != size:
        scaled_p2 = (scaled_p2 + 0.5) * (size / source_size) - 0.5  # pixel centres stay centres
    # Far outside, where nothing shows, a wild point must not make a line of a million pixels.
    pixels_p2 = np.floor(scaled_p2.clip(-4 * size, 5 * size) + 0.5).astype(np.intp)

    start_s2, end_s2 = pixels_p2[ENDS[:, 0]], pixels_p2[ENDS[:, 1]]
    steps_s = np.abs(end_s2 - start_s2).max(axis=1)
    slope_s2 = (end_s2 - start_s2) / np.maximum(steps_s, 1)[:, None]
    pixels_s = steps_s + 1
    offset_s = np.cumsum(pixels_s) - pixels_s
    walked_n = np.arange(pixels_s.sum()) - np.repeat(offset_s, pixels_s)  # n: every line's pixels

    def along(axis: int) -> npt.NDArray[np.intp]:
        moved_n = np.repeat(slope_s2[:, axis], pixels_s) * walked_n + 0.5
        place_n: npt.NDArray[np.intp] = np.floor(moved_n).astype(np.intp)
        return place_n + np.repeat(start_s2[:, axis], pixels_s)

    # One item a pixel of a flat array. Of several colours at a pixel the last drawn stays: numpy
    # assigns in order.
    x_n, y_n = along(0), along(1)
    index_q = ((y_n * size + x_n)[:, None] + PEN @ (1, size)).ravel()  # q: pixels under the pen
    rgb_q = np.repeat(RGB, pixels_s * len(PEN))
    if pixels_p2.min() < 1 or pixels_p2.max() > size - 2:
        touched_q2 = (np.stack((x_n, y_n), axis=1)[:, None] + PEN).reshape(-1, 2)
        inside_q = ((touched_q2 >= 0) & (touched_q2 < size)).all(axis=1)
        index_q, rgb_q = index_q[inside_q], rgb_q[inside_q]
    out.reshape(-1).view(RGB.dtype)[index_q] = rgb_q
    return out
