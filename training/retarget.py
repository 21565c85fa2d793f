"""A driver's landmarks made into motion of another face: pose and expression apart.

`relative`: what changed in the driver since its calmest frame happens to the portrait. Each frame
is explained as a head under weak perspective, so that a turn is a turn and not a distortion; what
the pose leaves over, measured on the face turned straight, is expression. `absolute`: the driver's
own landmarks, laid over the portrait's by one similarity for the whole clip.

Causal and frame by frame: a clip and a live camera get the same numbers for the same reference.
Shapes: points (68, 2), x to the right and y down, in pixels of any square.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from training.one_euro import OneEuro

Points = npt.NDArray[np.floating]
Array = npt.NDArray[np.float64]
Motion = Literal["relative", "absolute"]

# An average head in millimetres, x to the picture's right, y down, z away from the camera; the
# same 49 people, scale and straight look as `pipelines.quality`'s 16 points.
# fmt: off
HEAD = np.array([
    # jaw
    (-69, -28, 67.4), (-68.2, -13.9, 71.6), (-65.2, 16, 69), (-60.6, 32.4, 62.9),
    (-54.3, 45.5, 52.9), (-47.3, 55, 42.1), (-30.8, 69.4, 26.8), (-22.6, 74.7, 19.8),
    (0, 79.9, 13.4), (22.6, 74.7, 19.8), (30.8, 69.4, 26.8), (47.3, 55, 42.1), (54.3, 45.5, 52.9),
    (60.6, 32.4, 62.9), (65.2, 16, 69), (68.2, -13.9, 71.6), (69, -28, 67.4),
    # brows
    (-56.3, -48.1, 19.5), (-50.1, -54, 11.3), (-40.5, -57.2, 4.7), (-28.2, -56.9, -1.2),
    (-14.3, -55.4, -4.2), (14.3, -55.4, -4.2), (28.2, -56.9, -1.2), (40.5, -57.2, 4.7),
    (50.1, -54, 11.3), (56.3, -48.1, 19.5),
    # nose
    (0, -38.4, -3.4), (0, -23.7, -13), (0, -10, -24.3), (0, -1.5, -26.9), (-16.4, 10.1, -1.5),
    (-7.3, 11.9, -7.9), (0, 11.9, -9.6), (7.3, 11.9, -7.9), (16.4, 10.1, -1.5),
    # eyes
    (-44.7, -33.7, 18.2), (-37.9, -37.5, 11.7), (-27.5, -38.2, 9.9), (-17.3, -32.5, 12.9),
    (-26.3, -30.1, 10.9), (-36.5, -30.3, 12.7), (17.3, -32.5, 12.9), (27.5, -38.2, 9.9),
    (37.9, -37.5, 11.7), (44.7, -33.7, 18.2), (36.5, -30.3, 12.7), (26.3, -30.1, 10.9),
    # outer lip
    (-25.3, 35.2, 10.1), (-19.9, 30.2, -0.4), (-7.5, 25.5, -9), (0, 26.5, -9.9), (7.5, 25.5, -9),
    (19.9, 30.2, -0.4), (25.3, 35.2, 10.1), (19.7, 42.1, 2.9), (14.6, 46, -0.2), (0, 49.6, -3.2),
    (-14.6, 46, -0.2), (-19.7, 42.1, 2.9),
    # inner lip
    (-21.6, 34.6, 8.3), (-10.6, 32.8, -1.3), (0, 33, -4.5), (10.6, 32.8, -1.3), (21.6, 34.6, 8.3),
    (11.6, 38.3, 0.5), (0, 39.4, -2.6), (-11.6, 38.3, 0.5),
])
# fmt: on

STABLE = np.array([0, 1, 2, 14, 15, 16, *range(27, 36), 36, 39, 42, 45])
"""What no expression moves: the temples, the nose, the corners of the eyes."""
LIDS = np.array([(37, 41), (38, 40), (43, 47), (44, 46)])
"""Upper and lower."""
MOUTH = np.arange(48, 68)
CORNERS, INNER_LIPS = (48, 54), (62, 66)
STEEPEST = 0.35
"""A face turned beyond about 70 degrees hides its width: what is seen of it is stretched by no
more than 1 / 0.35."""
FURTHEST = np.radians(50)
"""A portrait turns away no further than this, unless it is or the driver does: few networks have
seen a face from behind its cheek."""
GAINS = (0.5, 2.0)
"""How much larger or smaller a portrait's eyes and mouth may be than the driver's."""


@dataclass(frozen=True, slots=True)
class Pose:
    """Weak perspective: pixels = scale * (rotation @ millimetres)[:2] + shift."""

    scale: float
    rotation: Array
    """(3, 3)."""
    shift: Array
    """(2,) pixels: where the head's origin, the base of the nose, is seen."""

    def show(self, head: Array) -> Array:
        """(68, 3) millimetres to (68, 2) pixels."""
        seen: Array = self.scale * head @ self.rotation[:2].T + self.shift
        return seen

    def straighten(self, points: Points, depth: Array) -> Array:
        """What `show` makes into these pixels, of points whose z (68,) is known: (68, 2)."""
        flat = (points - self.shift) / self.scale - np.outer(depth, self.rotation[:2, 2])
        left, steepness, right = np.linalg.svd(self.rotation[:2, :2])
        turned: Array = flat @ ((left / np.maximum(steepness, STEEPEST)) @ right)
        return turned

    @property
    def roll(self) -> float:
        """Radians in the plane of the picture."""
        return float(np.arctan2(self.rotation[1, 0], self.rotation[0, 0]))

    @property
    def away(self) -> float:
        """Radians between where the face looks and the camera."""
        return float(np.arccos(np.clip(self.rotation[2, 2], -1, 1)))


