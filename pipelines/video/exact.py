"""The same pixels on every processor: how we scale, convert colours and encode.

swscale's fast paths round otherwise with SSE than in C, and x264 looks ahead with approximate
reciprocals, which AVX, SSE and the makers of processors each round in their own way. Their exact
paths cost nothing that could be measured in a crop. FFmpeg's decoders gave the same bits in C and
with AVX2 (H.264, HEVC, VP8, VP9, MPEG-1, -2 and -4, MJPEG, FLV, WMV2, ProRes), so they are left as
they are.
"""

from __future__ import annotations

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

SCALE = "bicubic+accurate_rnd+bitexact"
"""Flags of FFmpeg's `scale`."""
X264 = {"x264-params": "cpu-independent=1", "threads": "1"}
"""Options of libx264."""
_CONVERT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


class ToRgb:
    """Gives (height, width, 3) RGB of the frames of a video. Raises FFmpegError."""

    def __init__(self) -> None:
        # A frame's own `to_ndarray` sets one up anew each time, which costs more than its work.
        self._converter = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """The picture of a frame."""
        converted = self._converter.reformat(frame, format="rgb24", interpolation=_CONVERT)
        picture: NDArray[np.uint8] = converted.to_ndarray()  # type: ignore[assignment]
        return picture
