"""Whether what was generated moves as its driver does: landmark error and jitter.

Landmarks are (n, 68, 2), iBUG's order, in pixels; all NaN in a frame where no face was found.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from training.metrics.alignment import aligned

Points = npt.NDArray[np.floating]
Scores = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]

OUTER_CORNERS = (36, 45)
"""Of the eyes: the interocular distance of the 300-W benchmark."""


def found(points: Points) -> npt.NDArray[np.bool_]:
    """In which of the (n, 68, 2) a face was found: (n,)."""
    return np.asarray(np.isfinite(points).all(axis=(-2, -1)))


def interocular(points: Points) -> Scores:
    """Distance of the outer eye corners of (n, 68, 2), in its pixels: (n,)."""
    left, right = (points[..., i, :] for i in OUTER_CORNERS)
    distance: Scores = np.linalg.norm(left - right, axis=-1)
    return distance


def landmark_error(points: Points, references: Points, *, align: bool = False) -> Scores:
    """Mean point error / interocular distance of the reference, in %: (n,).

    NaN where a face is found in one of the two only. `align` first takes the points to the
    reference by a similarity transform: between two people place and size mean nothing.
    """
    if align:
        points = aligned(points, references)
    distance = np.linalg.norm(points - references, axis=-1).mean(-1)
    error: Scores = 100 * distance / interocular(references)
    return error


FAR = 5
"""Frames: a fifth of a second at 25 a second. Over more, a face moves rather than trembles."""


def jitter(points: Points, driver: Points, clips: Numbers, numbers: Numbers) -> float:
    """How restless an output is against its driver: 1 is equal, more is restless.

    The mean length of the landmarks' second differences in time over neighbouring frames, each in
    units of its own face's interocular distance, output over driver. clips: (n,), the clip that
    each frame is of; numbers: (n,), its place there. Only runs of three frames of a clip count
    that lie at most `FAR` apart each and have both faces; NaN where there is none or the driver
    holds still.
    """
    seen = found(points) & found(driver)
    near = close(clips, numbers)
    runs = seen[:-2] & seen[1:-1] & seen[2:] & near[:-1] & near[1:]
    if not runs.any():
        return float("nan")
    output, reference = (_restlessness(x, numbers, runs) for x in (points, driver))
    return output / reference if reference > 0 else float("nan")


def close(clips: Numbers, numbers: Numbers) -> npt.NDArray[np.bool_]:
    """Which frames of (n,) are followed by one of their clip, at most `FAR` later: (n - 1,)."""
    steps = np.diff(numbers)
    near: npt.NDArray[np.bool_] = (np.diff(clips) == 0) & (steps > 0) & (steps <= FAR)
    return near


def _restlessness(points: Points, numbers: Numbers, runs: npt.NDArray[np.bool_]) -> float:
    scaled = points / interocular(points)[:, None, None]
    # Stored frames need not lie equally apart: what moves evenly must come out as 0.
    steps = np.diff(numbers)[runs.nonzero()[0][:, None] + [0, 1]][..., None, None]
    at = runs.nonzero()[0]
    speeds = [(scaled[at + i + 1] - scaled[at + i]) / steps[:, i] for i in (0, 1)]
    bends = 2 * (speeds[1] - speeds[0]) / steps.sum(1)
    return float(np.linalg.norm(bends, axis=-1).mean())
