"""When packets and frames are shown, in ticks of their stream.

Most containers tell. An AVI does not: it holds one chunk a frame in decoding order and a constant
rate, and libav makes times of that which run backwards at B-frames. What was put into another
container without decoding, from an AVI or by a careless muxer, keeps such times. There frames
are shown in the order in which the decoder gives them, at the packets' times in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice, pairwise
from pathlib import Path
from typing import TypeAlias, TypeVar

from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pipelines.video.probe import open_container, video_stream

VideoPacket: TypeAlias = "Packet[VideoStream]"
Timed = TypeVar("Timed", bound="VideoPacket | VideoFrame")
_LOOK = 240
"""Packets after which a stream that could hold B-frames is taken to hold none."""


def stamped_as_decoded(path: Path) -> bool:
    """Are the packets' times those of decoding, and not of presentation?

    Raises MediaError where the video does not open, OSError where it cannot be read.
    """
    with open_container(path) as container:
        stream = video_stream(container)
        if _is_avi(container):
            return True
        if not stream.codec_context.has_b_frames:
            return False
        if not _in_order(_first(container.demux(stream))):
            return False  # B-frames are coded after what is shown after them, as they should be
    with open_container(path) as container:
        return not _in_order(_first(container.decode(video_stream(container))))


def _first(items: Iterator[Timed]) -> list[int | None]:
    """The times of the first of them."""
    found: list[int | None] = []
    with suppress(FFmpegError):  # the reader will say so
        found.extend(item.pts for item in islice(items, _LOOK))
    return found


def packet_stamp(container: InputContainer, packet: VideoPacket) -> int | None:
    """When a packet's frame is shown, or the one that takes its turn; see above."""
    return packet.dts if packet.pts is None or _is_avi(container) else packet.pts


def frame_decoder(
    container: InputContainer, as_decoded: bool
) -> Callable[[VideoPacket], list[VideoFrame]]:
    """`Packet.decode`, whose frames have a `pts` that is true, or None where nothing tells.

    For packets in order from the container's start. Raises FFmpegError.
    """
    return _InTurn(container).decode if as_decoded else Packet.decode


class _InTurn:
    """Gives the packets' times, one after the other, to frames as they come."""

    def __init__(self, container: InputContainer) -> None:
        self._container = container
        self._waiting: deque[int | None] = deque()
        self._begun = False
        self._late: int | None = None
        """Packets by which the decoder gives frames late, to put them in order."""

    def decode(self, packet: VideoPacket) -> list[VideoFrame]:
        """As `Packet.decode`."""
        self._begun |= packet.is_keyframe  # nothing before it is shown
        if packet.size and self._begun:
            self._waiting.append(packet_stamp(self._container, packet))
        frames = packet.decode()
        for frame in frames:
            if self._late is None:
                self._late = len(self._waiting)
            while packet.size and len(self._waiting) > self._late:
                self._waiting.popleft()  # of a packet that gave no frame
            frame.pts = self._waiting.popleft() if self._waiting else None
        return frames


def _is_avi(container: InputContainer) -> bool:
    return container.format.name == "avi"


def _in_order(stamps: list[int | None]) -> bool:
    known = [stamp for stamp in stamps if stamp is not None]
    return all(one <= two for one, two in pairwise(known))
