"""From a decoded frame to an MP4: the filter graph of one clip, and its encoder.

The bytes depend on pictures, sound and settings alone: one thread, no dates, nothing random.
"""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO

import av
import numpy as np
from av.codec.context import Flags
from av.container import OutputContainer
from av.filter import Graph
from av.filter.context import FilterContext
from av.video.frame import VideoFrame

from pipelines.video import exact
from pipelines.video.boxes import Crop
from pipelines.video.grid import GRID
from pipelines.video.probe import Turn
from pipelines.video.sound import Samples
from pipelines.video.types import CropSettings

Filter = tuple[str, str | None]
"""Name and arguments of a step of a filter graph."""

_AAC_FRAME = 1024  # samples
_TURNS: dict[int, list[Filter]] = {
    0: [],
    90: [("transpose", "clock")],
    180: [("hflip", None), ("vflip", None)],
    270: [("transpose", "cclock")],
}


class CropFilter:
    """A filter graph: turn upright, pad, crop, scale. Only what a clip needs of these."""

    def __init__(
        self, frame: VideoFrame, turn: Turn, picture: tuple[int, int], crop: Crop, size: int
    ) -> None:
        """For frames like `frame`.

        `picture` is width and height of the video made upright by `turn`, in which the crop's
        boxes lie; the clip is `size` x `size` pixels.
        """
        self._kind = _describe(frame)
        self._places = crop.boxes[:, :2]
        self._row = 0
        steps: list[Filter] = [("vflip", None)] if turn.mirrored else []
        steps += _TURNS[turn.degrees]
        shown = (frame.height, frame.width) if turn.sideways else (frame.width, frame.height)
        if shown != picture:  # the size changed midway
            steps.append(("scale", f"{picture[0]}:{picture[1]}:flags={exact.SCALE}"))
        width, height = crop.size
        left, top, right, bottom = crop.overhang(*picture)
        x, y = (int(place) for place in self._places[0])
        if not (left or top or right or bottom):
            steps.append(("crop", f"{width}:{height}:{x}:{y}"))
        elif len(self._places) > 1:
            whole = (picture[0] + left + right + 1 & ~1, picture[1] + top + bottom + 1 & ~1)
            steps.append(("pad", f"{whole[0]}:{whole[1]}:{left}:{top}"))
            steps.append(("crop", f"{width}:{height}:{x + left}:{y + top}"))
            self._places = self._places + np.array([left, top])
        else:  # cut first: the black border then goes around the small picture
            inner_width = min(x + width, picture[0]) - max(x, 0) & ~1
            inner_height = min(y + height, picture[1]) - max(y, 0) & ~1
            steps.append(("crop", f"{inner_width}:{inner_height}:{max(x, 0)}:{max(y, 0)}"))
            steps.append(("pad", f"{width}:{height}:{max(-x, 0)}:{max(-y, 0)}"))
        steps += [("scale", f"{size}:{size}:flags={exact.SCALE}"), ("setsar", "1")]
        steps += [("format", "yuv420p"), ("buffersink", None)]
        self._connect(steps)

    def _connect(self, steps: list[Filter]) -> None:
        self._graph = Graph()
        self._graph.threads = 1
        nodes: list[FilterContext] = [self._graph.add("buffer", self._kind)]
        for name, arguments in steps:
            nodes.append(self._graph.add(name, arguments))
            if name == "crop":
                self._crop = nodes[-1]
        self._input, self._output = nodes[0], nodes[-1]
        self._graph.link_nodes(*nodes)
        self._graph.configure()

    def fits(self, frame: VideoFrame) -> bool:
        """Was the graph made for frames like this one?"""
        return _describe(frame) == self._kind

    def cut(self, frame: VideoFrame, row: int) -> VideoFrame:
        """The crop of a frame by box number `row`. Raises FFmpegError."""
        for axis, name in enumerate("xy"):
            if self._places[row, axis] != self._places[self._row, axis]:
                self._crop.process_command(name, str(int(self._places[row, axis])))
        self._row = row
        self._input.push(frame)
        picture = self._output.pull()
        assert isinstance(picture, VideoFrame)
        return picture


