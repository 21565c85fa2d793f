"""Is a downloaded body a whole video? What the container and the first frame say.

`probe` never trusts a name or a server: an HTML page, a picture, sound alone, a cut body and
a container whose frames do not decode are each told apart with a status of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import inf
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Discard, Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pipelines.errors import raise_unanswered
from pipelines.statuses import Status
from pipelines.video.extent import missing_end

# Containers that hold videos. Everything else that libavformat could open (pictures, text
# art, playlists that name other files) is refused before it is parsed.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpeg,mpegts,mpegvideo,avi,flv,live_flv,asf,ogg,"
    "ivf,h264,hevc,m4v,mxf,rm,nut,wtv,dv,obu,av1,evc,vvc"
)
_LONGEST = 7 * 24 * 3600  # seconds; a header that says more is wrong
_LARGEST = 16384  # pixels a side
_FASTEST = 240  # frames a second; more is a clock's tick that is given for want of a rate
MOST_PIXELS = 2**26
"""Of a picture, 8192 x 8192. A file of a few kilobytes may claim more, and cost gigabytes."""
OPEN_OPTIONS = {
    "format_whitelist": _FORMATS,
    "protocol_whitelist": "file",
    "max_streams": "100",
    "max_pixels": str(MOST_PIXELS),
}
"""With which foreign files are opened: nothing that they name is opened as well."""
BACK = 1.0
"""Seconds by which the clock may go back: broken stamps, no other recording."""
HDR = (16, 18)
"""Transfer characteristics PQ and HLG, by ITU-T H.273."""
_MAX_PACKETS = 256  # to find a first frame in
_SEEN_MISSING = 2.0  # seconds that may lack at the end of a whole file

_PICTURES = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"BM": "a BMP picture",
    b"II*\x00": "a TIFF picture",
    b"MM\x00*": "a TIFF picture",
}
_SIGNATURES = (b"\x1aE\xdf\xa3", b"RIFF", b"FLV\x01", b"\x00\x00\x01\xba", b"OggS", b"0&\xb2u")


class MediaError(Exception):
    """A body that is no usable video.

    `status` is `not_a_video`, `truncated` or `corrupt`; `detail` is one line without paths.
    """

    def __init__(self, status: Status, detail: str) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Probe:
    """What a video is. Sizes are of the upright picture, after the display rotation."""

    codec: str
    width: int
    height: int
    fps: float
    """Mean frames a second; 0 where the container does not say."""
    seconds: float
    has_audio: bool
    rotation: int
    """Degrees clockwise (0, 90, 180, 270) that turn the stored picture upright."""
    sar: Fraction
    """Width over height of one pixel of the upright picture."""


def probe(path: str | Path, deep: bool = False) -> Probe:
    """Look at a video; `deep` also reads every packet up to the end.

    Raises MediaError where the file is not a whole video, OSError where it cannot be read.
    """
    path = Path(path)
    if not path.stat().st_size:
        raise MediaError(Status.NOT_A_VIDEO, "the file is empty")
    if missing := missing_end(path):
        raise MediaError(Status.TRUNCATED, missing)
    with open_container(path) as container:
        stream = video_stream(container)
        turn, width, height, sar = upright(first_frame(container, stream), stream)
        result = Probe(
            codec=stream.codec_context.name,
            width=width,
            height=height,
            fps=float(mean_rate(stream) or 0),
            seconds=_seconds(container, stream),
            has_audio=bool(container.streams.audio),
            rotation=turn.degrees,
            sar=sar,
        )
        _check_end(container, stream, deep)
    return result


def open_container(path: str | Path) -> InputContainer:
    """Open a file for reading.

    Raises MediaError where it is no known container, OSError where it cannot be read.
    """
    # An absolute path cannot be taken for a URL, whatever the video is called.
    path = Path(path).absolute()
    try:
        return av.open(str(path), "r", options=OPEN_OPTIONS, metadata_errors="replace")
    except (FFmpegError, ValueError) as error:
        raise_unanswered(error)
        with path.open("rb") as file:  # an unreadable file is an OSError, not a bad video
            head = file.read(4096)
        if known := _not_a_video(head):
            raise MediaError(Status.NOT_A_VIDEO, known) from None
        if head[4:8] == b"ftyp" or head.startswith(_SIGNATURES):
            raise MediaError(Status.CORRUPT, reason(error)) from None
        raise MediaError(Status.NOT_A_VIDEO, f"no known container: {reason(error)}") from None


def video_stream(container: InputContainer) -> VideoStream:
    """Pick the moving pictures of a container and leave all other packets unread.

    They are decoded in one thread: many workers share a machine, and frames come out alike.
    Raises MediaError where there are none.
    """
    still = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails
    moving = [s for s in container.streams.video if not s.disposition & still]
    if not moving:
        held = "sound alone" if container.streams.audio else "no video stream"
        raise MediaError(Status.NOT_A_VIDEO, f"the container holds {held}")
    stream = moving[0]
    if stream.codec_context is None:
        raise MediaError(Status.CORRUPT, "the codec of the video is unknown")
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    return stream


def first_frame(container: InputContainer, stream: VideoStream) -> VideoFrame:
    """Decode up to the first picture. Raises MediaError where none comes."""
    failure = "no frame decodes"
    try:
        for count, packet in enumerate(container.demux(stream)):
            try:
                for frame in packet.decode():
                    return _sane(frame)
            except FFmpegError as error:
                raise_unanswered(error)
                failure = f"no frame decodes: {reason(error)}"
            if count > _MAX_PACKETS:
                break
    except FFmpegError as error:
        raise_unanswered(error)
        failure = f"no frame can be read: {reason(error)}"
    raise MediaError(Status.CORRUPT, failure)


@dataclass(frozen=True, slots=True)
class Turn:
    """What makes a stored picture upright: upside down first where it is mirrored, then turned."""

    degrees: int
    """Clockwise: 0, 90, 180 or 270."""
    mirrored: bool = False

    @classmethod
    def of(cls, frame: VideoFrame) -> Turn:
        """By the frame's display matrix, as players show it."""
        degrees = round(-frame.rotation / 90) * 90 % 360
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
        if matrix is None:
            return cls(degrees)
        a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].astype(float)
        return cls(degrees, bool(a * d < b * c))

    @property
    def sideways(self) -> bool:
        """Do width and height change places?"""
        return self.degrees % 180 != 0


