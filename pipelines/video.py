"""Cut clips out of a video: one sequential decode, frame-true, for all the clips of a video.

Time is counted from the start of the container, as the ffmpeg command line does, on a grid of
25 slots a second. A frame sits in slot `round(time * 25)` and is shown until the next frame's
slot: exactly what `-vf fps=25` makes of the whole file. Times stay integers throughout; a clip
may start anywhere and still get the same frames.

The bytes of a clip depend on its source and settings alone. Encoders are single-threaded and
stamp no dates; every clip has its own encoder and audio decoder, so neither its neighbours in
the same decode nor a seek leave a trace.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from io import BytesIO
from math import floor
from pathlib import Path
from typing import Any, ClassVar, Literal

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.codec.context import Flags
from av.error import FFmpegError
from av.filter import Graph
from av.filter.context import FilterContext
from av.packet import Packet
from av.stream import Discard
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipelines import boxes as geometry
from pipelines.probe import (
    MediaError,
    Probe,
    open_container,
    probe,
    reason,
    upright,
    video_stream,
)
from pipelines.schemas import Status

__all__ = [
    "GRID",
    "ClipResult",
    "ClipSpec",
    "CropSettings",
    "MediaError",
    "Probe",
    "crop_clips",
    "probe",
]

GRID = 25
"""Frames a second of every clip, and slots a second of the time grid."""

MISSING_TAIL = 2
"""Frames that may lack at the end of a clip: encoders at the upload round lengths."""

LONGEST = 2 * 3600 * GRID
"""Frames of the longest clip, held in memory until it is whole. More is a damaged header."""

LONGEST_HOLD = 60 * GRID
"""Slots that one frame may stand for inside a clip. More is a damaged timestamp."""

SEEK_AHEAD = 8 * GRID
"""Slots that nobody wants for which a seek is tried. It never changes a byte of the clips."""

_NEVER = 2**60
_BEFORE_ALL = -_NEVER  # the first frame is also shown in every slot before it


@dataclass(frozen=True, slots=True)
class ClipSpec:
    """One annotated clip; the fields mean what they do in `schemas.CATALOG`."""

    key: str
    first_frame: int | None = None
    frames: int | None = None
    fps: float | None = float(GRID)
    segment_start: float | None = None
    boxes: NDArray[np.float32] | None = None
    box_height: int | None = None
    crop_ready: bool = False


@dataclass(frozen=True, slots=True)
class CropSettings:
    """How clips are cut and encoded."""

    size: int = 256
    """Side of the clips in pixels; even."""
    policy: Literal["clip", "track"] = "clip"
    """One square for the whole clip, or one that follows the face at constant scale."""
    margin: float = 0.6
    """The square's side is that of the face box times 1 + margin."""
    smooth: float = 0.4
    """Seconds over which boxes are smoothed."""
    min_face: float = 0.0
    """Smallest median side of the annotated face, in source pixels."""
    min_frames: int = 1
    """Fewest frames, at 25 fps."""
    scene_threshold: float = 0.55
    """Scene score, 0..1, above which a clip holds a cut; 0: not looked for."""
    crf: int = 16
    preset: str = "veryfast"
    """With crf 16 as near the source as `medium` at crf 18, in less than half the time."""
    audio_rate: int = 16000
    audio_bitrate: int = 64000


@dataclass(frozen=True, slots=True)
class ClipResult:
    """What became of one clip; CROPS columns of the same name mean the same."""

    key: str
    status: Status
    detail: str = ""
    path: Path | None = None
    """The file written; None unless ok."""
    first_frame: int = 0
    """Slot of the first frame on the 25 fps grid of the source."""
    frames: int = 0
    has_audio: bool = False
    crop_boxes: NDArray[np.float32] | None = None
    """(1 or frames, 4), pixels of the upright source."""
    face_boxes: NDArray[np.float32] | None = None
    """(1 or frames, 4), pixels of the clip; None where no box was annotated."""
    padding: float | None = None
    """Share of the crop that lies outside the picture, 0..1."""
    scene_score: float | None = None
    source_width: int = 0
    source_height: int = 0
    source_fps: float = 0.0


