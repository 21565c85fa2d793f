"""Stored pictures to pixels, the greater part of an episode's cost.

Pillow reads the header and resizes; OpenCV, where it is installed, decodes in seven tenths of
the time. Both are libjpeg-turbo and give the same pixels (tests/training/test_jpeg.py).
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

try:
    import cv2
except ImportError:
    cv2 = None  # type: ignore[assignment]

LARGEST = 2048
"""Pixels a side of a stored picture. As `pipelines.schemas` says, which a GPU box need not have."""

Pixels = npt.NDArray[np.uint8]
Name = Callable[[], str]
"""What a message calls a thing: making it costs as much as reading it, and is seldom needed."""


def decode(jpeg: bytes, size: int, name: Name) -> tuple[Pixels, int]:
    """A picture as (size, size, 3), and the side in pixels that it is stored with.

    Raises ValueError naming a picture that is no whole JPEG, not square or too large.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(jpeg), formats=["JPEG"])
        if image.width != image.height or image.width > LARGEST:  # before it takes memory
            raise ValueError(f"{name()} is {image.width}x{image.height}, not square or too large")
        pixels = _pixels(image, jpeg)
    except UnidentifiedImageError:
        raise ValueError(f"{name()} is no whole JPEG: make its shard anew") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name()} is no whole JPEG ({error}): make its shard anew") from error
    if image.width != size:
        resized = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
        return np.asarray(resized), image.width
    return pixels, image.width


def _pixels(image: Image.Image, jpeg: bytes) -> Pixels:
    """Raises OSError for a picture that breaks off."""
    if cv2 and image.mode == "RGB":  # of grey and CMYK ones the two make different colours
        how = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        pixels: Pixels | None = cv2.imdecode(np.frombuffer(jpeg, np.uint8), how)
        if pixels is not None:
            return pixels
    # Pillow also tells what is wrong.
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