class Head:
    """A person's head: their own face on the average head's depth."""

    def __init__(self, points: Points) -> None:
        """From a frame (68, 2), which is at rest."""
        self.pose = pose_of(points, HEAD)
        self.shape = np.column_stack([self.pose.straighten(points, HEAD[:, 2]), HEAD[:, 2]])

    @property
    def eyes(self) -> float:
        """Millimetres between the lids."""
        lids = self.shape[LIDS]
        return float(np.linalg.norm(lids[:, 0] - lids[:, 1], axis=1).mean())

    @property
    def mouth(self) -> float:
        """Millimetres between its corners."""
        return float(np.linalg.norm(self.shape[CORNERS[0]] - self.shape[CORNERS[1]]))


def pose_of(points: Points, head: Array) -> Pose:
    """How a head (68, 3) is seen as points (68, 2), judged by what no expression moves.

    The best affine map in closed form, then the nearest scaled rotation: if the points are turned,
    scaled or moved in the picture, so is the pose, exactly.
    """
    stable = head[STABLE]
    middle, seen = stable.mean(0), points[STABLE].astype(np.float64)
    affine = (np.linalg.pinv(stable - middle) @ (seen - seen.mean(0))).T  # (2, 3)
    left, scales, right = np.linalg.svd(affine, full_matrices=False)
    across, down = left @ right
    rotation = np.stack([across, down, np.cross(across, down)])
    scale = float(scales.mean())
    return Pose(scale, rotation, seen.mean(0) - scale * rotation[:2] @ middle)


def calmest(driver: Points) -> int:
    """The frame of (n, 68, 2) to measure change from. Raises ValueError where no frame is whole.

    A closed mouth, open eyes, the clip's usual face and its usual pose.
    """
    whole = np.flatnonzero(np.isfinite(driver).all(axis=(1, 2)))
    if not len(whole):
        raise ValueError("no frame has landmarks")
    poses = [pose_of(driver[i], HEAD) for i in whole]
    faces = np.stack(
        [p.straighten(driver[i], HEAD[:, 2]) for i, p in zip(whole, poses, strict=True)]
    )
    eyes = np.linalg.norm(faces[:, LIDS[:, 0]] - faces[:, LIDS[:, 1]], axis=2).mean(1)
    lips = np.linalg.norm(faces[:, INNER_LIPS[0]] - faces[:, INNER_LIPS[1]], axis=1)
    unusual = np.sqrt(np.square(faces - np.median(faces, axis=0)).sum(2).mean(1))
    left, _, right = np.linalg.svd(np.mean([p.rotation for p in poses], axis=0))
    usual = left @ right
    cosine = [(np.trace(p.rotation.T @ usual) - 1) / 2 for p in poses]
    turned = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    # Millimetres and degrees that weigh alike.
    restless = lips / 5 + np.maximum(np.median(eyes) - eyes, 0) / 2 + unusual / 3 + turned / 10
    return int(whole[restless.argmin()])