def crop_clips(
    path: str | Path,
    clips: Sequence[ClipSpec],
    settings: CropSettings,
    open_output: Callable[[str], Path],
) -> Iterator[ClipResult]:
    """Cut every clip of a video; one result each, in the order in which they end.

    `open_output(key)` names the file to write, asked once per clip that succeeds. A clip that
    fails leaves no file and harms no other. Raises MediaError where the video does not open,
    OSError where a clip cannot be written.
    """
    with closing(_Reader(path)) as reader:
        waiting: list[_Clip] = []
        times = None
        for spec in clips:
            if spec.fps is None or spec.frames is None:
                times = times or _Times.of(path)
            span = _span(spec, times)
            clip = _Clip(spec, span, settings, reader, open_output)
            if clip.verdict:
                yield clip.failed(*clip.verdict)
            else:
                waiting.append(clip)
        waiting.sort(key=lambda clip: (clip.first, clip.stop, clip.spec.key), reverse=True)

        live: list[_Clip] = []
        while waiting or live:
            if not live:
                reader.wanted = waiting[-1].first
            shown = reader.read()
            if shown is None:
                break
            while waiting and waiting[-1].first < shown.stop:
                live.append(waiting.pop())
            for clip in list(live):
                clip.show(shown)
                if clip.verdict or clip.at >= clip.stop:
                    live.remove(clip)
                    yield clip.finish()
        for clip in live + waiting[::-1]:
            clip.end(reader.end, reader.damage)
            yield clip.finish()


# --- time ---------------------------------------------------------------------------------


def _slot(ticks: int, time_base: Fraction) -> int:
    """`round(ticks * time_base * 25)`, halves away from zero as the fps filter rounds."""
    top, bottom = 2 * abs(ticks) * time_base.numerator * GRID, 2 * time_base.denominator
    slot = (top + time_base.denominator) // bottom
    return slot if ticks >= 0 else -slot


def _origin(container: Any, time_base: Fraction) -> int:
    """The container's start, which counts as time 0, in ticks of a stream."""
    start = Fraction(container.start_time or 0, av.time_base) / time_base
    return floor(abs(start) + Fraction(1, 2)) * (1 if start >= 0 else -1)


@dataclass(frozen=True, slots=True)
class _Times:
    """When the frames of a video are shown, from its packets alone (nothing is decoded)."""

    slots: NDArray[np.int64]
    """Slot of every frame in presentation order, and last the slot at which the video ends."""
    keys: NDArray[np.bool_]
    seconds: NDArray[np.float64]

    @staticmethod
    def of(path: str | Path) -> _Times:
        rows: list[tuple[int, int, bool]] = []
        with open_container(path) as container:
            stream = video_stream(container)
            assert stream.time_base is not None
            origin = _origin(container, stream.time_base)
            try:
                for packet in container.demux(stream):
                    stamp = packet.pts if packet.pts is not None else packet.dts
                    if packet.size and stamp is not None and not packet.is_discard:
                        row = (stamp - origin, packet.duration or 0, packet.is_keyframe)
                        rows.append(row)
            except FFmpegError:
                pass  # the decode will meet the same fault and say where
            base = stream.time_base
        rows.sort()
        ends = [rows[-1][0] + rows[-1][1]] if rows else [0]
        slots = [_slot(row[0], base) for row in rows] + [_slot(ends[0], base)]
        return _Times(
            np.array(slots, np.int64),
            np.array([row[2] for row in rows], bool),
            np.array([float(row[0] * base) for row in rows]),
        )


@dataclass(frozen=True, slots=True)
class _Span:
    """A clip on the 25 fps grid: slots [first, stop), and the annotation row of each slot."""

    first: int
    stop: int
    rows: NDArray[np.int64]