def _describe(frame: VideoFrame) -> str:
    return (
        f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}"
        f":time_base=1/{GRID}:pixel_aspect=1/1"
        f":colorspace={int(frame.colorspace)}:range={int(frame.color_range)}"
    )


class SoundTrack:
    """The AAC sound of a file, mono or stereo, part after part. Methods raise FFmpegError."""

    def __init__(
        self,
        container: OutputContainer,
        channels: int,
        rate: int,
        bit_rate: int,
        options: dict[str, str] | None = None,
    ) -> None:
        """rate: samples a second; bit_rate: bits a second, of all channels."""
        self._container, self._rate = container, rate
        self._layout = "mono" if channels == 1 else "stereo"
        self._stream = container.add_stream("aac", rate=rate, layout=self._layout, options=options)
        self._stream.codec_context.bit_rate = bit_rate
        self._stream.codec_context.flags |= Flags.bitexact
        self._rest = np.empty((channels, 0), np.float32)
        self._count = 0

    def add(self, sound: Samples) -> None:
        """Append a part; how the sound is parted does not show."""
        sound = np.concatenate([self._rest, sound], axis=1)
        whole = sound.shape[1] // _AAC_FRAME * _AAC_FRAME
        self._encode(sound[:, :whole])
        self._rest = sound[:, whole:].copy()

    def close(self) -> None:
        """Write what is left."""
        self._encode(self._rest)
        self._container.mux(self._stream.encode(None))

    def _encode(self, sound: Samples) -> None:
        for at in range(0, sound.shape[1], _AAC_FRAME):
            part = np.ascontiguousarray(sound[:, at : at + _AAC_FRAME])
            frame = av.AudioFrame.from_ndarray(part, "fltp", self._layout)
            frame.sample_rate, frame.pts = self._rate, self._count
            frame.time_base = Fraction(1, self._rate)
            self._count += part.shape[1]
            # The muxer holds them back until the pictures of their time have come.
            self._container.mux(self._stream.encode(frame))


class ClipFile:
    """An MP4 in memory: H.264 pictures at 25 fps and AAC sound, the same bytes every time."""

    def __init__(self, settings: CropSettings, first: VideoFrame, sound: Samples | None) -> None:
        """The colours are declared to be those of the first picture. Raises FFmpegError."""
        self.has_audio = sound is not None
        self._bytes = BytesIO()
        options = {"fflags": "+bitexact", "max_interleave_delta": "0"}
        self._container = av.open(self._bytes, "w", format="mp4", options=options)
        encoder = exact.X264 | {"preset": settings.preset, "crf": str(settings.crf)}
        self._pictures = self._container.add_stream("libx264", rate=GRID, options=encoder)
        self._pictures.width = self._pictures.height = settings.size
        self._pictures.pix_fmt = "yuv420p"
        context = self._pictures.codec_context
        context.time_base = Fraction(1, GRID)
        context.color_range = first.color_range
        context.colorspace = first.colorspace
        context.color_primaries = first.color_primaries
        context.color_trc = first.color_trc
        context.flags |= Flags.bitexact
        self._count = 0
        if sound is not None:
            # The default search takes four times as long for the same noise at this bit rate.
            coder = {"aac_coder": "fast"}
            track = SoundTrack(
                *(self._container, len(sound), settings.audio_rate, settings.audio_bitrate, coder)
            )
            track.add(sound)
            track.close()

    def add(self, picture: VideoFrame) -> None:
        """Append one picture. Raises FFmpegError."""
        picture.pts, picture.time_base = self._count, Fraction(1, GRID)
        picture.pict_type = 0  # else a keyframe of the source forces a keyframe here
        self._container.mux(self._pictures.encode(picture))
        self._count += 1

    def close(self) -> bytes:
        """Finish the file and return it. Raises FFmpegError."""
        self._container.mux(self._pictures.encode(None))
        self._container.close()
        return self._bytes.getvalue()