class Retargeter:
    """Moves one portrait, frame by frame."""

    def __init__(self, portrait: Points, reference: Points, motion: Motion = "relative") -> None:
        """portrait: (68, 2). reference: (n, 68, 2), frames of the driver: a whole clip, or the
        first second of a live one. Raises ValueError where none of them has landmarks.
        """
        self.portrait = np.asarray(portrait, np.float64)
        self._last = self.portrait
        rest = calmest(reference)
        self._move = self._relative if motion == "relative" else self._absolute
        if motion == "absolute":
            whole = reference[np.isfinite(reference).all(axis=(1, 2))]
            self._over = similarity(whole, self.portrait)
            return
        self._own, self._rest = Head(self.portrait), Head(reference[rest])
        self._eyes = float(np.clip(self._own.eyes / max(self._rest.eyes, 1e-6), *GAINS))
        self._mouth = float(np.clip(self._own.mouth / max(self._rest.mouth, 1e-6), *GAINS))

    def __call__(self, points: Points) -> Array:
        """The portrait's landmarks for a frame of the driver, (68, 2) pixels of the portrait.

        A frame without landmarks (NaN) keeps the last ones; before the first, the portrait rests.
        """
        if np.isfinite(points).all():
            self._last = self._move(points)
        return self._last

    def _relative(self, points: Points) -> Array:
        own, rest = self._own, self._rest
        now = pose_of(points, rest.shape)
        change = now.straighten(points, rest.shape[:, 2]) - rest.shape[:, :2]
        expression = np.column_stack([self._fitted(change), np.zeros(len(change))])

        grown = own.pose.scale / rest.pose.scale
        turned = own.pose.rotation @ rest.pose.rotation.T @ now.rotation
        pose = Pose(
            grown * now.scale,
            turned_back(turned, max(FURTHEST, own.pose.away, now.away)),
            own.pose.shift
            + grown * _turn(own.pose.roll - rest.pose.roll) @ (now.shift - rest.pose.shift),
        )
        return pose.show(own.shape + expression)

    def _fitted(self, change: Array) -> Array:
        """The driver's expression in the proportions of the portrait's eyes and mouth.

        A driver's closed eye closes the portrait's, be it wider or narrower.
        """
        fitted = change.copy()
        upper, lower = change[LIDS[:, 0]], change[LIDS[:, 1]]
        middle, half = (upper + lower) / 2, self._eyes * (upper - lower) / 2
        fitted[LIDS[:, 0]], fitted[LIDS[:, 1]] = middle + half, middle - half
        mouth = change[MOUTH]
        fitted[MOUTH] = mouth.mean(0) + self._mouth * (mouth - mouth.mean(0))
        return fitted

    def _absolute(self, points: Points) -> Array:
        matrix, shift = self._over
        moved: Array = points @ matrix.T + shift
        return moved


def turned_back(rotation: Array, furthest: float) -> Array:
    """The rotation (3, 3), turned towards the camera by what it looks away beyond `furthest`."""
    look = rotation[:, 2]
    beyond = np.arccos(np.clip(look[2], -1, 1)) - furthest
    sideways = float(np.hypot(look[0], look[1]))
    if beyond <= 0 or sideways < 1e-9:
        return rotation
    axis = np.array([look[1], -look[0], 0]) / sideways  # look x camera
    around = np.cross(axis, np.eye(3)).T  # around @ v = axis x v
    back = np.eye(3) + np.sin(beyond) * around + (1 - np.cos(beyond)) * around @ around
    return np.asarray(back @ rotation)


def retarget(driver: Points, portrait: Points, motion: Motion = "relative") -> Array:
    """A clip's landmarks (n, 68, 2) as motion of a portrait (68, 2): (n, 68, 2).

    Raises ValueError where the driver has no landmarks at all.
    """
    move = Retargeter(portrait, driver, motion)
    return np.stack([move(points) for points in driver])


def smooth(points: Points, fps: float, min_cutoff: float, beta: float) -> Array:
    """A One-Euro filter over (n, 68, 2) landmarks; `beta` is for pixels of a 256 pixel square."""
    calm = OneEuro(min_cutoff, beta)
    return np.stack([calm(frame, 1 / fps) for frame in points])


def similarity(frames: Points, target: Points) -> tuple[Array, Array]:
    """Procrustes: the matrix (2, 2) and shift (2,) that lay frames (n, 68, 2), all of them by one
    similarity, nearest to the target (68, 2).
    """
    middle, goal = frames.mean(axis=(0, 1)), target.mean(axis=0)
    # As complex numbers a similarity is one multiplication.
    own = (frames - middle) @ np.array([1, 1j])
    other = (target - goal) @ np.array([1, 1j])
    factor = np.sum(own.conj() * other) / np.sum(np.abs(own) ** 2)
    matrix = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    return matrix, goal - matrix @ middle


def _turn(angle: float) -> Array:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
