"""Stored pictures: the same pixels and the same refusals with and without OpenCV."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from training import jpeg


def encoded(side: int, seed: int = 0, mode: str = "RGB", **options: Any) -> bytes:
    """A JPEG of smooth colours with some noise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).resize((side, side))
    noisy = np.asarray(coarse) ^ rng.integers(0, 16, (side, side, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def by_pillow(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def turned() -> Image.Exif:
    """What a camera that was held upright writes."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@settings(max_examples=60, deadline=None)
@given(
    side=st.integers(1, 70),
    seed=st.integers(0, 2**32),
    quality=st.integers(1, 100),
    subsampling=st.integers(0, 2),
    progressive=st.booleans(),
)
def test_opencv_and_pillow_give_the_same_pixels(
    side: int, seed: int, quality: int, subsampling: int, progressive: bool
) -> None:
    assert jpeg.cv2, "the tests' requirements have OpenCV"
    data = encoded(side, seed, quality=quality, subsampling=subsampling, progressive=progressive)
    pixels, stored = jpeg.decode(data, side, str)
    assert stored == side
    np.testing.assert_array_equal(pixels, by_pillow(data))


@pytest.mark.parametrize("opencv", [True, False])
@pytest.mark.parametrize(
    "data",
    [encoded(64, mode="L"), encoded(64, mode="CMYK"), encoded(64, exif=turned())],
    ids=["grey", "cmyk", "turned"],
)
def test_other_colours_and_directions_too(
    data: bytes, opencv: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not opencv:
        monkeypatch.setattr(jpeg, "cv2", None)
    pixels, _ = jpeg.decode(data, 64, str)
    np.testing.assert_array_equal(pixels, by_pillow(data))


@pytest.mark.parametrize("opencv", [True, False])
def test_another_size_is_resized(opencv: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not opencv:
        monkeypatch.setattr(jpeg, "cv2", None)
    data = encoded(64)
    pixels, stored = jpeg.decode(data, 32, str)
    small = Image.fromarray(by_pillow(data)).resize((32, 32), Image.Resampling.BICUBIC)
    assert stored == 64
    np.testing.assert_array_equal(pixels, np.asarray(small))


@pytest.mark.parametrize("opencv", [True, False])
@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "clip.jpg is no whole JPEG: make its shard anew"),
        (b"<html>gone</html>", "clip.jpg is no whole JPEG: make its shard anew"),
        (encoded(64)[:600], "clip.jpg is no whole JPEG"),
        (encoded(64)[:-2], "clip.jpg is no whole JPEG .image file is truncated"),
        (encoded(2056, quality=1), "clip.jpg is 2056x2056, not square or too large"),
    ],
    ids=["empty", "page", "cut", "no end", "too large"],
)
def test_what_is_no_picture_is_told(
    data: bytes, says: str, opencv: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not opencv:
        monkeypatch.setattr(jpeg, "cv2", None)
    with pytest.raises(ValueError, match=says):
        jpeg.decode(data, 64, lambda: "clip.jpg")
