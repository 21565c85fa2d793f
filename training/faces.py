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

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from pipelines import detectors, progress
from pipelines.detectors.base import DetectorUnavailable, Landmarks, cut, share_inside
from pipelines.errors import UserError
from pipelines.params.dataset import Crop
from pipelines.video import boxes as geometry
from pipelines.video.probe import MOST_PIXELS
from training.pixels import to_unit
from training.rasterize import rasterize

Picture = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float32]

MARGIN = Crop().margin
"""Of the dataset's crops."""
BOX_SIDE, BOX_RAISED = 1.31, 0.16
"""Of a detector's face box, in longer sides of the landmarks' own."""
STORED = Crop().size
"""Side of the dataset's crops, in which landmarks are found; larger for larger networks."""
SMALLEST = 24
"""Pixels of the landmarks' longer side: with less there is no face to learn from."""
LYING = 45
"""Degrees beyond which a face is rather a picture on its side than a tilted head."""
SURE = 0.5
"""Score of a face detector, share of the landmarks that must lie in the box it gave, and their
confidence, the dataset's `landmarks.min_confidence`: face_alignment puts 68 points on anything."""


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
        border = min(max(height, width) // 4, min(height, width) // 2)
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
        marks = self.detect(picture[None], boxes)
        return marks.points[0] if shown(marks, boxes)[0] else None

    def _boxes(self, picture: Picture) -> Iterator[npt.NDArray[np.float32]]:
        """What either of two detectors, for near and for far faces, takes for a face."""
        size = np.array([picture.shape[1], picture.shape[0]] * 2, np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # protobuf's, about calls of MediaPipe's own
            for searcher in self._searchers:
                for found in searcher.process(np.ascontiguousarray(picture)).detections or ():
                    at = found.location_data.relative_bounding_box
                    yield np.array([at.xmin, at.ymin, at.width, at.height], np.float32) * size


def shown(marks: Landmarks, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """(n,): where landmarks are those of a face in the boxes (n, 4) or (1, 4)."""
    return (share_inside(marks.points, boxes) >= SURE) & (marks.confidence >= SURE)


def _face_detectors() -> list[Any]:
    try:
        from mediapipe import solutions

        from pipelines.detectors.mediapipe import without_chatter
    except ImportError as error:
        raise DetectorUnavailable(
            f"faces are searched for with MediaPipe, which cannot be imported ({error}): "
            "pip install 'likeness[mediapipe]'"
        ) from error
    with without_chatter():
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


def found_again(faces: Sequence[Points], box: npt.NDArray[Any]) -> Points | None:
    """Of several faces the one that was in a box (4,) before, or None where it is none of them.

    It has moved by a side of the box at most and is half to twice as large: anything else is
    somebody else, who is not followed.
    """
    middle, side = box[:2] + box[2:] / 2, float(box[2])
    for points in sorted(faces, key=lambda p: float(np.linalg.norm(p.mean(0) - middle))):
        if np.linalg.norm(points.mean(0) - middle) > side:
            return None
        if 0.5 <= face_box(points)[2] / side <= 2:
            return points
    return None


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
        with warnings.catch_warnings(), Image.open(path, formats=FORMATS) as file:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            if file.width * file.height > MOST_PIXELS:  # before it takes memory
                found, most = file.width * file.height / 1e6, MOST_PIXELS / 1e6
                raise UserError(
                    f"{path}: {found:.0f} megapixels, more than {most:.0f}; scale it down"
                )
            held = getattr(file, "n_frames", 1)
            if held > 1 and file.format in ("GIF", "WEBP", "TIFF"):
                progress.complain(f"{path}: holds {held} pictures; the first is taken")
            image = _in_srgb(ImageOps.exif_transpose(file))
            if image.has_transparency_data:
                image = image.convert("RGBA")
                white = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(white, image)
            if file.format == "TIFF" and image.mode in ("I", "F"):
                raise ValueError("32 bits of grey have no white; export it with 8 or 16")
            if image.mode.startswith("I"):  # 16 bits of grey, which `convert` would clip
                grey = np.asarray(image).astype(np.float32) / 257
                image = Image.fromarray(grey.round().clip(0, 255).astype(np.uint8))
            picture = np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; name a picture in it") from None
    except Image.DecompressionBombError:
        raise UserError(f"{path}: too many pixels; scale it down") from None
    except (OSError, SyntaxError, ValueError) as error:
        why = str(error)
        if isinstance(error, UnidentifiedImageError):
            why = "HEIC; export it as JPEG or PNG" if _is_heic(path) else "not a picture"
        raise UserError(f"{path}: cannot be read as a picture ({why})") from None
    if min(picture.shape[:2]) < SMALLEST:
        size = f"{picture.shape[1]} x {picture.shape[0]}"
        raise UserError(f"{path}: {size} pixels, too small to show a face; give a larger picture")
    return picture


def _in_srgb(image: Image.Image) -> Image.Image:
    """Colours of a phone or a camera as screens show them; as they stand where no profile helps."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA"):
        return image
    with suppress(ImageCms.PyCMSError, OSError):  # of a damaged one; of another kind of picture
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, own, srgb)
        return image if converted is None else converted
    return image


def _is_heic(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(12)[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1")


def tilt(points: Points) -> float:
    """Degrees by which a face (68, 2) is turned in the picture: 0 upright, 90 lying on its side."""
    right, left = points[36:42].mean(axis=0), points[42:48].mean(axis=0)
    across = left - right
    return float(np.degrees(np.arctan2(across[1], across[0])))


def from_picture(path: Path, finder: Finder, side: int = STORED, which: int | None = None) -> Face:
    """The face in a picture file. Raises UserError."""
    picture = read_picture(path)
    points = choose(finder.all(picture), which, path, "--face")
    if abs(lean := tilt(points)) > LYING:
        progress.complain(
            f"{path}: the face lies at {lean:.0f} degrees; what is made of it will not look like "
            "one: turn the picture upright"
        )
    x, y, width, height = (int(v) for v in geometry.still(face_box(points)[None], MARGIN).boxes[0])
    patch = Image.fromarray(cut(picture, x, y, x + width, y + height))
    crop = np.asarray(patch.resize((side, side), Image.Resampling.BICUBIC))
    # Once more in the crop, where the dataset's landmarks were found.
    rough = ((points - (x, y)) * (side / width)).astype(np.float32)
    again = finder.near(crop, face_box(rough))
    return Face(crop, rough if again is None else again)


# --- for the networks ------------------------------------------------------------------------


def resized(picture: Picture, size: int) -> Picture:
    """A square picture as (size, size, 3), resized as training does."""
    if picture.shape[0] == size:
        return picture
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC))


def pictures_to(pictures: Sequence[Picture], size: int, device: torch.device) -> torch.Tensor:
    """Square pictures as (n, 3, size, size) in [-1, 1]."""
    return to_unit(np.stack([resized(picture, size) for picture in pictures]), device)


def drawings(points: npt.NDArray[np.floating], side: int, size: int) -> Picture:
    """Landmark pictures (n, size, size, 3) of points (n, 68, 2) in pixels of a crop of `side`."""
    return rasterize(points, size, source_size=side)
