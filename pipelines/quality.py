"""How good are the frames of a clip, and is the clip worth keeping.

Everything here comes from the pixels and the landmarks, whichever backend found them: numpy
alone, about 0.3 ms a frame of a 256x256 crop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import numpy as np
import numpy.typing as npt

from pipelines.detectors.base import Landmarks, share_inside
from pipelines.statuses import Status

Array = npt.NDArray[np.float32]

SHARPNESS_CELLS = 48
"""The face is resampled to this many cells along its longer side before sharpness is measured."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601

# An average head: 16 points in millimetres, x to the picture's right, y down, z away from the
# camera. Measured on 49 people with MediaPipe's depth, made symmetric, scaled to 90 mm between
# the outer corners of the eyes and turned so that the median talking head looks straight ahead.
_HEAD = {
    36: (-45.0, -34.0, 18.3),  # corners of the eyes
    39: (-17.5, -32.8, 12.9),
    42: (17.5, -32.8, 12.9),
    45: (45.0, -34.0, 18.3),
    27: (0.0, -38.7, -3.4),  # bridge of the nose to its tip
    28: (0.0, -23.8, -13.0),
    29: (0.0, -10.1, -24.3),
    30: (0.0, -1.4, -26.8),
    31: (-16.5, 10.3, -1.4),  # base of the nose
    32: (-7.2, 12.1, -7.8),
    33: (0.0, 12.1, -9.5),
    34: (7.2, 12.1, -7.8),
    35: (16.5, 10.3, -1.4),
    48: (-25.2, 35.4, 9.9),  # corners of the mouth
    54: (25.2, 35.4, 9.9),
    8: (0.0, 80.0, 13.2),  # chin
}
HEAD_POINTS = list(_HEAD)
HEAD = np.array(list(_HEAD.values()))
_TO_AFFINE = np.linalg.pinv(HEAD - HEAD.mean(axis=0))  # (3, 16)