def _span(spec: ClipSpec, times: _Times | None) -> _Span:
    """Where a clip lies on the grid, whatever the frame rate of its annotation."""
    begin = spec.first_frame or 0
    if spec.fps is not None:
        rate = Fraction(spec.fps).limit_denominator(1001)
        first = _slot(begin, 1 / rate)
        if spec.frames is None:
            assert times is not None
            stop = int(times.slots[-1])
        else:
            stop = max(first + 1, _slot(begin + spec.frames, 1 / rate))
        stop = min(stop, first + LONGEST + 1)
        steps = np.arange(first, max(stop, first), dtype=np.int64)
        top, bottom = rate.numerator, rate.denominator * GRID
        rows = (2 * steps * top + bottom) // (2 * bottom) - begin
    else:
        assert times is not None
        begin += _segment(times, spec.segment_start)
        last = len(times.slots) - 1
        end = last if spec.frames is None else begin + spec.frames
        beyond = 10 * MISSING_TAIL  # slots past the end, which `crop_clips` reports
        first = int(times.slots[begin]) if begin < last else int(times.slots[-1]) + beyond
        stop = int(times.slots[end]) if end <= last else int(times.slots[-1]) + beyond
        stop = min(max(stop, first + 1), first + LONGEST + 1)
        steps = np.arange(first, stop, dtype=np.int64)
        rows = np.searchsorted(times.slots[:-1], steps, side="right") - 1 - begin
    return _Span(first, stop, np.maximum(rows, 0))


def _segment(times: _Times, start: float | None) -> int:
    """Index of the frame that frame numbers count from."""
    if start is None:
        return 0
    found = np.flatnonzero(times.keys & (times.seconds >= start - 1e-6))
    return int(found[0]) if len(found) else len(times.slots)


# --- reading ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Shown:
    """A decoded frame and the slots [start, stop) in which it is shown."""

    frame: VideoFrame
    start: int
    stop: int
    damage: str
    """What the decoder said if this frame may be garbage."""


