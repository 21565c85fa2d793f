"""One clip under way: where to crop, which frames belong to it, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame

from pipelines import storage
from pipelines.statuses import Status
from pipelines.video import boxes as geometry
from pipelines.video.encode import ClipFile, CropFilter
from pipelines.video.frames import FrameReader, ShownFrame
from pipelines.video.grid import GRID, LONGEST, Span
from pipelines.video.probe import HDR, MOST_PIXELS, reason
from pipelines.video.scenes import BlockMeans, block_means, scene_score
from pipelines.video.sound import read_sound
from pipelines.video.types import ClipResult, ClipSpec, CropSettings

MISSING_TAIL = 2
"""Frames that may lack at the end of a clip: encoders at the upload round lengths."""

LONGEST_HOLD = 60 * GRID
"""Slots that one frame may stand for inside a clip. More is a damaged timestamp."""

STILL = GRID
"""Slots of one frame above which a clip's `detail` tells of it."""


def _remarks(frame: VideoFrame) -> list[str]:
    """What a clip's `detail` tells of its pictures, as the first of them is."""
    said = ["HDR: its colours come out pale"] if frame.color_trc in HDR else []
    return said + ["interlaced"] * frame.interlaced_frame


class ClipCutter:
    """Takes frames in the order of their slots, cuts and encodes those of one clip.

    `at` is the next slot wanted, up to `stop`. `verdict` is a status and its detail once the clip
    has failed: then no more frames are wanted.
    """

    def __init__(
        self, spec: ClipSpec, span: Span, settings: CropSettings, source: FrameReader
    ) -> None:
        self.spec, self.settings = spec, settings
        self.first, self.stop, self.at = span.first, span.stop, span.first
        self.verdict: tuple[Status, str] | None = None
        self._source = source
        self._notes: list[str] = []
        self._longest = 0
        """Slots of the clip for which one frame stood."""
        self._means: list[tuple[int, BlockMeans]] = []
        self._filter: CropFilter | None = None
        self._file: ClipFile | None = None
        self._last: VideoFrame | None = None
        self._face_size: float | None = None
        frames = span.stop - span.first
        if frames < 1:
            self.verdict = (Status.TOO_SHORT, f"0 frames at {GRID} fps")
        elif frames > LONGEST:
            detail = f"longer than {LONGEST // GRID} s: no clip, or a damaged header"
            self.verdict = (Status.OUT_OF_RANGE, detail)
        else:
            self._place(span)

    @property
    def done(self) -> bool:
        """Are no more frames wanted?"""
        return self.verdict is not None or self.at >= self.stop

    def _place(self, span: Span) -> None:
        """Decide on the boxes."""
        spec, settings, source = self.spec, self.settings, self._source
        width, height, sar = source.width, source.height, float(source.sar)
        self._faces: geometry.Boxes | None = None
        if spec.boxes is not None and len(spec.boxes):
            faces = geometry.to_pixels(spec.boxes, spec.box_height, width, height, sar)
            if not (np.isfinite(faces).all() and (faces[:, 2:] > 0).all()):
                self.verdict = (Status.OUT_OF_RANGE, "a box has no extent")
                return
            if len(faces) > 1:
                faces = faces[np.minimum(span.rows, len(faces) - 1)]
            self._faces = faces
        if self._faces is None or spec.crop_ready:
            self._crop = geometry.ready(self._faces, width, height, sar)
        else:
            self._face_size = float(np.median(self._faces[:, 2:].min(axis=1)))
            steady = geometry.smooth(self._faces, round(settings.smooth * GRID))
            square = geometry.moving if settings.policy == "track" else geometry.still
            self._crop = square(steady, settings.margin, sar)
        left, top, right, bottom = self._crop.overhang(width, height)
        if (left + width + right) * (top + height + bottom) > MOST_PIXELS:
            detail = f"a box reaches far beyond the {width}x{height} picture"
            self.verdict = (Status.OUT_OF_RANGE, detail)
        elif geometry.outside(self._crop, width, height):
            self.verdict = (Status.OUT_OF_RANGE, f"a box lies outside the {width}x{height} picture")

    def show(self, shown: ShownFrame) -> None:
        """Encode a frame in those of its slots that belong to the clip."""
        stop = min(shown.stop, self.stop)
        if self.verdict or stop <= self.at:
            return
        damage = shown.damage
        self._longest = max(self._longest, stop - self.at)
        if self._longest > LONGEST_HOLD:
            damage = f"no frame for {(stop - self.at) / GRID:.0f} s: the timestamps leap"
        if damage:
            self.verdict = (Status.DECODE_ERROR, f"at {self.at / GRID:.2f} s: {damage}")
            return
        start = self.at
        try:
            picture = self._cut(shown.frame)
            self._encode(picture)
            while self.at < stop:
                if len(self._crop.boxes) > 1:
                    picture = self._cut(shown.frame)
                self._encode(picture)
            self._means.append((start, block_means(picture)))
        except FFmpegError as error:
            self.verdict = (Status.DECODE_ERROR, f"at {self.at / GRID:.2f} s: {reason(error)}")

    def _cut(self, frame: VideoFrame) -> VideoFrame:
        if self._filter is None:
            self._notes += _remarks(frame)
        if self._filter is None or not self._filter.fits(frame):
            source = self._source
            self._filter = CropFilter(
                frame,
                source.turn,
                (source.width, source.height),
                self._crop,
                self.settings.size,
            )
        return self._filter.cut(frame, (self.at - self.first) % len(self._crop.boxes))

    def _encode(self, picture: VideoFrame) -> None:
        if self._file is None:
            frames = self.stop - self.first
            rate = self.settings.audio_rate
            sound, note = read_sound(self._source.path, self.first, frames, rate)
            if note:
                self._notes.append(note)
            self._file = ClipFile(self.settings, picture, sound)
        self._file.add(picture)
        self._last = picture
        self.at += 1

    def end(self, end: int, damage: str) -> None:
        """The video is over at slot `end`: repeat the last frame where it falls just short."""
        missing = self.stop - self.at
        if self.verdict or missing <= 0:
            return
        if damage:
            self.verdict = (Status.DECODE_ERROR, f"at {end / GRID:.2f} s: {damage}")
        elif self._last is None or self.first >= end:
            detail = f"starts at {self.first / GRID:.2f} s, the video ends at {end / GRID:.2f} s"
            self.verdict = (Status.OUT_OF_RANGE, detail)
        elif missing > MISSING_TAIL:
            # The video's own frames, as `fps` null counts them, have no places beyond its end.
            count = f"{missing} frames lie" if self.spec.fps is not None else "it reaches"
            detail = f"{count} beyond the end of the video at {end / GRID:.2f} s"
            self.verdict = (Status.OUT_OF_RANGE, detail)
        else:
            for _ in range(missing):
                self._encode(self._last)
            self._notes.append(f"the last frame is repeated {missing} times: the video ends there")

    def finish(self, open_output: Callable[[str], Path]) -> ClipResult:
        """Close the clip and write it, or say why not. Raises OSError where it cannot write."""
        if self._longest > STILL:
            self._notes.append(f"one frame stands for {self._longest / GRID:.1f} s")
        score, scene_at = None, None
        if self._means and not self.verdict:
            score, row = scene_score(np.stack([means for _, means in self._means]))
            scene_at = self._means[row][0] / GRID
        status, detail = self.verdict or (Status.OK, "; ".join(self._notes))
        source = self._source
        result = ClipResult(
            self.spec.key,
            status,
            detail,
            first_frame=self.first,
            frames=max(0, self.stop - self.first),
            source_width=source.width,
            source_height=source.height,
            face_size=self._face_size,
            scene_score=score,
            scene_at=scene_at,
        )
        if self.verdict:
            return result
        assert self._file is not None
        path = open_output(self.spec.key)
        storage.write_bytes(str(path), self._file.close())
        faces = None
        if self._faces is not None:
            faces = geometry.into_crop(self._faces, self._crop, self.settings.size)
        return replace(
            result,
            path=path,
            has_audio=self._file.has_audio,
            crop_boxes=self._crop.boxes.astype(np.float32),
            face_boxes=None if faces is None else faces.astype(np.float32),
            padding=self._crop.padding(source.width, source.height),
        )
