"""Where decoding may start midway and give the same pictures as decoding from the start."""

from __future__ import annotations

from collections.abc import Iterator
from math import floor
from pathlib import Path
from typing import NamedTuple

from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from pipelines.errors import raise_unanswered
from pipelines.video.probe import open_container, video_stream

_LOOK_BACK = (0, 2, 12, 60)  # seconds before the target from which on keyframes are looked for


class Keyframe(NamedTuple):
    """Presentation and decoding timestamps of a keyframe, in ticks of its stream."""

    pts: int
    dts: int


def find_keyframe(path: Path, after: int, until: int) -> Keyframe | None:
    """The last clean keyframe in (after, until], ticks of the video stream; None: none found.

    Reads packets and decodes nothing. Raises MediaError where the video does not open, OSError
    where it cannot be read.
    """
    with open_container(path) as container:
        stream = video_stream(container)
        assert stream.time_base is not None
        for back in _LOOK_BACK:
            limit = until - floor(back / stream.time_base)
            if limit <= after:
                return None
            found = _last_clean(container, stream, limit, until)
            if found is not None:
                return found if found.pts > after else None
    return None


def _last_clean(
    container: InputContainer, stream: VideoStream, limit: int, until: int
) -> Keyframe | None:
    """The last clean keyframe at or before `until`, looked for from about `limit` on."""
    found = None
    try:
        container.seek(limit, stream=stream)
        for packet in container.demux(stream):
            if packet.dts is None or packet.pts is None or packet.dts > until:
                break
            if packet.is_keyframe and packet.pts <= until and _is_clean(packet):
                found = Keyframe(packet.pts, packet.dts)
    except FFmpegError as error:
        raise_unanswered(error)
    return found


def _is_clean(packet: Packet[VideoStream]) -> bool:
    """Can decoding start at this keyframe without a trace of what came before?

    Containers also flag recovery points of H.264, after which frames may still refer to what
    came before and turn green. Only an IDR picture is safe there; HEVC's random access
    pictures are safe once their leading pictures are dropped.
    """
    context = packet.stream.codec_context
    extra = context.extradata or b""
    if context.name == "h264":
        width = (extra[4] & 3) + 1 if extra[:1] == b"\x01" and len(extra) > 4 else 0
        return any(head & 31 == 5 for head in _nal_heads(bytes(packet), width))
    if context.name == "hevc":
        width = (extra[21] & 3) + 1 if extra[:1] == b"\x01" and len(extra) > 21 else 0
        return any(16 <= (head >> 1 & 63) <= 21 for head in _nal_heads(bytes(packet), width))
    return True


def _nal_heads(data: bytes, width: int) -> Iterator[int]:
    """First byte of every NAL unit; behind lengths of `width` bytes, or start codes if 0."""
    if not width:
        for part in data.split(b"\0\0\1")[1:]:
            yield from part[:1]
        return
    at = 0
    while at + width < len(data):
        yield data[at + width]
        at += width + int.from_bytes(data[at : at + width], "big")
