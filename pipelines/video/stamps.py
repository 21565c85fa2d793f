"""When packets and frames are shown, in ticks of their stream.

Containers tell, but for AVI: it holds one chunk a frame in decoding order and a constant rate.
libav numbers the chunks (dts) and makes up presentation times that run backwards at B-frames, so
here the frames of an AVI are shown one after the other, each a chunk's time after the last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

VideoPacket: TypeAlias = "Packet[VideoStream]"


def tells_times(container: InputContainer) -> bool:
    """Does the container say when its frames are shown?"""
    return container.format.name != "avi"


def packet_stamp(container: InputContainer, packet: VideoPacket) -> int | None:
    """When a packet's frame is shown; of an AVI, when the frame of that number is."""
    if packet.pts is None or not tells_times(container):
        return packet.dts
    return packet.pts


def frame_decoder(container: InputContainer) -> Callable[[VideoPacket], list[VideoFrame]]:
    """`Packet.decode`, whose frames have a `pts` that is true, or None where nothing tells.

    For packets in order from the container's start. Raises FFmpegError.
    """
    return Packet.decode if tells_times(container) else _AviDecoder().decode


class _AviDecoder:
    """Numbers frames as the decoder gives them: a chunk behind the one that set each free."""

    def __init__(self) -> None:
        self._begin: int | None = None
        self._delay: int | None = None
        """Ticks by which the decoder gives frames late, to put them in order."""

    def decode(self, packet: VideoPacket) -> list[VideoFrame]:
        if self._begin is None and packet.is_keyframe:
            self._begin = packet.dts
        frames = packet.decode()
        for frame in frames:
            frame.pts = None
            if frame.dts is None:  # set free by the end of the file
                continue
            if self._delay is None:
                self._delay = frame.dts - (frame.dts if self._begin is None else self._begin)
            frame.pts = frame.dts - self._delay
        return frames
