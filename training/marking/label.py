"""The visible label: words on a half-transparent plate in a corner of every frame."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipelines.errors import UserError

Frames = NDArray[np.uint8]
Font = ImageFont.FreeTypeFont

SMALLEST, USUAL, SHARE = 7, 12, 24
"""Of the letters: pixels at least, pixels where there is room, and the part of the picture's
shorter side from which on they grow with it."""
PLATE = (0, 0, 0, 168)
INK = (255, 255, 255, 255)
UNKNOWN = "\U000f0000"
"""A private character, which no font has: what is drawn like it, the font does not know."""


def draw_label(frames: Frames, text: str) -> Frames:
    """A copy of frames (n, height, width, 3) that wear the text in the lower left corner.

    Raises UserError where the text is empty, does not fit, or has letters that the font lacks.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
        raise ValueError(f"frames must be uint8 (n, h, w, 3), not {frames.dtype} {frames.shape}")
    labelled = frames.copy()
    light, through, (top, left) = _plate(frames.shape[1], frames.shape[2], text)
    height, width = light.shape[:2]
    corner = labelled[:, top : top + height, left : left + width]
    corner[:] = np.rint(corner * through + light).astype(np.uint8)
    return labelled


@lru_cache(maxsize=16)  # live video asks for the same one with each frame
def _plate(
    height: int, width: int, text: str
) -> tuple[NDArray[np.float32], NDArray[np.float32], tuple[int, int]]:
    """The light that the plate adds, the share it lets through, and where its corner lies."""
    words = " ".join(text.split())
    lines, font, margin, pad = _layout(words, height, width)
    boxes = [font.getbbox(line) for line in lines]
    ascent, descent = font.getmetrics()
    size = (
        int(max(box[2] for box in boxes)) + 2 * pad,
        (ascent + descent) * len(lines) + 2 * pad,
    )
    plate = Image.new("RGBA", size, PLATE)
    draw = ImageDraw.Draw(plate)
    for number, line in enumerate(lines):
        draw.text((pad, pad + number * (ascent + descent)), line, INK, font)
    pixels = np.asarray(plate, np.float32)
    through = np.float32(1) - pixels[..., 3:] / np.float32(255)
    return pixels[..., :3] * (np.float32(1) - through), through, (height - margin - size[1], margin)


def _layout(words: str, height: int, width: int) -> tuple[list[str], Font, int, int]:
    """Lines, font, margin and padding: one line if it fits, else several, as large as may be."""
    face = _face(words)
    largest = max(USUAL, round(min(height, width) / SHARE))
    for may_wrap in (False, True):
        for size in range(largest, SMALLEST - 1, -1):
            margin = pad = max(1, size // 4)
            font = _font(face, size)
            room = width - 2 * margin - 2 * pad
            lines = _wrap(words, font, room) if may_wrap else [words]
            tall = sum(font.getmetrics()) * len(lines) + 2 * margin + 2 * pad
            fits = all(font.getbbox(line)[2] <= room for line in lines)
            # Beyond half of the picture it would be a picture of a label.
            if fits and tall <= (height // 2 if may_wrap else height):
                return lines, font, margin, pad
    raise UserError(
        f"the label {words!r} does not fit a picture of {width} x {height} pixels: shorten "
        "animate.label or make the picture larger"
    )


def _wrap(words: str, font: Font, room: int) -> list[str]:
    lines: list[str] = []
    for word in words.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getbbox(longer)[2] <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


@lru_cache(maxsize=64)
def _font(face: str, size: int) -> Font:
    font = ImageFont.truetype(face, size) if face else ImageFont.load_default(size)
    if not isinstance(font, Font):
        raise UserError("this Pillow was built without FreeType and cannot draw the label")
    return font


def _faces() -> list[str]:
    """Pillow's own, narrow but ASCII alone; then matplotlib's, which knows a thousand more."""
    spec = find_spec("matplotlib")
    beside = Path(spec.origin).parent if spec and spec.origin else Path()
    dejavu = beside / "mpl-data/fonts/ttf/DejaVuSans.ttf"
    return ["", str(dejavu)] if dejavu.is_file() else [""]


def _face(words: str) -> str:
    """The first font with all the letters: a row of empty boxes would tell nobody anything."""
    if not words:
        raise UserError("the label is empty: give it words, or turn it off explicitly")
    lacking = ""
    for face in _faces():
        font = _font(face, 32)
        empty = bytes(font.getmask(UNKNOWN))
        lacking = "".join(c for c in words if c != " " and bytes(font.getmask(c)) == empty)
        if not lacking:
            return face
    raise UserError(
        f"the label {words!r} holds {lacking[0]!r}, which no font at hand has: write "
        "animate.label in other letters"
    )
