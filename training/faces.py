"""Faces for the networks: found in pictures and videos, cut out as the dataset's crops are.

A crop must show the face as the shards do, or its landmarks sit where no network expects them. The
dataset's boxes come from a face detector and are widened by `margin` 0.6; here only landmarks are
known. On 149 clips of a real rebuild the box that a detector gave was a square of 1.31 times (1.19
to 1.39 for 90 % of them) the longer side of the landmarks' bounding box, its centre 0.16 (0.10 to
0.20) of that side above theirs: `face_box`. With the dataset's own rule for still crops
(`pipelines.video.boxes`) this gives squares of 0.95 to 1.1 times the side of the dataset's and
centred within 3 % of it.

Points are (68, 2), x and y in pixels; pictures (height, width, 3) RGB; boxes x, y, width, height.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from av.error import FFmpegError
from av.video.frame import VideoFrame
from PIL import Image, ImageOps, UnidentifiedImageError

from pipelines import detectors
from pipelines.detectors.base import DetectorUnavailable, cut, share_inside
from pipelines.errors import UserError
from pipelines.video import boxes as geometry
from pipelines.video.encode import CropFilter
from pipelines.video.grid import container_start
from pipelines.video.probe import (
    MOST_PIXELS,
    MediaError,
    open_container,
    upright,
    video_stream,
)
from training.rasterize import rasterize

Picture = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float32]

MARGIN = 0.6
"""Of the dataset's crops."""
BOX_SIDE, BOX_RAISED = 1.31, 0.16
"""Of a detector's face box, in longer sides of the landmarks' own."""
STORED = 256
"""Side of the dataset's crops, in which landmarks are found; larger for larger networks."""
SMALLEST = 24
"""Pixels of the landmarks' longer side: with less there is no face to learn from."""
SURE = 0.5
"""Score of a face detector, and share of the landmarks that must lie in the box it gave."""
LOOKS = 5
"""Times a second that a video is searched for where the face is."""
VIEW = 960
"""Pixels of the longer side of what is searched."""
SMOOTH = 0.4
"""Seconds over which boxes are smoothed: the dataset's."""
LONGEST_HOLD = 60
"""Seconds for which one frame may stand. More is a damaged timestamp."""
CHUNK = 1000
"""Frames in memory at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """A face as the dataset stores them: a square crop and its landmarks."""

    picture: Picture
    """(side, side, 3)."""
    points: Points
    """In pixels of the crop."""


class Finder:
    """A landmark detector with what it takes to find its faces; built once."""

    def __init__(self, backend: str = "mediapipe", device: str = "cpu") -> None:
        """MediaPipe tells how many faces there are, whichever backend places the landmarks.

        Raises UserError where a library or its weights are missing.
        """
        on = "cpu" if backend == "mediapipe" else device
        try:
            self.detect = detectors.load(backend, on)
            self._searchers = _face_detectors()
        except DetectorUnavailable as error:
            raise UserError(str(error)) from None
        self.backend = backend

    def all(self, picture: Picture) -> list[Points]:
        """The landmarks of every face, left to right.

        A face that fills the picture or is tiny is missed as it is: it is tried again with a
        border around it, and enlarged.
        """
        height, width = picture.shape[:2]
        border = max(height, width) // 4
        views = [(1, 0), (1, border)] + [(2, 0)] * (max(height, width) <= 2 * STORED)
        for scale, around in views:
            view = _enlarged(picture, scale, around)
            faces: list[Points] = []
            for box in self._boxes(view):
                points = self.near(view, box)
                if points is not None and not any(_same(points, other) for other in faces):
                    faces.append(points)
            if faces:
                found = [((points - around) / scale).astype(np.float32) for points in faces]
                return sorted(found, key=lambda points: float(points[:, 0].mean()))
        return []

    def near(self, picture: Picture, box: npt.NDArray[Any]) -> Points | None:
        """The landmarks of the face in a box (4,), or None."""
        boxes = np.asarray(box, np.float32)[None]
        points = self.detect(picture[None], boxes).points
        return points[0] if share_inside(points, boxes)[0] >= SURE else None

    def _boxes(self, picture: Picture) -> Iterator[npt.NDArray[np.float32]]:
        """What either of two detectors, for near and for far faces, takes for a face."""
        size = np.array([picture.shape[1], picture.shape[0]] * 2, np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # protobuf's, about calls of MediaPipe's own
            for searcher in self._searchers:
                for found in searcher.process(np.ascontiguousarray(picture)).detections or ():
                    at = found.location_data.relative_bounding_box
                    yield np.array([at.xmin, at.ymin, at.width, at.height], np.float32) * size


def _face_detectors() -> list[Any]:
    try:
        from mediapipe import solutions

        from pipelines.detectors.mediapipe import _without_chatter
    except ImportError as error:
        raise DetectorUnavailable(
            f"faces are searched for with MediaPipe, which cannot be imported ({error}): "
            "pip install 'likeness[mediapipe]'"
        ) from error
    with _without_chatter():
        searchers = [
            solutions.face_detection.FaceDetection(SURE, model_selection=far) for far in (0, 1)
        ]
        for searcher in searchers:  # models are opened with the first picture
            searcher.process(np.zeros((64, 64, 3), np.uint8))
    return searchers


def _enlarged(picture: Picture, scale: int, border: int) -> Picture:
    if scale > 1:
        size = (picture.shape[1] * scale, picture.shape[0] * scale)
        picture = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))
    return np.pad(picture, ((border, border), (border, border), (0, 0)))


def _same(one: Points, other: Points) -> bool:
    """Do two sets of landmarks lie on one face?"""
    apart = float(np.linalg.norm(one.mean(0) - other.mean(0)))
    return apart < 0.5 * max(face_size(one), face_size(other))


def face_size(points: Points) -> float:
    """Longer side of the landmarks' bounding box, pixels."""
    return float(np.ptp(points, axis=0).max())


