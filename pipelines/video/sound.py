"""The sound under a clip: decoded around it, placed by its timestamps, at one rate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from math import floor
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Discard
from numpy.typing import NDArray

from pipelines.errors import raise_unanswered
from pipelines.video.grid import GRID, container_start
from pipelines.video.probe import open_container, reason

Samples = NDArray[np.float32]
"""(channels, n), -1..1."""

_GAP = 0.02  # seconds between sound and its timestamps that are bridged
_RATES = range(1000, 1_000_001)  # samples a second; at one a second, a packet lasts for hours
_LACK = 0.5  # seconds without sound at a clip's end that its `detail` tells of
_RUN_UP = Fraction(1, 2)  # seconds decoded before a clip, for codecs that remember


def read_sound(
    path: Path, first: int, frames: int, rate: int, channels: int = 1
) -> tuple[Samples | None, str]:
    """The sound under slots [first, first + frames): frames * rate / 25 samples; what went wrong.

    channels: 1 mixes it down, 2 keeps stereo, and mixes down what has more; mono stays mono.
    Silence where there is none for a while; None where there is none at all or nothing decodes.
    The file is opened anew, because some decoders keep state over a flush that would reach into
    the next clip. Raises MediaError where it does not open, OSError where it cannot be read.
    """
    with open_container(path) as container:
        if not container.streams.audio:
            return None, ""
        stream = container.streams.audio[0]
        if stream.codec_context is None or stream.time_base is None:
            return None, "the codec of the sound is unknown"
        for other in container.streams:
            if other is not stream:
                other.discard = Discard.all
        base = stream.time_base
        origin = container_start(container, base)
        begin = Fraction(first, GRID)
        end = begin + Fraction(frames, GRID)
        start, stop = (origin + floor(t / base) for t in (begin - _RUN_UP, end + _RUN_UP))

        channels = min(channels, stream.codec_context.channels or 1)
        sound = np.zeros((channels, frames * rate // GRID), np.float32)
        mixer = _Placer(sound, begin, rate)
        failures: list[str] = []
        try:
            for frame in _decode(container, stream, start, stop, failures):
                mixer.add(frame, None if frame.pts is None else (frame.pts - origin) * base)
            mixer.flush()
        except (FFmpegError, ValueError) as error:
            raise_unanswered(error)
            failures.append(reason(error))
    if not mixer.reached:
        why = f"does not decode: {failures[-1]}" if failures else "of the video does not reach here"
        return None, f"the sound {why}"
    if failures:
        return sound, f"the sound decodes in part: {failures[-1]}"
    if sound.shape[1] - mixer.reached > _LACK * rate:
        return sound, f"the sound ends {mixer.reached / rate:.1f} s after its start"
    return sound, ""


def _decode(
    container: InputContainer, stream: AudioStream, start: int, stop: int, failures: list[str]
) -> Iterator[AudioFrame]:
    """Frames of the packets stamped [start, stop], in ticks; packets that fail are passed over.

    Raises FFmpegError where the container cannot be read on.
    """
    if start > (stream.start_time or 0):
        with suppress(FFmpegError):
            container.seek(start, stream=stream)
    for packet in container.demux(stream):
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is not None and stamp > stop:
            return
        if stamp is not None and stamp < start:
            continue
        try:
            frames = packet.decode()
        except av.error.EOFError:
            continue
        except FFmpegError as error:
            raise_unanswered(error)
            failures.append(reason(error))
            continue
        yield from frames


class _Placer:
    """Puts decoded sound where its timestamps say; consecutive frames are resampled as one."""

    def __init__(self, sound: Samples, begin: Fraction, rate: int) -> None:
        """`sound` is filled; it starts `begin` seconds into the video."""
        self._sound, self._begin, self._rate = sound, begin, rate
        self.reached = 0
        """The last sample put down, and one."""
        self._layout = "mono" if len(sound) == 1 else "stereo"
        self._parts: list[Samples] = []
        self._start = self._next = Fraction(0)
        self._format: tuple[object, ...] | None = None

    def add(self, frame: AudioFrame, at: Fraction | None) -> None:
        """Append a frame that starts at a time, or right behind the last one if None."""
        if frame.sample_rate not in _RATES:
            raise ValueError(f"{frame.sample_rate} samples a second")
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        at = self._next if at is None else at
        if kind != self._format or abs(at - self._next) > _GAP:
            self.flush()
            self._start = self._next = at
            self._format = kind
            self._resampler = AudioResampler("fltp", self._layout, self._rate)
        frame.pts = None
        self._resample(frame)
        self._next += Fraction(frame.samples, frame.sample_rate)

    def flush(self) -> None:
        """Put down what was collected."""
        if self._format is None:
            return
        self._resample(None)
        if self._parts:
            run = np.concatenate(self._parts, axis=1)
            at = round((self._start - self._begin) * self._rate)
            low, high = max(0, at), min(self._sound.shape[1], at + run.shape[1])
            if low < high:
                self._sound[:, low:high] = run[:, low - at : high - at]
                self.reached = max(self.reached, high)
        self._parts, self._format = [], None

    def _resample(self, frame: AudioFrame | None) -> None:
        parts = self._resampler.resample(frame)
        self._parts += [part.to_ndarray().astype(np.float32) for part in parts]
