"""The time grid: 25 slots a second, counted from the start of the container.

A frame sits in slot `round(time * 25)` and is shown until the next frame's slot: exactly what
`-vf fps=25` makes of the whole file. Times are integers and fractions throughout, so a clip
may start anywhere and still get the same frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from numpy.typing import NDArray

from pipelines.errors import raise_unanswered
from pipelines.video.probe import open_container, video_stream
from pipelines.video.stamps import packet_stamp

GRID = 25
"""Frames a second of every clip, and slots a second of the time grid."""

LONGEST = 2 * 3600 * GRID
"""Frames of the longest clip, held in memory until it is whole. More is a damaged header."""

_BEYOND = 20  # slots past the end where frames lie that a video lacks: never made up for


def slot_at(ticks: int, time_base: Fraction) -> int:
    """`round(ticks * time_base * 25)`, halves away from zero as the fps filter rounds."""
    top, bottom = 2 * abs(ticks) * time_base.numerator * GRID, 2 * time_base.denominator
    slot = (top + time_base.denominator) // bottom
    return slot if ticks >= 0 else -slot


def container_start(container: InputContainer, time_base: Fraction) -> int:
    """The container's start, which counts as time 0, in ticks of a stream."""
    start = Fraction(container.start_time or 0, av.time_base) / time_base
    return floor(abs(start) + Fraction(1, 2)) * (1 if start >= 0 else -1)


@dataclass(frozen=True, slots=True)
class FrameTimes:
    """When the frames of a video are shown, from its packets alone (nothing is decoded)."""

    slots: NDArray[np.int64]
    """Slot of every frame in presentation order, and last the slot at which the video ends."""
    keys: NDArray[np.bool_]
    """Which frames are keyframes."""
    seconds: NDArray[np.float64]
    """Time of every frame."""

    @staticmethod
    def of(path: str | Path) -> FrameTimes:
        """Read a video's packets, up to the first fault: its decoder will say what that is.

        Raises MediaError where the video does not open, OSError where it cannot be read.
        """
        rows: list[tuple[int, int, bool]] = []
        counted: list[tuple[int, int, bool]] = []
        with open_container(path) as container:
            stream = video_stream(container)
            assert stream.time_base is not None
            base = stream.time_base
            start = container_start(container, base)
            try:
                for packet in container.demux(stream):
                    stamp = packet_stamp(container, packet)
                    if packet.size and not packet.is_discard:
                        lasts, key = packet.duration or 0, packet.is_keyframe
                        counted.append((len(counted) * lasts, lasts, key))
                        if stamp is not None:
                            rows.append((stamp - start, lasts, key))
            except FFmpegError as error:
                raise_unanswered(error)
        rows = sorted(rows) or counted  # a bare stream has no stamps at all
        end = rows[-1][0] + _last(rows) if rows else 0
        slots = [slot_at(ticks, base) for ticks in (*(row[0] for row in rows), end)]
        return FrameTimes(
            np.array(slots, np.int64),
            np.array([row[2] for row in rows], bool),
            np.array([float(row[0] * base) for row in rows]),
        )

    @property
    def end(self) -> int:
        """Slot at which the video ends."""
        return int(self.slots[-1])

    def first_key(self, seconds: float) -> int:
        """Index of the first keyframe at or after a time; past the last frame if there is none."""
        found = np.flatnonzero(self.keys & (self.seconds >= seconds - 1e-6))
        return int(found[0]) if len(found) else len(self.keys)

    def slot_of(self, frame: int) -> int:
        """Slot of a frame by its index, the end's after the last; beyond that, past the end."""
        return int(self.slots[frame]) if frame < len(self.slots) else self.end + _BEYOND


def _last(rows: list[tuple[int, int, bool]]) -> int:
    """Ticks for which the last frame is shown: where nothing tells, as in FLV, as the one before.

    So says the fps filter, and `frames.FrameReader`.
    """
    if rows[-1][1] or len(rows) == 1:
        return rows[-1][1]
    return rows[-1][0] - rows[-2][0]


@dataclass(frozen=True, slots=True)
class Span:
    """A clip on the 25 fps grid: slots [first, stop), and the annotation row of each slot.

    One slot more than `LONGEST` stands for every longer clip.
    """

    first: int
    stop: int
    rows: NDArray[np.int64]


def locate(
    first_frame: int | None,
    frames: int | None,
    fps: float | None,
    segment_start: float | None,
    times: Callable[[], FrameTimes],
) -> Span:
    """Where an annotation lies on the grid; its fields mean what they do in `schemas.CATALOG`.

    `times` is called only where the packets must be known. Raises what that raises.
    """
    begin = first_frame or 0
    if fps is not None:
        return _span_at_rate(begin, frames, fps, times)
    seen = times()
    if segment_start is not None:
        begin += seen.first_key(segment_start)
    return _span_of_frames(begin, frames, seen)


def _span_at_rate(
    begin: int, frames: int | None, fps: float, times: Callable[[], FrameTimes]
) -> Span:
    """Frames [begin, begin + frames) of a video taken to have `fps` frames a second."""
    rate = Fraction(fps).limit_denominator(1001)
    first = slot_at(begin, 1 / rate)
    stop = times().end if frames is None else max(first + 1, slot_at(begin + frames, 1 / rate))
    stop = min(stop, first + LONGEST + 1)
    steps = np.arange(first, max(stop, first), dtype=np.int64)
    top, bottom = rate.numerator, rate.denominator * GRID
    rows = (2 * steps * top + bottom) // (2 * bottom) - begin
    return Span(first, stop, np.maximum(rows, 0))


def _span_of_frames(begin: int, frames: int | None, times: FrameTimes) -> Span:
    """The video's own frames [begin, begin + frames)."""
    count = len(times.keys)
    first = times.slot_of(begin if begin < count else count + 1)
    stop = times.slot_of(count if frames is None else begin + frames)
    stop = min(max(stop, first + 1), first + LONGEST + 1)
    steps = np.arange(first, stop, dtype=np.int64)
    rows = np.searchsorted(times.slots[:-1], steps, side="right") - 1 - begin
    return Span(first, stop, np.maximum(rows, 0))