@dataclass(frozen=True, slots=True, eq=False)
class Measures:
    """One float32 value per frame; NaN where no face was found (confidence: 0)."""

    confidence: Array
    """The detector's own, 0..1."""
    sharpness: Array
    """Variance of the Laplacian of luma, grey levels squared, at a fixed size of the face."""
    face_size: Array
    """Longer side of the landmarks' bounding box, pixels."""
    yaw: Array
    """Degrees, > 0: the face turns towards the picture's right."""
    pitch: Array
    """Degrees, > 0: the face looks up."""
    roll: Array
    """Degrees, > 0: the head leans clockwise in the picture."""
    overlap: Array
    """Share of the landmarks in the annotated box, 0..1; NaN where nothing is annotated."""

    @property
    def detected(self) -> npt.NDArray[np.bool_]:
        """(frames,): where a face was found."""
        return np.isfinite(self.face_size)

    def arrays(self) -> dict[str, Array]:
        """The measures by name, to be stored."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Measures:
        """The inverse of `arrays`; more names are ignored, a missing one is a KeyError."""
        return cls(**{f.name: arrays[f.name] for f in fields(cls)})


@dataclass(frozen=True, slots=True)
class Limits:
    """What a clip must reach. A limit equal to the measure passes."""

    min_confidence: float = 0.5
    """Mean over the detected frames."""
    min_sharpness: float = 25.0
    """Median over the detected frames."""
    max_yaw: float = 75.0
    """Median of the absolute angle, degrees; likewise the next two."""
    max_pitch: float = 45.0
    max_roll: float = 45.0
    min_detected: float = 0.8
    """Share of the frames that show a face."""
    min_overlap: float = 0.5
    """Mean share of the landmarks inside the annotated box."""


def measure(
    frames: npt.NDArray[np.uint8],
    landmarks: Landmarks,
    face_boxes: npt.NDArray[np.float32] | None,
) -> Measures:
    """Measure every frame of a clip.

    frames: (n, height, width, 3) RGB. face_boxes: (n, 4) or (1, 4) x, y, w, h in pixels, or None.
    """
    points = landmarks.points
    n = len(points)
    low, high = points.min(axis=1), points.max(axis=1)  # NaN spreads: (n, 2)
    yaw, pitch, roll = pose(points)
    overlap = np.full(n, np.nan, np.float32)
    detected = np.isfinite(points).all(axis=(1, 2))
    if face_boxes is not None:
        boxes = np.broadcast_to(face_boxes, (n, 4))
        overlap[detected] = share_inside(points[detected], boxes[detected])
    blurs = np.full(n, np.nan, np.float32)
    for i in np.flatnonzero(detected):
        blurs[i] = sharpness(frames[i], low[i], high[i])
    return Measures(
        confidence=landmarks.confidence.astype(np.float32),
        sharpness=blurs,
        face_size=(high - low).max(axis=1),
        yaw=yaw,
        pitch=pitch,
        roll=roll,
        overlap=overlap,
    )


def summary(measures: Measures) -> dict[str, float | None]:
    """One number per measure for the clip's row in `schemas.LANDMARKS`; None where undefined.

    Means of the confidence and the overlap, medians of the rest, over the detected frames.
    """
    seen = measures.detected
    values: dict[str, float | None] = {}
    for name, array in measures.arrays().items():
        known = array[seen & np.isfinite(array)]
        centre = np.mean if name in ("confidence", "overlap") else np.median
        values[name] = float(centre(known)) if len(known) else None
    return values


def verdict(measures: Measures, limits: Limits) -> tuple[Status, str]:
    """Judge a clip: its status and, unless it is ok, the number and the limit it missed.

    The first miss counts, in the order: is there a face, is it the annotated one, in enough
    frames, are the points to be trusted, is it sharp, is it turned towards us.
    """
    seen = measures.detected
    frames, found = len(seen), int(seen.sum())
    if not found:
        return Status.NO_FACE, f"a face in 0 of {frames} frames"
    clip = summary(measures)
    overlap, confidence, sharp = clip["overlap"], clip["confidence"], clip["sharpness"]
    if overlap is not None and overlap < limits.min_overlap:
        share = f"{overlap:.2f} of the landmarks in the annotated box"
        return Status.WRONG_FACE, f"{share}, min_overlap is {limits.min_overlap:g}"
    if found < limits.min_detected * frames:
        share = f"a face in {found} of {frames} frames ({found / frames:.2f})"
        return Status.FEW_FRAMES, f"{share}, min_detected is {limits.min_detected:g}"
    if confidence is not None and confidence < limits.min_confidence:
        detail = f"confidence {confidence:.2f}, min_confidence is {limits.min_confidence:g}"
        return Status.LOW_CONFIDENCE, detail
    if sharp is not None and sharp < limits.min_sharpness:
        detail = f"sharpness {sharp:.1f}, min_sharpness is {limits.min_sharpness:g}"
        return Status.BLURRED, detail
    for name in ("yaw", "pitch", "roll"):
        angle = float(np.median(np.abs(getattr(measures, name)[seen])))
        limit = asdict(limits)[f"max_{name}"]
        if angle > limit:
            return Status.EXTREME_POSE, f"{name} {angle:.0f} degrees, max_{name} is {limit:g}"
    return Status.OK, ""


def pose(points: Array) -> tuple[Array, Array, Array]:
    """Yaw, pitch and roll in degrees, each (n,), of (n, 68, 2) points in pixels.

    Weak perspective in closed form: the best affine map of the average head onto the points,
    then the nearest scaled rotation. The head pitches first, then yaws, then rolls in the
    plane of the picture. The absolute value carries the person's own shape: about 5 degrees.
    """
    angles = np.full((3, len(points)), np.nan, np.float32)
    seen = np.isfinite(points).all(axis=(1, 2))
    if not seen.any():
        return angles[0], angles[1], angles[2]
    picked = points[seen][:, HEAD_POINTS].astype(np.float64)
    picked -= picked.mean(axis=1, keepdims=True)
    affine = np.einsum("kp,npc->nck", _TO_AFFINE, picked)  # (n, 2, 3)
    left, _, right = np.linalg.svd(affine, full_matrices=False)
    across, down = np.moveaxis(left @ right, 1, 0)  # the first two rows of the rotation
    away = np.cross(across, down)
    angles[0, seen] = np.degrees(np.arcsin(np.clip(away[:, 0], -1, 1)))
    angles[1, seen] = np.degrees(np.arctan2(-away[:, 1], away[:, 2]))
    angles[2, seen] = np.degrees(np.arctan2(down[:, 0], across[:, 0]))
    return angles[0], angles[1], angles[2]


def sharpness(frame: npt.NDArray[np.uint8], low: Array, high: Array) -> float:
    """Variance of the Laplacian of luma over the box low..high, (2,) x, y pixels each.

    The box is first averaged down to `SHARPNESS_CELLS` along its longer side: the number tells
    how much detail the face has, not how large it was stored. 0 for a box outside the frame.
    """
    cell = max(float((high - low).max()) / SHARPNESS_CELLS, 1e-3)
    x0, y0 = np.maximum(low, 0)
    x1, y1 = np.minimum(high, frame.shape[1::-1])
    columns = np.arange(x0, x1, cell, dtype=np.float64)
    rows = np.arange(y0, y1, cell, dtype=np.float64)
    if len(rows) < 4 or len(columns) < 4:
        return 0.0
    left, top = int(x0), int(y0)
    patch = frame[top : int(np.ceil(y1)), left : int(np.ceil(x1))]
    # Written out: the last bits of BLAS's products are each processor's own.
    red, green, blue = np.moveaxis(patch.astype(np.float32) * _LUMA, -1, 0)
    luma = red + green + blue
    small = _area_mean(_area_mean(luma, rows - top).T, columns - left)
    laplacian = (
        (small[:-2, 1:-1] + small[2:, 1:-1])
        + (small[1:-1, :-2] + small[1:-1, 2:])
        - 4 * small[1:-1, 1:-1]
    )
    return float(laplacian.var())


def _area_mean(values: Array, edges: npt.NDArray[np.float64]) -> Array:
    """Means of (n, m) values over the intervals between edges, along the first axis."""
    total = np.zeros((len(values) + 1, values.shape[1]), np.float32)
    np.cumsum(values, axis=0, out=total[1:])
    whole = np.minimum(edges.astype(int), len(values) - 1)
    part = (edges - whole).astype(np.float32)[:, None]
    means: Array = np.diff(total[whole] + part * values[whole], axis=0)
    means /= np.float32(edges[1] - edges[0])
    return means
