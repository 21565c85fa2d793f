"""A video with one face in it: its frames at a constant rate, and the face followed through them.

Points are (68, 2), x and y in pixels; pictures (height, width, 3) RGB; boxes x, y, width, height.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError
from av.video.frame import VideoFrame

from pipelines import progress
from pipelines.errors import UserError, raise_unanswered
from pipelines.params.dataset import Crop
from pipelines.video import boxes as geometry
from pipelines.video.cutting import LONGEST_HOLD as SLOTS_HELD
from pipelines.video.encode import CropFilter
from pipelines.video.exact import ToRgb
from pipelines.video.extent import missing_end
from pipelines.video.grid import GRID, FrameTimes, container_start
from pipelines.video.probe import (
    BACK,
    HDR,
    MediaError,
    mean_rate,
    open_container,
    upright,
    video_stream,
)
from pipelines.video.scenes import picture_means, scene_score
from pipelines.video.stamps import frame_decoder, stamped_as_decoded
from training.faces import (
    MARGIN,
    STORED,
    Finder,
    Picture,
    Points,
    choose,
    face_box,
    found_again,
    shown,
)

LOOKS = 5
"""Times a second that a video is searched for where the face is."""
VIEW = 960
"""Pixels of the longer side of what is searched."""
SMOOTH = Crop().smooth
"""Seconds over which boxes are smoothed: the dataset's."""
LONGEST_HOLD = SLOTS_HELD // GRID
"""Seconds for which one frame may stand. More is a damaged timestamp."""
CUT = Crop().scene_threshold
"""Scene score above which a clip looks cut: the dataset's own."""
CHUNK = 1000
"""Frames in memory at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Footage:
    """A video with one face: its landmarks in a square that stands still for the whole clip.

    Frames come at a constant rate, the video's own mean rate: each shows what the video shows at
    that time, counted from the start of the container, so that sound stays in sync.
    """

    path: Path
    fps: Fraction
    side: int
    """Pixels of the crop."""
    crop: geometry.Crop
    points: Points
    """(n, 68, 2) pixels of the crop; where no face was found, between their neighbours'."""
    found: npt.NDArray[np.bool_]
    """(n,)."""
    cut: int | None = None
    """The frame at which the scene seems to change."""
    faults: tuple[str, ...] = ()
    """What is wrong with the file, as `Film.faults` has it."""

    def remarks(self) -> list[str]:
        """What people should know of it, a line each."""
        name = self.path.name
        said = [f"{name} {fault}" for fault in self.faults]
        if missing := int((~self.found).sum()):
            said.append(f"{missing} of {len(self.found)} frames of {name} do not show this face")
        if self.cut is not None:
            at = float(self.cut / self.fps)
            said.append(f"{name} looks cut at {at:.1f} s: is it the same person from there on?")
        return said

    def pictures(self, numbers: Iterable[int] | None = None) -> Iterator[Picture]:
        """The crops (side, side, 3), decoded anew; only those numbers, in order, where given."""
        wanted = None if numbers is None else set(numbers)
        film = Film(self.path)
        for number, picture in enumerate(film.crops(self.crop, self.side)):
            if wanted is None or number in wanted:
                yield picture


