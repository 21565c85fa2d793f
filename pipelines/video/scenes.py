"""Does a clip hold a scene cut? Judged on the clip's own small pictures as they are cut."""

from __future__ import annotations

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

BlockMeans = NDArray[np.float32]
"""(256,) mean brightness, 0..255, of the 16 x 16 blocks of a picture."""

_FLAT = 16.0 * 4  # contrast, as 4 grey levels in 256 blocks, below which noise is not scaled up
_GREY = 64  # grey levels of mean difference that count as much as no correlation at all
_UNREST = 1.5  # how much the changes around a cut speak against it


def block_means(picture: VideoFrame) -> BlockMeans:
    """The brightness of a square planar picture, from about 64 x 64 of its pixels."""
    if picture.planes[0].line_size < 0:  # flipped: its rows lie backwards in memory
        picture = picture.reformat(format="gray")
    plane = picture.planes[0]
    luma = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return picture_means(luma[: picture.height, : picture.width])


def picture_means(luma: NDArray[np.uint8]) -> BlockMeans:
    """The same of brightness alone, (height, width)."""
    height, width = luma.shape
    step = max(1, height // 64)
    side = min(height, width) // step // 16 * 16
    sample = luma[step // 2 :: step, step // 2 :: step][:side, :side]
    block = side // 16
    total = sample.reshape(16, block, 16, block).sum(axis=(1, 3), dtype=np.uint32)
    means: BlockMeans = total.ravel().astype(np.float32) / block**2
    return means


def scene_score(means: NDArray[np.float32]) -> tuple[float, int]:
    """How much a clip looks cut, 0..1, and before which of its frames; `means` is (n, 256).

    Two pictures differ by one minus the correlation of their blocks, plus the mean difference
    of these in units of 64 grey levels. A cut is a difference that stays (frames up to two away
    differ as well, which a flash does not do) and stands alone (its neighbours in time are
    calm, which they are not when a head turns fast).
    """
    if len(means) < 2:
        return 0.0, 0
    shapes = means - means.mean(axis=1, keepdims=True)
    shapes /= np.maximum(np.sqrt((shapes**2).sum(axis=1, keepdims=True)), _FLAT)

    def change(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float64]:
        left, right = np.maximum(left, 0), np.minimum(right, len(means) - 1)
        shape = ((shapes[left] - shapes[right]) ** 2).sum(axis=1) / 2
        light = np.abs(means[left] - means[right]).mean(axis=1) / _GREY
        return np.asarray(shape + light, np.float64)

    before = np.arange(len(means) - 1)
    steps = change(before, before + 1)
    lasting = np.minimum(change(before, before + 3), change(before - 2, before + 1))
    around = np.lib.stride_tricks.sliding_window_view(np.pad(steps, 3), 7)
    unrest = np.delete(around, 3, axis=1).mean(axis=1)
    scores = np.minimum(steps, lasting) - _UNREST * unrest
    place = int(scores.argmax())
    return float(np.clip(scores[place], 0.0, 1.0)), place + 1
