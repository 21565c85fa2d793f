"""Picture grids with headings and labels, as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pipelines import storage

Pixels = npt.NDArray[np.uint8]

CELL = 128
"""Pixels: smaller pictures are shown larger, each pixel as a square of several."""
GAP = 4
PAPER, INK = (255, 255, 255), (32, 32, 32)


def grid(
    rows: Sequence[Sequence[Pixels]], headings: Sequence[str] = (), labels: Sequence[str] = ()
) -> Pixels:
    """Rows of pictures (H, W, 3) on white, a heading over each column, a label before each row.

    Pictures may differ in size: a cell is as large as the largest. Rows may differ in length.
    """
    shown = [[_enlarged(picture) for picture in row] for row in rows]
    pictures = [picture for row in shown for picture in row]
    height = max((p.height for p in pictures), default=CELL)
    width = max((p.width for p in pictures), default=CELL)
    columns = max([*map(len, shown), len(headings)], default=0)
    font = ImageFont.load_default(max(width // 10, 13))

    wrapped = [_wrap(text, width, font) for text in headings]
    top = _extent(wrapped, font)[1] + 2 * GAP if headings else GAP
    left = _extent(labels, font)[0] + 3 * GAP if labels else GAP
    size = (left + columns * (width + GAP), top + len(shown) * (height + GAP))
    canvas = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(canvas)
    for column, text in enumerate(wrapped):
        middle = left + column * (width + GAP) + width // 2
        pen.multiline_text((middle, top - GAP), text, INK, font, "md", align="center")
    for row, text in enumerate(labels[: len(shown)]):
        middle = top + row * (height + GAP) + height // 2
        pen.multiline_text((left - 2 * GAP, middle), text, INK, font, "rm", align="right")
    for row, cells in enumerate(shown):
        for column, picture in enumerate(cells):
            x = left + column * (width + GAP) + (width - picture.width) // 2
            y = top + row * (height + GAP) + (height - picture.height) // 2
            canvas.paste(picture, (x, y))
    return np.asarray(canvas)


def _enlarged(picture: Pixels) -> Image.Image:
    times = -(-CELL // max(picture.shape[:2]))
    return Image.fromarray(picture.repeat(times, axis=0).repeat(times, axis=1))


def _wrap(text: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """Broken between words where a line would be wider than its column."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)


def _extent(
    texts: Sequence[str], font: ImageFont.ImageFont | ImageFont.FreeTypeFont
) -> tuple[int, int]:
    """The largest width and height of the texts."""
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    boxes = [pen.multiline_textbbox((0, 0), text, font) for text in texts]
    return int(max(box[2] for box in boxes)), int(max(box[3] for box in boxes))


def save_png(array: Pixels, url: str) -> None:
    """Write (H, W, 3) atomically."""
    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG")
    storage.write_bytes(url, out.getvalue())
