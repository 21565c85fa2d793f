"""What is asked of the crop kernel, and what it answers, clip by clip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.statuses import Status
from pipelines.video.grid import GRID


@dataclass(frozen=True, slots=True)
class ClipSpec:
    """One annotated clip; the fields mean what they do in `schemas.CATALOG`."""

    key: str
    first_frame: int | None = None
    frames: int | None = None
    fps: float | None = float(GRID)
    segment_start: float | None = None
    boxes: NDArray[np.float32] | None = None
    box_height: int | None = None
    crop_ready: bool = False


@dataclass(frozen=True, slots=True)
class CropSettings:
    """How clips are cut and encoded."""

    size: int = 256
    """Side of the clips in pixels; even."""
    policy: Literal["clip", "track"] = "clip"
    """One square for the whole clip, or one that follows the face at constant scale."""
    margin: float = 0.6
    """The square's side is that of the face box times 1 + margin."""
    smooth: float = 0.4
    """Seconds over which boxes are smoothed."""
    crf: int = 16
    preset: str = "veryfast"
    """With crf 16 as near the source as `medium` at crf 18, in less than half the time."""
    audio_rate: int = 16000
    """Samples a second."""
    audio_bitrate: int = 64000
    """Bits a second."""


@dataclass(frozen=True, slots=True)
class ClipResult:
    """What became of one clip; CROPS columns of the same name mean the same."""

    key: str
    status: Status
    detail: str = ""
    path: Path | None = None
    """The file written; None unless ok."""
    first_frame: int = 0
    """Slot of the first frame on the 25 fps grid of the source."""
    frames: int = 0
    has_audio: bool = False
    crop_boxes: NDArray[np.float32] | None = None
    """(1 or frames, 4), pixels of the upright source."""
    face_boxes: NDArray[np.float32] | None = None
    """(1 or frames, 4), pixels of the clip; None where no box was annotated."""
    padding: float | None = None
    """Share of the crop that lies outside the picture, 0..1."""
    face_size: float | None = None
    """Median shorter side of the annotated face, source pixels; None: not annotated, or ready."""
    scene_score: float | None = None
    scene_at: float | None = None
    """Seconds of the source at which the picture changes most."""
    source_width: int = 0
    source_height: int = 0