def face_box(points: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """The box (..., 4) that a face detector would give to landmarks (..., 68, 2); see above."""
    low, high = points.min(-2).astype(np.float64), points.max(-2).astype(np.float64)
    longer = (high - low).max(-1, keepdims=True)
    centre = (low + high) / 2 - longer * np.array([0, BOX_RAISED])
    side = longer * BOX_SIDE
    return np.concatenate([centre - side / 2, side, side], axis=-1)


def choose(faces: Sequence[Points], which: int | None, path: Path, option: str) -> Points:
    """The one face, or number `which` from the left. Raises UserError with what there is."""
    if not faces:
        raise UserError(
            f"{path}: no face found; give a picture that shows one from the front, not too small"
        )
    sizes = ", ".join(f"{n}: {face_size(face):.0f} px" for n, face in enumerate(faces, start=1))
    if which is None and len(faces) > 1:
        raise UserError(
            f"{path}: {len(faces)} faces, from left to right {sizes}; name one with {option} N"
        )
    if which is not None and not 1 <= which <= len(faces):
        raise UserError(f"{path}: there is no face {which}, but {sizes}; name one with {option} N")
    face = faces[(which or 1) - 1]
    if face_size(face) < SMALLEST:
        raise UserError(
            f"{path}: the face is {face_size(face):.0f} pixels large, it must be {SMALLEST}; "
            "give a larger picture"
        )
    return face


# --- pictures --------------------------------------------------------------------------------


FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
"""That are read: none that starts a program, as EPS does."""


def read_picture(path: Path) -> Picture:
    """A picture file, upright, on white where it is transparent. Raises UserError."""
    try:
        with Image.open(path, formats=FORMATS) as file:
            if file.width * file.height > MOST_PIXELS:  # before it takes memory
                raise Image.DecompressionBombError
            image = ImageOps.exif_transpose(file)
            if image.has_transparency_data:
                image = image.convert("RGBA")
                white = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(white, image)
            picture = np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; name a picture in it") from None
    except Image.DecompressionBombError:
        raise UserError(f"{path}: too many pixels; scale it down") from None
    except (OSError, SyntaxError, ValueError) as error:
        why = "not a picture" if isinstance(error, UnidentifiedImageError) else str(error)
        raise UserError(f"{path}: cannot be read as a picture ({why})") from None
    if min(picture.shape[:2]) < SMALLEST:
        size = f"{picture.shape[1]} x {picture.shape[0]}"
        raise UserError(f"{path}: {size} pixels, too small to show a face; give a larger picture")
    return picture


def from_picture(
    path: Path, finder: Finder, side: int = STORED, which: int | None = None, option: str = "--face"
) -> Face:
    """The face in a picture file. Raises UserError."""
    picture = read_picture(path)
    points = choose(finder.all(picture), which, path, option)
    x, y, width, height = (int(v) for v in geometry.still(face_box(points)[None], MARGIN).boxes[0])
    patch = Image.fromarray(cut(picture, x, y, x + width, y + height))
    crop = np.asarray(patch.resize((side, side), Image.Resampling.BICUBIC))
    # Once more in the crop, where the dataset's landmarks were found.
    rough = ((points - (x, y)) * (side / width)).astype(np.float32)
    again = finder.near(crop, face_box(rough))
    return Face(crop, rough if again is None else again)


# --- videos ----------------------------------------------------------------------------------


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

    @property
    def missing(self) -> int:
        """Frames without a face."""
        return int((~self.found).sum())

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
            rate = stream.average_rate or stream.guessed_rate or Fraction(25)
            self.fps = Fraction(rate).limit_denominator(1001)
            first = next(iter(self), None)
            if first is None:
                raise UserError(f"{path}: no frame of this video decodes")
            self.rotation, self.width, self.height, sar = upright(first, stream)
            self.sar = float(sar)

    def __iter__(self) -> Iterator[VideoFrame]:
        """Frame k is what is shown at k / fps: the last whose time rounds to k or before."""
        with _opened(self.path) as container:
            stream = _stream(self.path, container)
            base = stream.time_base or Fraction(1, 1000)
            start = container_start(container, base)
            held: VideoFrame | None = None
            at = 0
            for frame in _decoded(container, stream):
                slot = at if frame.pts is None else round((frame.pts - start) * base * self.fps)
                if slot - at > LONGEST_HOLD * self.fps:
                    raise UserError(
                        f"{self.path}: no frame for {float((slot - at) / self.fps):.0f} s at "
                        f"{float(at / self.fps):.0f} s, its timestamps leap; encode it anew"
                    )
                for _ in range(slot - at):
                    yield held or frame  # the first also stands for what precedes it
                at, held = max(at, slot), frame
            if held is not None:
                yield held

    def crops(self, crop: geometry.Crop, side: int) -> Iterator[Picture]:
        """Every frame cut to a square of `side` pixels."""
        cutter: CropFilter | None = None
        for frame in self:
            if cutter is None or not cutter.fits(frame):
                size = (self.width, self.height)
                cutter = CropFilter(frame, self.rotation, size, crop, side)
            picture: Picture = cutter.cut(frame, 0).to_ndarray(format="rgb24")  # type: ignore[assignment]
            yield picture

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
    points, found = [], []
    pictures = film.crops(crop, side)
    at = 0
    while chunk := list(islice(pictures, CHUNK)):
        times = np.arange(at, at + len(chunk))
        near = np.stack([np.interp(times, numbers, column) for column in boxes.T], axis=1)
        near = near.astype(np.float32)
        marks = finder.detect(np.stack(chunk), near).points
        found.append(share_inside(marks, near) >= SURE)
        points.append(marks)
        at += len(chunk)
    seen = np.concatenate(found)
    if not seen.any():
        raise UserError(f"{path}: no face found in the video; give one that shows a face")
    return Footage(path, film.fps, side, crop, fill(np.concatenate(points), seen), seen)


def _track(
    film: Film, finder: Finder, which: int | None, option: str
) -> tuple[list[int], geometry.Boxes]:
    """Frame numbers and boxes (n, 4), in pixels of the upright picture, of one face."""
    numbers: list[int] = []
    boxes: list[npt.NDArray[np.float64]] = []
    for number, view in film.views():
        points = finder.near(view, boxes[-1]) if boxes else None
        if points is None:
            faces = finder.all(view)
            if not faces:
                continue
            last = boxes[-1][:2] + boxes[-1][2:] / 2 if boxes else None
            points = (
                choose(faces, which, film.path, option)
                if last is None
                else min(faces, key=lambda p: float(np.linalg.norm(p.mean(0) - last)))
            )
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
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; name a video in it") from None
    except MediaError as error:
        raise UserError(f"{path}: not a video ({error.detail})") from None


def _stream(path: Path, container: Any) -> Any:
    try:
        return video_stream(container)
    except MediaError as error:
        raise UserError(f"{path}: not a video ({error.detail})") from None


def _decoded(container: Any, stream: Any) -> Iterator[VideoFrame]:
    """Frames in order; packets that do not decode are passed over, as a player does."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, FFmpegError):  # the end, or a container cut short
            return
        with suppress(FFmpegError):
            yield from packet.decode()


# --- for the networks ------------------------------------------------------------------------


def resized(picture: Picture, size: int) -> Picture:
    """A square picture as (size, size, 3), resized as training does."""
    if picture.shape[0] == size:
        return picture
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC))


def pictures_to(pictures: Sequence[Picture], size: int, device: torch.device) -> torch.Tensor:
    """Square pictures as (n, 3, size, size) in [-1, 1]."""
    return unit(np.stack([resized(picture, size) for picture in pictures]), device)


def drawings(points: npt.NDArray[np.floating], side: int, size: int) -> Picture:
    """Landmark pictures (n, size, size, 3) of points (n, 68, 2) in pixels of a crop of `side`."""
    return np.stack([rasterize(frame, size, source_size=side) for frame in points])


def unit(pictures: Picture, device: torch.device) -> torch.Tensor:
    """(n, S, S, 3) uint8 to (n, 3, S, S) in [-1, 1]."""
    return torch.from_numpy(pictures).to(device).movedim(-1, 1).float() / 127.5 - 1