class Film:
    """The frames of a video file at a constant rate. Raises UserError where there are none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with _opened(path) as container:
            stream = _stream(path, container)
            self._as_decoded = stamped_as_decoded(path)
            self.fps = _mean_rate(path, stream).limit_denominator(1001)
            seconds = (container.duration or 0) / av.time_base
            self.about = round(seconds * self.fps) or None
            """Frames, by what the header says of the length."""
            first = next(iter(self), None)
            if first is None:
                raise UserError(f"{path}: no frame of this video decodes")
            self.turn, self.width, self.height, sar = upright(first, stream)
            self.sar = float(sar)
            self._hdr = stream.codec_context.color_trc in HDR
        self._damaged = 0
        """Packets that did not decode when the film was last read."""

    def faults(self) -> tuple[str, ...]:
        """What is wrong with the file, each as it follows its name; whole once all was read."""
        said = []
        if missing := missing_end(self.path):
            said.append(f"ends before its end: {missing}; only what is there was read")
        if self._damaged:
            said.append(f"is damaged: {self._damaged} packets of pictures do not decode")
        if self._hdr:
            said.append("is HDR: its colours come out pale; convert it to SDR first")
        return tuple(said)

    def __iter__(self) -> Iterator[VideoFrame]:
        """Frame k is what is shown at k / fps: the last whose time rounds to k or before."""
        with _opened(self.path) as container:
            stream = _stream(self.path, container)
            base = stream.time_base or Fraction(1, 1000)
            start = container_start(container, base)
            held: VideoFrame | None = None
            at = before = 0
            self._damaged = 0
            for frame in self._decoded(container, stream):
                # A stream without timestamps has one frame a slot.
                slot = at if held is None else at + 1
                if frame.pts is not None:
                    slot = round((frame.pts - start) * base * self.fps)
                if slot - at > LONGEST_HOLD * self.fps:
                    raise UserError(
                        f"{self.path}: no frame for {float((slot - at) / self.fps):.0f} s at "
                        f"{float(at / self.fps):.0f} s, its timestamps leap; encode it anew"
                    )
                if held is not None and before - slot > BACK * self.fps:
                    raise UserError(
                        f"{self.path}: its timestamps go back by "
                        f"{float((before - slot) / self.fps):.1f} s at {float(at / self.fps):.1f} "
                        "s, as of several recordings in one file; encode it anew"
                    )
                before = slot
                for _ in range(slot - at):
                    yield held or frame  # the first also stands for what precedes it
                at, held = max(at, slot), frame
            if held is not None:
                yield held

    def _decoded(self, container: Any, stream: Any) -> Iterator[VideoFrame]:
        """Frames in order; packets that do not decode are passed over, as a player does."""
        packets, decode = container.demux(stream), frame_decoder(container, self._as_decoded)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, FFmpegError) as error:  # the end, or a container cut short
                raise_unanswered(error)
                return
            try:
                yield from decode(packet)
            except FFmpegError as error:
                raise_unanswered(error)
                self._damaged += 1

    def crops(self, crop: geometry.Crop, side: int) -> Iterator[Picture]:
        """Every frame cut to a square of `side` pixels."""
        cutter: CropFilter | None = None
        to_rgb = ToRgb()
        for frame in self:
            if cutter is None or not cutter.fits(frame):
                size = (self.width, self.height)
                cutter = CropFilter(frame, self.turn, size, crop, side)
            yield to_rgb(cutter.cut(frame, 0))

    def views(self) -> Iterator[tuple[int, Picture]]:
        """Number and whole picture, in a square, of `LOOKS` frames a second."""
        step = max(1, round(self.fps / LOOKS))
        crop, side = self.view
        for number, picture in enumerate(self.crops(crop, side)):
            if number % step == 0:
                yield number, picture

    @property
    def view(self) -> tuple[geometry.Crop, int]:
        """The square around the whole picture, and the side it is searched at."""
        whole = geometry.ready(None, self.width, self.height, self.sar)
        return whole, min(VIEW, max(STORED, max(whole.size)))


def follow(
    path: Path, finder: Finder, side: int = STORED, which: int | None = None, option: str = "--face"
) -> Footage:
    """Find the face of a video and follow it. Raises UserError.

    Several faces in the first frame that has any are an error unless `which` names one.
    """
    film = Film(path)
    numbers, faces = _track(film, finder, which, option)
    smooth = geometry.smooth(faces, round(SMOOTH * LOOKS))
    crop = geometry.still(smooth, MARGIN, film.sar)

    boxes = geometry.into_crop(faces, crop, side)
    points, found, means = [], [], []
    pictures = film.crops(crop, side)
    at = 0
    with progress.simple("follow", "frames", film.about) as advance:
        while chunk := list(islice(pictures, CHUNK)):
            times = np.arange(at, at + len(chunk))
            near = np.stack([np.interp(times, numbers, column) for column in boxes.T], axis=1)
            near = near.astype(np.float32)
            marks = finder.detect(np.stack(chunk), near)
            found.append(shown(marks, near))
            points.append(marks.points)
            means += [picture_means(picture[..., 1]) for picture in chunk]
            at += len(chunk)
            advance(len(chunk))
    seen = np.concatenate(found)
    if not seen.any():
        raise UserError(f"{path}: no face found in the video; give one that shows a face")
    score, frame = scene_score(np.stack(means))
    cut = frame if score > CUT else None
    every = fill(np.concatenate(points), seen)
    return Footage(path, film.fps, side, crop, every, seen, cut, film.faults())


def _mean_rate(path: Path, stream: Any) -> Fraction:
    """Frames a second: the container's word, else counted, as in a browser's recordings."""
    rate = mean_rate(stream)
    if rate is None:
        seconds = FrameTimes.of(path).seconds
        lasts = seconds[-1] - seconds[0] if len(seconds) else 0
        rate = Fraction((len(seconds) - 1) / lasts) if lasts else None
    return Fraction(rate or 25)


def _shown(film: Film) -> Iterator[tuple[int, Picture]]:
    """The film's views, with progress."""
    seen = 0
    with progress.simple("find face", "frames", film.about) as advance:
        for number, view in film.views():
            advance(number - seen)
            seen = number
            yield number, view


def _track(
    film: Film, finder: Finder, which: int | None, option: str
) -> tuple[list[int], geometry.Boxes]:
    """Frame numbers and boxes (n, 4), in pixels of the upright picture, of one face."""
    numbers: list[int] = []
    boxes: list[npt.NDArray[np.float64]] = []
    for number, view in _shown(film):
        points = finder.near(view, boxes[-1]) if boxes else None
        if points is None:
            faces = finder.all(view)
            if boxes:
                points = found_again(faces, boxes[-1])
            elif faces:
                points = choose(faces, which, film.path, option)
        if points is None:
            continue
        numbers.append(number)
        boxes.append(face_box(points))
    if not boxes:
        raise UserError(f"{film.path}: no face found in the video; give one that shows a face")
    crop, side = film.view
    scale = crop.boxes[0, 2:] / side
    found = np.stack(boxes)
    found[:, :2] = found[:, :2] * scale + crop.boxes[0, :2]
    found[:, 2:] *= scale
    return numbers, found


def fill(points: Points, found: npt.NDArray[np.bool_]) -> Points:
    """(n, 68, 2) with the frames not found put on straight lines between their neighbours'."""
    flat = points.reshape(len(points), -1)
    known = np.flatnonzero(found)
    every = np.arange(len(points))
    columns = [np.interp(every, known, column[known]) for column in flat.T]
    return np.stack(columns, axis=1).reshape(points.shape).astype(np.float32)


def _opened(path: Path) -> Any:
    try:
        return open_container(path)
    except FileNotFoundError:
        hint = "; a URL must be fetched first" if re.match("[a-z]+:/", str(path)) else ""
        raise UserError(f"{path}: no such file{hint}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; name a video in it") from None
    except MediaError as error:
        raise UserError(f"{path}: not a video ({error.detail})") from None


def _stream(path: Path, container: Any) -> Any:
    try:
        return video_stream(container)
    except MediaError as error:
        raise UserError(f"{path}: not a video ({error.detail})") from None
