"""The frames of a video in order, each with the slots in which it is shown.

One sequential decode; stretches that nobody wants are skipped by a seek where a clean keyframe
allows it, and then the frames are the same as without it. What was given is never given again
differently: a file that cannot be entered midway is decoded from its start.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from pathlib import Path

import av
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pipelines.errors import raise_unanswered
from pipelines.statuses import Status
from pipelines.video.grid import GRID, container_start, slot_at
from pipelines.video.keyframes import find_keyframe
from pipelines.video.probe import (
    MediaError,
    open_container,
    reason,
    upright,
    video_stream,
)
from pipelines.video.stamps import frame_decoder, stamped_as_decoded

SEEK_AHEAD = 8 * GRID
"""Slots that nobody wants for which a seek is tried. It never changes a byte of the clips."""

_NEVER = 2**60
_BEFORE_ALL = -_NEVER  # the first frame is also shown in every slot before it


@dataclass(frozen=True, slots=True)
class ShownFrame:
    """A decoded frame and the slots [start, stop) in which it is shown."""

    frame: VideoFrame
    start: int
    stop: int
    damage: str
    """What the decoder said if this frame may be garbage."""


class FrameReader:
    """Reads a video's frames in the order of their slots; skips what nobody wants.

    Raises MediaError where the video does not open or no frame decodes, OSError where it cannot
    be read. `width`, `height` (pixels) and `sar` are of the picture made upright by
    `turn`, `fps` is the mean rate or 0.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.wanted = _BEFORE_ALL
        """No slot before this one is needed any more."""
        self.end = 0
        """Slot at which the video ended; known once `read` has returned None."""
        self.damage = ""
        """What the decoder last said, until a keyframe came."""
        self._flagged: int | None = None
        """The time of the last packet that the container itself calls corrupt."""
        self._seek_ahead = SEEK_AHEAD
        self._tried = _BEFORE_ALL
        self._as_decoded = stamped_as_decoded(self.path)
        self._open()
        self._shown = self._assign_slots()
        self._peeked = next(self._shown, None)
        if self._peeked is None:
            self.close()
            raise MediaError(Status.CORRUPT, self.damage or "no frame decodes")
        first = self._peeked.frame
        self.turn, self.width, self.height, self.sar = upright(first, self._stream)
        # A program stream stamps some of its pictures only, so that what libav makes of the others
        # depends on where it began.
        if self._as_decoded or self._container.format.name == "mpeg":
            self._seek_ahead = _NEVER
        # For 4:4:4 of old x264 the decoder must see the note in the first packet by which it
        # knows the encoder: entered anywhere else, all turns green.
        if self._stream.codec_context.name == "h264" and "444" in first.format.name:
            self._seek_ahead = _NEVER

    def read(self) -> ShownFrame | None:
        """The next frame, None at the end."""
        if self._peeked is None:
            return next(self._shown, None)
        shown, self._peeked = self._peeked, None
        return shown

    def close(self) -> None:
        """Close the file."""
        self._shown.close()
        self._container.close()

    def _open(self) -> None:
        self._container = open_container(self.path)
        self._stream: VideoStream = video_stream(self._container)
        assert self._stream.time_base is not None
        self._time_base: Fraction = self._stream.time_base
        self._start = container_start(self._container, self._time_base)
        self._packets = iter(self._container.demux(self._stream))
        self._decode_packet = frame_decoder(self._container, self._as_decoded)

    def _start_over(self) -> None:
        """Decode from the start, and never seek again."""
        self._container.close()
        self._open()
        self._seek_ahead = _NEVER

    def _slot(self, stamp: int) -> int:
        return slot_at(stamp - self._start, self._time_base)

    def _assign_slots(self) -> Generator[ShownFrame, None, None]:
        """Hold every frame until the next one tells how long it is shown."""
        held: VideoFrame | None = None
        begin, stamp, step = _BEFORE_ALL, 0, 0
        for frame, after_seek in self._decoded():
            previous, stamp = stamp, _stamp(frame, stamp + step)
            step = frame.duration or max(0, stamp - previous)
            at = self._slot(stamp)
            if after_seek:
                begin = at
            elif held is None:  # the very first frame stands for all that precedes it
                yield ShownFrame(frame, _BEFORE_ALL, at, self.damage)
                begin = at
            elif at > begin:
                yield ShownFrame(held, begin, at, self.damage)
                begin = at
            held = frame
        if held is not None:
            self.end = max(begin, self._slot(stamp + step))
            if self.end > begin:
                yield ShownFrame(held, begin, self.end, self.damage)

    def _decoded(self) -> Iterator[tuple[VideoFrame, bool]]:
        """Decoded frames in order; True beside the first one after a seek."""
        entry: Packet[VideoStream] | None = None
        pending: Packet[VideoStream] | None = None
        after_seek = False
        while (packet := pending or self._next_packet()) is not None:
            pending = None
            for frame in self._decode(packet):
                if entry and frame.pts is not None and entry.pts and frame.pts < entry.pts:
                    continue  # a leading picture: it needs frames before the keyframe
                if after_seek and self._slot(_stamp(frame, 0)) > self.wanted:
                    # The decoder gave nothing at the keyframe: this file cannot be entered.
                    self._start_over()
                    entry = None
                    break
                yield frame, after_seek
                after_seek = False
                if (pending := self._skip_ahead(frame)) is not None:
                    entry, after_seek = pending, True
                    break

    def _next_packet(self) -> Packet[VideoStream] | None:
        try:
            return next(self._packets, None)
        except FFmpegError as error:
            raise_unanswered(error)
            self.damage = reason(error)
            return None

    def _decode(self, packet: Packet[VideoStream]) -> Iterator[VideoFrame]:
        try:
            frames = self._decode_packet(packet)
        except av.error.EOFError:
            return
        except FFmpegError as error:
            raise_unanswered(error)
            self.damage = reason(error)
            return
        if packet.is_corrupt:
            self._flagged = packet.pts
            self.damage = "the container marks a packet as corrupt"
        for frame in frames:
            if frame.key_frame and (frame.pts is None or frame.pts != self._flagged):
                self.damage = ""
            if frame.is_corrupt:
                self.damage = "the decoder marked a frame as corrupt"
            yield frame

    def _skip_ahead(self, frame: VideoFrame) -> Packet[VideoStream] | None:
        """Seek to a clean keyframe at or before `wanted` where that saves decoding.

        Returns its packet, or None having moved nowhere.
        """
        ahead = self.wanted - self._slot(_stamp(frame, 0))
        if self.wanted == self._tried or ahead <= self._seek_ahead:
            return None
        self._tried = self.wanted
        if frame.pts is None:
            return None
        target = self._start + floor(Fraction(self.wanted, GRID) / self._time_base)
        # Another container looks ahead, so that this one stays where it is if nothing is found.
        entry = find_keyframe(self.path, frame.pts, target)
        if entry is None:
            return None
        try:
            self._container.seek(entry.dts, stream=self._stream)
            self._packets = iter(self._container.demux(self._stream))
            for packet in self._packets:
                if packet.pts == entry.pts and packet.is_keyframe:
                    self.damage = ""
                    return packet
                if packet.dts is None or packet.dts > entry.pts:
                    break
        except FFmpegError as error:
            raise_unanswered(error)
        self._start_over()  # this container did not get where the other got
        return self._next_packet()


def _stamp(frame: VideoFrame, expected: int) -> int:
    """When a frame is shown, in ticks of its stream; `expected` where nothing tells."""
    if frame.pts is not None:
        return frame.pts
    return expected if frame.dts is None else frame.dts