class _Reader:
    """The frames of a video in the order of their slots; skips what nobody wants."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.wanted = _BEFORE_ALL
        """No slot before this one is needed any more."""
        self.end = 0
        """Slot at which the video ended; known once `read` has returned None."""
        self.damage = ""
        self._ahead = SEEK_AHEAD
        self._tried = _BEFORE_ALL
        self._open()
        self._shown: Generator[_Shown, None, None] = self._run()
        self._peeked = next(self._shown, None)
        if self._peeked is None:
            self.close()
            raise MediaError(Status.CORRUPT, self.damage or "no frame decodes")
        first = self._peeked.frame
        self.rotation, self.width, self.height, self.sar = upright(first, self._stream)
        self.fps = float(self._stream.average_rate or self._stream.guessed_rate or 0)
        # For 4:4:4 of old x264 the decoder must see the note in the first packet by which it
        # knows the encoder: entered anywhere else, all turns green.
        if self._stream.codec_context.name == "h264" and "444" in first.format.name:
            self._ahead = _NEVER

    def read(self) -> _Shown | None:
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
        self._base: Fraction = self._stream.time_base
        self._origin = _origin(self._container, self._base)
        self._packets = iter(self._container.demux(self._stream))

    def _run(self) -> Generator[_Shown, None, None]:
        held: VideoFrame | None = None
        begin, stamp, step = _BEFORE_ALL, 0, 0
        for frame, entered in self._frames():
            previous = stamp
            stamp = self._stamp(frame, stamp + step)
            step = frame.duration or max(0, stamp - previous)
            at = _slot(stamp - self._origin, self._base)
            if entered:
                held, begin = None, at
            elif held is None:  # the very first frame stands for all that precedes it
                yield _Shown(frame, _BEFORE_ALL, at, self.damage)
                begin = at
            elif at > begin:
                yield _Shown(held, begin, at, self.damage)
                begin = at
            held = frame
        self.end = max(begin, _slot(stamp + step - self._origin, self._base))
        if held is None:
            self.end = 0
        elif self.end > begin:
            yield _Shown(held, begin, self.end, self.damage)

    def _stamp(self, frame: VideoFrame, expected: int) -> int:
        if frame.pts is not None:
            return frame.pts
        return expected if frame.dts is None else frame.dts

    def _frames(self) -> Iterator[tuple[VideoFrame, bool]]:
        """Decoded frames in order; True beside the first one after a seek."""
        entry: Packet[VideoStream] | None = None
        pending: Packet[VideoStream] | None = None
        fresh = False
        while (packet := pending or self._packet()) is not None:
            pending = None
            for frame in self._decode(packet):
                if entry and frame.pts is not None and entry.pts and frame.pts < entry.pts:
                    continue  # a leading picture: it needs frames before the keyframe
                if fresh and self._slot(frame) > self.wanted:
                    # The decoder gave nothing at the keyframe: this file cannot be entered
                    # midway. Decode it from the start and never seek again.
                    self._container.close()
                    self._open()
                    self._ahead, entry = _NEVER, None
                    break
                yield frame, fresh
                fresh = False
                if (pending := self._leap(frame)) is not None:
                    entry, fresh = pending, True
                    break

    def _packet(self) -> Packet[VideoStream] | None:
        try:
            return next(self._packets, None)
        except FFmpegError as error:
            self.damage = reason(error)
            return None

    def _decode(self, packet: Packet[VideoStream]) -> Iterator[VideoFrame]:
        try:
            frames = packet.decode()
        except av.error.EOFError:
            return
        except FFmpegError as error:
            self.damage = reason(error)
            return
        for frame in frames:
            if frame.key_frame:
                self.damage = ""
            if frame.is_corrupt:
                self.damage = "the decoder marked a frame as corrupt"
            yield frame

    def _slot(self, frame: VideoFrame) -> int:
        return _slot(self._stamp(frame, 0) - self._origin, self._base)

    def _leap(self, frame: VideoFrame) -> Packet[VideoStream] | None:
        """Seek to a clean keyframe at or before `wanted` where that saves decoding.

        Returns its packet, or None having moved nowhere.
        """
        if self.wanted == self._tried or self.wanted <= self._slot(frame) + self._ahead:
            return None
        self._tried = self.wanted
        target = self._origin + floor(Fraction(self.wanted, GRID) / self._base)
        with open_container(self.path) as container:  # looks ahead and decodes nothing
            scout = video_stream(container)
            for back in (0, 2, 12, 60):
                limit = target - floor(back / self._base)
                if frame.pts is None or limit <= frame.pts:
                    return None
                entry = _last_entry(container, scout, limit, target)
                if entry is not None:
                    break
        if entry is None or frame.pts is None or entry[0] <= frame.pts:
            return None
        try:
            self._container.seek(entry[1], stream=self._stream)
            self._packets = iter(self._container.demux(self._stream))
            for packet in self._packets:
                if packet.pts == entry[0] and packet.is_keyframe:
                    self.damage = ""
                    return packet
                if packet.dts is None or packet.dts > entry[0]:
                    break
        except FFmpegError:
            pass
        self._container.close()  # it did not get where the scout got: start over, in order
        self._open()
        self._ahead = _NEVER
        return self._packet()


def _last_entry(
    container: Any, stream: VideoStream, limit: int, target: int
) -> tuple[int, int] | None:
    """The last clean keyframe at or before `target`, looked for from about `limit` on.

    Returns its presentation and decoding timestamps.
    """
    found = None
    try:
        container.seek(limit, stream=stream)
        for packet in container.demux(stream):
            if packet.dts is None or packet.pts is None or packet.dts > target:
                break
            if packet.is_keyframe and packet.pts <= target and _is_clean(packet):
                found = (packet.pts, packet.dts)
    except FFmpegError:
        pass
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
        return any(nal & 31 == 5 for nal in _nal_heads(bytes(packet), width))
    if context.name == "hevc":
        width = (extra[21] & 3) + 1 if extra[:1] == b"\x01" and len(extra) > 21 else 0
        return any(16 <= (nal >> 1 & 63) <= 21 for nal in _nal_heads(bytes(packet), width))
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


# --- sound --------------------------------------------------------------------------------

_GAP = 0.02  # seconds between sound and its timestamps that are bridged
_RUN_UP = Fraction(1, 2)  # seconds decoded before a clip, for codecs that remember


def _read_sound(
    path: Path, first: int, frames: int, rate: int
) -> tuple[NDArray[np.float32] | None, str]:
    """The sound under slots [first, first + frames): (frames * rate / 25,) mono, -1..1.

    Silence where there is none; None where nothing decodes, and why. The file is opened anew,
    because some decoders keep state over a flush that would reach into the next clip.
    """
    sound = np.zeros(frames * rate // GRID, np.float32)
    begin = Fraction(first, GRID)
    end = begin + Fraction(frames, GRID)
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
        origin = _origin(container, base)
        start, stop = (origin + floor(t / base) for t in (begin - _RUN_UP, end + _RUN_UP))
        decoded, failure = 0, ""
        run = _Run(rate, begin, sound)
        if start > (stream.start_time or 0):
            with suppress(FFmpegError):
                container.seek(start, stream=stream)
        try:
            for packet in container.demux(stream):
                stamp = packet.pts if packet.pts is not None else packet.dts
                if stamp is not None and (stamp < start or stamp > stop):
                    if stamp > stop:
                        break
                    continue
                try:
                    heard = packet.decode()
                except FFmpegError as error:
                    if not isinstance(error, av.error.EOFError):
                        failure = reason(error)
                    continue
                for frame in heard:
                    decoded += 1
                    at = None if frame.pts is None else (frame.pts - origin) * base
                    run.add(frame, at)
            run.close()
        except (FFmpegError, ValueError) as error:
            failure = reason(error)
        if failure and not decoded:
            return None, f"the sound does not decode: {failure}"
        return sound, f"the sound decodes in part: {failure}" if failure else ""


class _Run:
    """Places decoded sound by its timestamps; consecutive frames are resampled as one."""

    def __init__(self, rate: int, begin: Fraction, sound: NDArray[np.float32]) -> None:
        self._rate, self._begin, self._sound = rate, begin, sound
        self._parts: list[NDArray[np.float32]] = []
        self._start = self._next = Fraction(0)
        self._format: tuple[object, ...] | None = None

    def add(self, frame: av.AudioFrame, at: Fraction | None) -> None:
        """Append a frame that starts at a time, or right behind the last one if None."""
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        at = self._next if at is None else at
        if kind != self._format or abs(at - self._next) > _GAP:
            self.close()
            self._start = self._next = at
            self._format = kind
            self._resampler = AudioResampler("fltp", "mono", self._rate)
        frame.pts = None
        for part in self._resampler.resample(frame):
            self._parts.append(part.to_ndarray()[0].copy())
        self._next += Fraction(frame.samples, frame.sample_rate)

    def close(self) -> None:
        """Put down what was collected."""
        if self._format is None:
            return
        self._parts += [part.to_ndarray()[0].copy() for part in self._resampler.resample(None)]
        if self._parts:
            run = np.concatenate(self._parts)
            at = round((self._start - self._begin) * self._rate)
            low, high = max(0, at), min(len(self._sound), at + len(run))
            if low < high:
                self._sound[low:high] = run[low - at : high - at]
        self._parts, self._format = [], None


# --- one clip -----------------------------------------------------------------------------


class _Clip:
    """One clip under way: takes frames as they are shown, cuts and encodes them."""

    def __init__(
        self,
        spec: ClipSpec,
        span: _Span,
        settings: CropSettings,
        reader: _Reader,
        open_output: Callable[[str], Path],
    ) -> None:
        self.spec, self.settings = spec, settings
        self.first, self.stop, self.at = span.first, span.stop, span.first
        self.verdict: tuple[Status, str] | None = None
        self._source, self._open_output = reader, open_output
        self._notes: list[str] = []
        self._signatures: list[tuple[int, NDArray[np.float32]]] = []
        self._chain: _Chain | None = None
        self._film: _Film | None = None
        self._last: VideoFrame | None = None
        frames = span.stop - span.first
        if frames < max(1, settings.min_frames):
            self.verdict = (Status.TOO_SHORT, f"{max(0, frames)} frames at {GRID} fps")
            return
        if frames > LONGEST:
            detail = f"longer than {LONGEST // GRID} s: no clip, or a damaged header"
            self.verdict = (Status.OUT_OF_RANGE, detail)
            return
        self._place(span)

    def _place(self, span: _Span) -> None:
        """Decide on the boxes."""
        spec, settings, source = self.spec, self.settings, self._source
        width, height, sar = source.width, source.height, float(source.sar)
        self.faces: geometry.Boxes | None = None
        if spec.boxes is not None and len(spec.boxes):
            faces = geometry.to_pixels(spec.boxes, spec.box_height, width, height, sar)
            if not (np.isfinite(faces).all() and (faces[:, 2:] > 0).all()):
                self.verdict = (Status.OUT_OF_RANGE, "a box has no extent")
                return
            if len(faces) > 1:
                faces = faces[np.minimum(span.rows, len(faces) - 1)]
            self.faces = faces
        if self.faces is None or spec.crop_ready:
            self.crop = geometry.ready(self.faces, width, height, sar)
        else:
            side = float(np.median(self.faces[:, 2:].min(axis=1)))
            if side < settings.min_face:
                detail = f"the face is {side:.0f} pixels wide in {width}x{height}"
                self.verdict = (Status.TOO_SMALL, detail)
                return
            steady = geometry.smooth(self.faces, round(settings.smooth * GRID))
            square = geometry.moving if settings.policy == "track" else geometry.still
            self.crop = square(steady, settings.margin, sar)
        if geometry.outside(self.crop, width, height):
            self.verdict = (Status.OUT_OF_RANGE, f"a box lies outside the {width}x{height} picture")

    def show(self, shown: _Shown) -> None:
        """Encode a frame in those of its slots that belong to the clip."""
        stop = min(shown.stop, self.stop)
        if self.verdict or stop <= self.at:
            return
        damage = shown.damage
        if stop - max(shown.start, self.at) > LONGEST_HOLD:
            damage = f"no frame for {(stop - self.at) / GRID:.0f} s: the timestamps leap"
        if damage:
            self.verdict = (Status.DECODE_ERROR, f"at {self.at / GRID:.2f} s: {damage}")
            return
        start = self.at
        try:
            picture = None
            while self.at < stop:
                if picture is None or len(self.crop.boxes) > 1:
                    picture = self._cut(shown.frame)
                self._encode(picture)
            if self.settings.scene_threshold and picture is not None:
                self._signatures.append((start, _signature(picture)))
        except FFmpegError as error:
            self.verdict = (Status.DECODE_ERROR, f"at {self.at / GRID:.2f} s: {reason(error)}")

    def _cut(self, frame: VideoFrame) -> VideoFrame:
        if self._chain is None or not self._chain.fits(frame):
            self._chain = _Chain(frame, self._source, self.crop, self.settings.size)
        return self._chain.cut(frame, (self.at - self.first) % len(self.crop.boxes))

    def _encode(self, picture: VideoFrame) -> None:
        if self._film is None:
            frames = self.stop - self.first
            rate = self.settings.audio_rate
            sound, note = _read_sound(self._source.path, self.first, frames, rate)
            if note:
                self._notes.append(note)
            self._film = _Film(self.settings, picture, sound)
        self._film.add(picture)
        self._last = picture
        self.at += 1

    def end(self, end: int, damage: str) -> None:
        """The video is over: repeat the last frame where it falls just short."""
        missing = self.stop - self.at
        if self.verdict or missing <= 0:
            return
        if damage:
            self.verdict = (Status.DECODE_ERROR, f"at {end / GRID:.2f} s: {damage}")
        elif self._last is None or self.first >= end:
            detail = f"starts at {self.first / GRID:.2f} s, the video ends at {end / GRID:.2f} s"
            self.verdict = (Status.OUT_OF_RANGE, detail)
        elif missing > MISSING_TAIL:
            detail = f"{missing} frames lie beyond the end of the video at {end / GRID:.2f} s"
            self.verdict = (Status.OUT_OF_RANGE, detail)
        else:
            for _ in range(missing):
                self._encode(self._last)
            self._notes.append(f"the last frame is repeated {missing} times: the video ends there")

    def finish(self) -> ClipResult:
        """Close the clip and write it, or say why not."""
        score = None
        if self._signatures and not self.verdict:
            score, row = _scene_score(np.stack([means for _, means in self._signatures]))
            if score > self.settings.scene_threshold:
                detail = f"at {self._signatures[row][0] / GRID:.2f} s, score {score:.2f}"
                self.verdict = (Status.SCENE_CUT, detail)
        if self.verdict:
            return replace(self.failed(*self.verdict), scene_score=score)
        assert self._film is not None
        data = self._film.close()
        path = self._open_output(self.spec.key)
        path.write_bytes(data)
        result = self.failed(Status.OK, "; ".join(self._notes))
        faces = None
        if self.faces is not None:
            faces = geometry.into_crop(self.faces, self.crop, self.settings.size)
        return replace(
            result,
            path=path,
            has_audio=self._film.has_audio,
            crop_boxes=self.crop.boxes.astype(np.float32),
            face_boxes=None if faces is None else faces.astype(np.float32),
            padding=self.crop.padding(self._source.width, self._source.height),
            scene_score=score,
        )

    def failed(self, status: Status, detail: str) -> ClipResult:
        """A result with nothing in it but the verdict and where the clip lies."""
        return ClipResult(
            self.spec.key,
            status,
            detail,
            first_frame=self.first,
            frames=max(0, self.stop - self.first),
            source_width=self._source.width,
            source_height=self._source.height,
            source_fps=self._source.fps,
        )


class _Chain:
    """A filter graph: turn upright, pad, crop, scale. Only what a clip needs of these."""

    _TURNS: ClassVar[dict[int, tuple[tuple[str, str | None], ...]]] = {
        0: (),
        90: (("transpose", "clock"),),
        180: (("hflip", None), ("vflip", None)),
        270: (("transpose", "cclock"),),
    }

    def __init__(self, frame: VideoFrame, source: _Reader, crop: geometry.Crop, size: int) -> None:
        self._kind = self._describe(frame)
        self._graph = Graph()
        self._graph.threads = 1
        self._moving = len(crop.boxes) > 1
        steps: list[tuple[str, str | None]] = list(self._TURNS[source.rotation])
        turned = source.rotation % 180 != 0
        upright_size = (frame.height, frame.width) if turned else (frame.width, frame.height)
        if upright_size != (source.width, source.height):  # the stream changed its size midway
            steps.append(("scale", f"{source.width}:{source.height}"))
        width, height = crop.size
        left, top, right, bottom = crop.overhang(source.width, source.height)
        x, y = int(crop.boxes[0, 0]), int(crop.boxes[0, 1])
        self._shift = (0, 0)
        if not (left or top or right or bottom):
            steps.append(("crop", f"{width}:{height}:{x}:{y}"))
        elif self._moving:
            whole = (source.width + left + right + 1 & ~1, source.height + top + bottom + 1 & ~1)
            self._shift = (left, top)
            steps.append(("pad", f"{whole[0]}:{whole[1]}:{left}:{top}"))
            steps.append(("crop", f"{width}:{height}:{x + left}:{y + top}"))
        else:  # cut first: the black border then goes around the small picture
            inner_w = min(x + width, source.width) - max(x, 0) & ~1
            inner_h = min(y + height, source.height) - max(y, 0) & ~1
            steps.append(("crop", f"{inner_w}:{inner_h}:{max(x, 0)}:{max(y, 0)}"))
            steps.append(("pad", f"{width}:{height}:{max(-x, 0)}:{max(-y, 0)}"))
        steps += [("scale", f"{size}:{size}:flags=bicubic"), ("setsar", "1")]
        steps += [("format", "yuv420p"), ("buffersink", None)]
        self._boxes = crop.boxes
        self._row = 0
        self._input = self._graph.add("buffer", self._kind)
        nodes: list[FilterContext] = [self._input]
        self._crop = self._input
        for name, arguments in steps:
            nodes.append(self._graph.add(name, arguments))
            if name == "crop":
                self._crop = nodes[-1]
        self._output = nodes[-1]
        self._graph.link_nodes(*nodes)
        self._graph.configure()

    @staticmethod
    def _describe(frame: VideoFrame) -> str:
        return (
            f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}"
            f":time_base=1/{GRID}:pixel_aspect=1/1"
            f":colorspace={int(frame.colorspace)}:range={int(frame.color_range)}"
        )

    def fits(self, frame: VideoFrame) -> bool:
        """Was the graph made for frames like this one?"""
        return self._describe(frame) == self._kind

    def cut(self, frame: VideoFrame, row: int) -> VideoFrame:
        """The crop of a frame by box number `row`."""
        if self._moving and row != self._row:
            for axis, name in enumerate("xy"):
                place = int(self._boxes[row, axis]) + self._shift[axis]
                if self._boxes[row, axis] != self._boxes[self._row, axis]:
                    self._crop.process_command(name, str(place))
            self._row = row
        self._input.push(frame)
        picture = self._output.pull()
        assert isinstance(picture, VideoFrame)
        return picture


class _Film:
    """An MP4 in memory: H.264 pictures at 25 fps and AAC sound, the same bytes every time."""

    def __init__(
        self, settings: CropSettings, first: VideoFrame, sound: NDArray[np.float32] | None
    ) -> None:
        self._bytes = BytesIO()
        self.has_audio = sound is not None
        options = {"fflags": "+bitexact", "max_interleave_delta": "0"}
        self._container = av.open(self._bytes, "w", format="mp4", options=options)
        encoder = {"preset": settings.preset, "crf": str(settings.crf), "threads": "1"}
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
            self._add_sound(sound, settings)

    def _add_sound(self, sound: NDArray[np.float32], settings: CropSettings) -> None:
        rate = settings.audio_rate
        # The default search takes four times as long for the same noise at this bit rate.
        options = {"aac_coder": "fast"}
        stream = self._container.add_stream("aac", rate=rate, layout="mono", options=options)
        stream.codec_context.bit_rate = settings.audio_bitrate
        stream.codec_context.flags |= Flags.bitexact
        packets = []
        for at in range(0, len(sound), 1024):
            frame = av.AudioFrame.from_ndarray(sound[None, at : at + 1024], "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, at, Fraction(1, rate)
            packets += stream.encode(frame)
        # The muxer holds them back until the pictures of their time have come.
        self._container.mux(packets + stream.encode(None))

    def add(self, picture: VideoFrame) -> None:
        """Append one picture."""
        picture.pts, picture.time_base = self._count, Fraction(1, GRID)
        picture.pict_type = 0  # else a keyframe of the source forces a keyframe here
        self._container.mux(self._pictures.encode(picture))
        self._count += 1

    def close(self) -> bytes:
        """Finish the file and return it."""
        self._container.mux(self._pictures.encode(None))
        self._container.close()
        return self._bytes.getvalue()


# --- scene cuts ---------------------------------------------------------------------------


_FLAT = 16.0 * 4  # contrast, as 4 grey levels in 256 blocks, below which noise is not scaled up


def _signature(picture: VideoFrame) -> NDArray[np.float32]:
    """16 x 16 block means of the brightness, (256,)."""
    plane = picture.planes[0]
    luma = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    step = max(1, picture.height // 64)
    side = min(picture.height, picture.width) // step // 16 * 16
    sample = luma[step // 2 :: step, step // 2 : picture.width : step][:side, :side]
    block = side // 16
    total = sample.reshape(16, block, 16, block).sum(axis=(1, 3), dtype=np.uint32)
    means: NDArray[np.float32] = total.ravel().astype(np.float32) / block**2
    return means


def _scene_score(means: NDArray[np.float32]) -> tuple[float, int]:
    """How much a clip looks cut, 0..1, and before which of its frames; `means` is (n, 256).

    Two pictures differ by one minus the correlation of their blocks, plus the mean difference
    of these in units of 64 grey levels. A cut is a difference that stays (frames up to two away
    differ as well, which a flash does not do) and stands alone (its neighbours in time are
    calm, which they are not when a head turns fast).
    """
    if len(means) < 2:
        return 0.0, 0
    rows = means - means.mean(axis=1, keepdims=True)
    rows /= np.maximum(np.sqrt((rows**2).sum(axis=1, keepdims=True)), _FLAT)

    def change(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float64]:
        left, right = np.maximum(left, 0), np.minimum(right, len(means) - 1)
        shape = ((rows[left] - rows[right]) ** 2).sum(axis=1) / 2
        light = np.abs(means[left] - means[right]).mean(axis=1) / 64
        return np.asarray(shape + light, np.float64)

    before = np.arange(len(means) - 1)
    steps = change(before, before + 1)
    lasting = np.minimum(change(before, before + 3), change(before - 2, before + 1))
    around = np.lib.stride_tricks.sliding_window_view(np.pad(steps, 3), 7)
    unrest = np.delete(around, 3, axis=1).mean(axis=1)
    scores = np.minimum(steps, lasting) - 1.5 * unrest
    place = int(scores.argmax())
    return float(np.clip(scores[place], 0.0, 1.0)), place + 1