def upright(frame: VideoFrame, stream: VideoStream) -> tuple[Turn, int, int, Fraction]:
    """The turn, and width, height and pixel aspect once shown upright."""
    turn = Turn.of(frame)
    sar = stream.sample_aspect_ratio or Fraction(1)
    if not Fraction(1, 16) <= sar <= 16:
        sar = Fraction(1)
    if turn.sideways:
        return turn, frame.height, frame.width, 1 / sar
    return turn, frame.width, frame.height, sar


def mean_rate(stream: VideoStream) -> Fraction | None:
    """Frames a second, where the container tells."""
    rate = stream.average_rate or stream.guessed_rate
    return rate if rate and 0 < rate <= _FASTEST else None


def reason(error: BaseException) -> str:
    """The tool's own words on one line, without the path that libav appends to them."""
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(words).split())[:200]


def _sane(frame: VideoFrame) -> VideoFrame:
    if not (0 < frame.width <= _LARGEST and 0 < frame.height <= _LARGEST):
        raise MediaError(Status.CORRUPT, f"the picture is {frame.width}x{frame.height}")
    return frame


def _seconds(container: InputContainer, stream: VideoStream) -> float:
    """Length of the video; 0 where the container does not say. Raises MediaError."""
    seconds = 0.0
    if stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    if seconds <= 0 and container.duration:
        seconds = container.duration / av.time_base
    if not 0 <= seconds <= _LONGEST:
        raise MediaError(Status.CORRUPT, f"the header says {seconds:.3g} seconds")
    return seconds


def _check_end(container: InputContainer, video: VideoStream, deep: bool) -> None:
    """Read the last packets: a container may promise more than it holds. Raises MediaError.

    `deep`: read all of them, and hold the video's clock against itself.
    """
    indexed = "mp4" in container.format.name  # its length is that of its index, checked before
    if (indexed and not deep) or not container.duration:
        return
    seconds = container.duration / av.time_base
    start = container.start_time or 0
    end, clock = 0.0, -inf
    try:
        for stream in container.streams:
            stream.discard = Discard.default
        near = start + int((seconds - 2 * _SEEN_MISSING) * av.time_base)
        container.seek(start if deep else max(start, near))
        for packet in container.demux():
            if deep and packet.stream == video and packet.dts is not None:
                before, clock = clock, float(packet.dts * packet.time_base)
                if clock < before - BACK:
                    detail = f"the timestamps go back by {before - clock:.1f} s at {before:.1f} s"
                    raise MediaError(Status.CORRUPT, f"{detail}, as of several recordings in one")
            stamp = packet.dts if packet.pts is None else packet.pts
            if stamp is not None:
                end = max(end, float(stamp * packet.time_base) - start / av.time_base)
    except FFmpegError as error:
        raise_unanswered(error)
        raise MediaError(Status.TRUNCATED, f"the end cannot be read: {reason(error)}") from None
    if end < min(seconds - _SEEN_MISSING, seconds * 0.9):
        detail = f"the header says {seconds:.1f} s, the file ends at {end:.1f} s"
        raise MediaError(Status.TRUNCATED, detail)


def _not_a_video(head: bytes) -> str | None:
    """Name what a body is that is no video, from its first bytes."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:512].lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script")):
        return "an HTML page"
    if text.startswith(b"<?xml") or text.startswith(b"<"):
        return "an HTML page" if b"<html" in text else "an XML document"
    if text.startswith((b"{", b"[")):
        return "a JSON document"
    if head[8:12] == b"WEBP":
        return "a WebP picture"
    if head[8:12] == b"WAVE" or head.startswith((b"ID3", b"fLaC", b"\xff\xfb", b"\xff\xf3")):
        return "sound alone"
    for magic, name in _PICTURES.items():
        if head.startswith(magic):
            return name
    if not head:
        return "an empty file"
    if not head.strip(b"\0"):
        return "nothing but zero bytes"
    return None
