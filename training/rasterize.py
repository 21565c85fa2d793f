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


TOGETHER = 16
"""Pictures drawn by one pass: one alone costs twice as much, more gain little and take memory."""


def rasterize(
    points: npt.ArrayLike,
    size: int = 256,
    *,
    source_size: int | npt.NDArray[np.intp] = 256,
    out: npt.NDArray[np.uint8] | None = None,
) -> npt.NDArray[np.uint8]:
    """Draw landmarks (..., 68, 2), x then y in pixels of a square, as (..., size, size, 3).

    source_size: the side of that square, one for all or one each. Coordinates are scaled, then
    rounded to pixels; the line is 2 thick at every size. Landmarks with a NaN among them, no face
    found, make a black picture. `out` are black pictures to draw into, contiguous.
    """
    points_n2 = np.asarray(points, np.float64)[..., :DRAWN, :]
    if out is None:
        out = np.zeros((*points_n2.shape[:-2], size, size, 3), np.uint8)
    pixels_fd2 = points_n2.reshape(-1, DRAWN, 2)
    sides_f = np.broadcast_to(source_size, points_n2.shape[:-2]).reshape(-1)
    pictures = out.reshape(-1, size * size * 3).view(RGB.dtype)
    for first in range(0, len(pictures), TOGETHER):
        some = slice(first, first + TOGETHER)
        _draw(pixels_fd2[some], sides_f[some], size, pictures[some])
    return out


def _draw(
    points_fd2: npt.NDArray[np.float64],
    sides_f: npt.NDArray[np.intp],
    size: int,
    pictures: npt.NDArray[np.void],
) -> None:
    """Draw the faces f, of d points each, into pictures (f, size * size) of RGB items."""
    which_f = np.arange(len(points_fd2))
    if not np.isfinite(points_fd2).all():
        which_f = np.flatnonzero(np.isfinite(points_fd2).all(axis=(1, 2)))
        points_fd2, sides_f = points_fd2[which_f], sides_f[which_f]
    scale_f11 = (size / sides_f)[:, None, None]
    scaled_fd2 = (points_fd2 + 0.5) * scale_f11 - 0.5  # pixel centres stay centres
    # Far outside, where nothing shows, a wild point must not make a line of a million pixels.
    pixels_fd2 = np.floor(scaled_fd2.clip(-4 * size, 5 * size) + 0.5).astype(np.intp)

    start_s2, end_s2 = (pixels_fd2.take(ends, axis=1).reshape(-1, 2) for ends in ENDS.T)
    steps_s = np.abs(end_s2 - start_s2).max(axis=1)  # s: the strokes' segments, of all faces
    slope_s2 = (end_s2 - start_s2) / np.maximum(steps_s, 1)[:, None]
    pixels_s = steps_s + 1
    offset_s = np.cumsum(pixels_s) - pixels_s
    walked_n = np.arange(pixels_s.sum()) - np.repeat(offset_s, pixels_s)  # n: every line's pixels

    def along(axis: int) -> npt.NDArray[np.intp]:
        place_n: npt.NDArray[np.intp] = np.repeat(start_s2[:, axis], pixels_s)
        moved_n = np.repeat(slope_s2[:, axis], pixels_s) * walked_n
        place_n += np.floor(moved_n + 0.5).astype(np.intp)
        return place_n

    # One item a pixel of a flat array. Of several colours at a pixel the last drawn stays: numpy
    # assigns in order.
    x_n, y_n = along(0), along(1)
    picture_n = np.repeat(which_f, pixels_s.reshape(-1, len(ENDS)).sum(axis=1))
    index_n = (picture_n * size + y_n) * size + x_n
    index_q = (index_n[:, None] + PEN @ (1, size)).ravel()  # q: what is under the pen
    rgb_q = np.repeat(np.tile(RGB, len(which_f)), pixels_s * len(PEN))
    if len(which_f) and (pixels_fd2.min() < 1 or pixels_fd2.max() > size - 2):
        touched_q2 = (np.stack((x_n, y_n), axis=1)[:, None] + PEN).reshape(-1, 2)
        inside_q = ((touched_q2 >= 0) & (touched_q2 < size)).all(axis=1)
        index_q, rgb_q = index_q[inside_q], rgb_q[inside_q]
    pictures.reshape(-1)[index_q] = rgb_q
