"""Numbered videos for the tests of the crop kernel: written, cut and read back.

Every frame carries its own number. What is expected of a clip is computed here from the
packets' timestamps with fractions, independently of the kernel: slot k shows the last frame
whose time, times 25 and rounded half away from zero, is at most k.
"""

import operator
import random
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipelines.statuses import Status
from pipelines.video import ClipSpec, CropSettings, crop_clips
from pipelines.video.probe import MediaError, probe

SIDE = 64
FAST = CropSettings(size=SIDE, preset="ultrafast", crf=20)
RATE = 16000
needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="no ffmpeg command here")


def picture(number: int, width: int = SIDE, height: int = SIDE) -> np.ndarray:
    """A grey picture, 4 x 4 blocks of which spell a number in black and white."""
    bits = [(number >> i & 1) * 255 for i in range(15)] + [(number.bit_count() & 1) * 255]
    blocks = np.array(bits, np.uint8).reshape(4, 4)
    return np.kron(blocks, np.ones((height // 4, width // 4), np.uint8))


def number_of(luma: np.ndarray) -> int:
    """Read the number back; -1 where it is no such picture."""
    h, w = luma.shape[0] // 4, luma.shape[1] // 4
    blocks = luma[: 4 * h, : 4 * w].reshape(4, h, 4, w)[:, h // 4 : -h // 4, :, w // 4 : -w // 4]
    bits = (blocks.mean(axis=(1, 3)) > 127).ravel()
    number = sum(int(bit) << i for i, bit in enumerate(bits[:15]))
    return number if (number.bit_count() & 1) == bits[15] else -1


def write(
    path: Path,
    stamps: list[int],
    base: Fraction,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    sound: float | None = None,
    draw=picture,
    **settings: object,
) -> Path:
    """Encode numbered frames at `stamps` * `base` seconds; `sound`: seconds of clicks."""
    first = draw(0)
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=settings.pop("rate", 25), options=options or {})
        stream.width, stream.height = first.shape[1], first.shape[0]
        stream.pix_fmt = settings.pop("pix_fmt", "yuv420p")
        stream.codec_context.thread_count = 1
        if codec != "mpeg1video":
            stream.codec_context.time_base = base
        for name, value in settings.items():
            setattr(stream.codec_context, name, value)
        voice = None
        if sound:
            voice = out.add_stream(
                "libopus" if path.suffix == ".webm" else "mp2" if path.suffix == ".mpg" else "aac",
                rate=48000,
                layout="mono",
            )
        packets = []
        if voice:
            wave = clicks(sound, 48000)
            for at in range(0, len(wave), 960):
                frame = av.AudioFrame.from_ndarray(wave[None, at : at + 960], "fltp", "mono")
                frame.sample_rate, frame.pts, frame.time_base = 48000, at, Fraction(1, 48000)
                packets += voice.encode(frame)
            packets += voice.encode(None)
        for number, stamp in enumerate(stamps):
            grey = draw(number)
            frame = av.VideoFrame.from_ndarray(grey, "gray").reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base, frame.pict_type = stamp, base, 0
            packets += stream.encode(frame)
        packets += stream.encode(None)
        packets.sort(key=lambda p: (p.dts * p.time_base, p.stream_index))
        out.mux(packets)
    return path


def clicks(seconds: float, rate: int) -> np.ndarray:
    """A burst of 1 kHz, 20 ms long, at 0.5 s and each second after it."""
    t = np.arange(int(seconds * rate)) / rate
    burst = ((t - 0.5) % 1.0 < 0.02) & (t >= 0.5)
    return np.where(burst, 0.8 * np.sin(2 * np.pi * 1000 * t), 0).astype(np.float32)


def slot(time: Fraction) -> int:
    """round(time * 25), halves away from zero."""
    scaled = abs(time) * 25 + Fraction(1, 2)
    return int(scaled) if time >= 0 else -int(scaled)


def slots_of(path: Path) -> list[int]:
    """Slot of each frame in presentation order, and last that of the end."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        start = Fraction(container.start_time or 0, av.time_base)
        # An AVI tells no more than how many frames it has: their times are the chunks'.
        stamp = operator.attrgetter("dts" if path.suffix == ".avi" else "pts")
        rows = sorted(
            (stamp(p), p.duration or 0)
            for p in container.demux(stream)
            if p.size and stamp(p) is not None
        )
        times = [row[0] * stream.time_base - start for row in rows]
        # An FLV does not tell how long a frame lasts: the last one as long as the one before.
        lasts = rows[-1][1] * stream.time_base or times[-1] - times[-2]
        return [slot(t) for t in times] + [slot(times[-1] + lasts)]


def shown(slots: list[int], first: int, frames: int) -> list[int]:
    """Numbers of the frames shown in slots [first, first + frames)."""
    found = []
    for k in range(first, first + frames):
        seen = [i for i, s in enumerate(slots[:-1]) if s <= k]
        found.append(seen[-1] if seen else 0)
    return found


def cut(source: Path, clips: list[ClipSpec], out: Path, settings: CropSettings = FAST) -> dict:
    out.mkdir(exist_ok=True)
    results = crop_clips(source, clips, settings, lambda key: out / f"{key}.mp4")
    return {result.key: result for result in results}


def read(path: Path) -> tuple[list[int], np.ndarray | None]:
    """Numbers of the frames of a clip, and its sound at 16 kHz."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        numbers = []
        for index, frame in enumerate(container.decode(stream)):
            assert frame.time == pytest.approx(index / 25, abs=1e-6)
            numbers.append(number_of(frame.to_ndarray()[: frame.height, : frame.width]))
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return numbers, None
        frames = list(container.decode(container.streams.audio[0]))
        assert frames[0].time == pytest.approx(0, abs=1e-3)
        return numbers, np.concatenate([f.to_ndarray()[0] for f in frames])


def lag(sound: np.ndarray, wanted: np.ndarray) -> float:
    """Seconds by which a sound comes late, from the envelopes' cross-correlation."""
    size = min(len(sound), len(wanted))
    a, b = (np.convolve(np.abs(x[:size]), np.ones(80), "same") for x in (sound, wanted))
    spectrum = np.fft.rfft(a, 2 * size) * np.conj(np.fft.rfft(b, 2 * size))
    shift = int(np.fft.irfft(spectrum).argmax())
    return (shift if shift < size else shift - 2 * size) / RATE


def constant(rate: Fraction, count: int, base: Fraction) -> list[int]:
    return [round(i / rate / base) for i in range(count)]


def ragged(count: int) -> list[int]:
    """Variable frame rate in milliseconds, with two frames in one slot and a long pause."""
    steps = random.Random(5).choices([8, 17, 33, 40, 41, 67, 120], k=count - 1)
    steps[count // 2] = 900
    stamps = [0]
    for step in steps:
        stamps.append(stamps[-1] + step)
    return stamps


B_FRAMES = {"preset": "veryfast", "bf": "3", "g": "30"}
OPEN_GOP = {"preset": "veryfast", "g": "24", "x264-params": "open-gop=1:bframes=3:scenecut=0"}
MS = Fraction(1, 1000)
SOURCES = {
    "24.mp4": (constant(Fraction(24), 120, Fraction(1, 24)), Fraction(1, 24), {}),
    "25.mp4": (list(range(125)), Fraction(1, 25), {"options": B_FRAMES}),
    "29.97.mp4": ([1001 * i for i in range(150)], Fraction(1, 30000), {"options": B_FRAMES}),
    "30.mkv": (constant(Fraction(30), 150, MS), MS, {"options": B_FRAMES}),
    "open.mp4": (
        constant(Fraction(30), 150, Fraction(1, 30)),
        Fraction(1, 30),
        {"options": OPEN_GOP},
    ),
    "vfr.mp4": (ragged(110), MS, {"options": B_FRAMES}),
    "vfr.flv": (ragged(110), MS, {"options": B_FRAMES}),
    "late.mp4": (
        [30 * 1500 + 3000 * i for i in range(120)],
        Fraction(1, 90000),
        {"options": B_FRAMES},
    ),
    "late.mkv": ([740 + 33 * i for i in range(120)], MS, {"options": B_FRAMES}),
    "stream.ts": (
        constant(Fraction(30), 150, Fraction(1, 30)),
        Fraction(1, 30),
        {"options": OPEN_GOP},
    ),
    "vp9.webm": (
        constant(Fraction(30), 90, MS),
        MS,
        {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    ),
    "h264.avi": (list(range(150)), Fraction(1, 30), {"options": B_FRAMES, "rate": 30}),
    "plain.avi": (list(range(125)), Fraction(1, 25), {"options": {"bf": "0"}}),
    "divx.avi": (
        list(range(120)),
        Fraction(1, 24),
        {"codec": "mpeg4", "options": {"bf": "2"}, "rate": 24, "bit_rate": 2_000_000},
    ),
    "old.mpg": (list(range(100)), Fraction(1, 25), {"codec": "mpeg1video", "bit_rate": 2_000_000}),
}


class Sources(dict[str, Path]):
    """The videos of `SOURCES`, each written into a folder when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __missing__(self, name: str) -> Path:
        stamps, base, more = SOURCES[name]
        self[name] = write(self._folder / name, stamps, base, sound=5.0, **more)
        return self[name]


def verdict(path: Path, body: bytes) -> Status:
    """What a probe says of a body."""
    path.write_bytes(body)
    try:
        probe(path)
    except MediaError as error:
        assert "\n" not in error.detail and str(path.parent) not in error.detail
        assert "0x" not in error.detail
        return error.status
    return Status.OK
