"""Frame truth: videos whose every frame carries its own number, cut and read back.

The expectation is computed here from the packets' timestamps with fractions, independently of
the kernel: slot k shows the last frame whose time, times 25 and rounded half away from zero,
is at most k.
"""

import random
import shutil
import struct
import subprocess
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from av.error import FFmpegError

from pipelines import video
from pipelines.probe import MediaError, probe
from pipelines.schemas import Status
from pipelines.video import ClipSpec, CropSettings, crop_clips

SIDE = 64
FAST = CropSettings(size=SIDE, preset="ultrafast", crf=20, scene_threshold=0)
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
        rows = sorted(
            (p.pts, p.duration or 0)
            for p in container.demux(stream)
            if p.size and p.pts is not None
        )
        times = [row[0] * stream.time_base - start for row in rows]
        return [slot(t) for t in times] + [slot(times[-1] + rows[-1][1] * stream.time_base)]


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
    "old.mpg": (list(range(100)), Fraction(1, 25), {"codec": "mpeg1video", "bit_rate": 2_000_000}),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    made = {}
    for name, (stamps, base, more) in SOURCES.items():
        made[name] = write(folder / name, stamps, base, sound=5.0, **more)
    return made


def some_clips(slots: list[int]) -> list[ClipSpec]:
    """Overlapping, adjacent, one-frame and whole-length clips."""
    end = slots[-1]
    spans = [(0, end), (0, 1), (end - 26, 26), (7, 30), (8, 30), (37, 20), (end // 2, end // 3)]
    return [ClipSpec(f"{a}-{n}", a, n) for a, n in spans]


@pytest.mark.parametrize("name", SOURCES)
def test_every_frame_of_every_clip_is_the_right_one(sources, tmp_path, name):
    slots = slots_of(sources[name])
    clips = some_clips(slots)
    results = cut(sources[name], clips, tmp_path)
    for clip in clips:
        result = results[clip.key]
        assert (result.status, result.detail) == (Status.OK, "")
        numbers, sound = read(result.path)
        assert numbers == shown(slots, clip.first_frame, clip.frames)
        assert result.has_audio and sound is not None
        assert 0 <= len(sound) - clip.frames * 640 < 1024
        if clip.frames > 40:
            wanted = np.pad(clicks(5, RATE), (0, 6 * RATE))[clip.first_frame * 640 :]
            if "late" in name or sources[name].suffix in (".mkv", ".ts", ".webm"):
                continue  # their containers' zero is not the sound's: see the tests of sound
            assert abs(lag(sound, wanted)) < 0.04


@pytest.mark.parametrize("name", ["25.mp4", "30.mkv", "stream.ts", "old.mpg", "vp9.webm"])
def test_sound_stays_in_step_wherever_a_clip_starts(sources, tmp_path, name):
    with av.open(str(sources[name])) as container:
        stream = container.streams.audio[0]
        start = Fraction(container.start_time or 0, av.time_base)
        frames = list(container.decode(stream))
        offset = frames[0].pts * stream.time_base - start
        rate = frames[0].sample_rate
        whole = np.concatenate([f.to_ndarray()[0].astype(np.float32) for f in frames])
    onset = np.flatnonzero(np.abs(whole) > 0.3 * np.abs(whole).max())[0] / rate + float(offset)
    for first in (0, 5, 11):
        result = cut(sources[name], [ClipSpec("a", first, 60)], tmp_path)["a"]
        _, sound = read(result.path)
        heard = np.flatnonzero(np.abs(sound) > 0.3 * np.abs(sound).max())[0] / RATE
        assert heard == pytest.approx(onset - first / 25, abs=0.04)


@pytest.mark.parametrize("name", ["29.97.mp4", "vfr.mp4", "open.mp4", "late.mp4", "stream.ts"])
@needs_ffmpeg
def test_same_frames_as_the_fps_filter(sources, tmp_path, name):
    command = ["ffmpeg", "-v", "error", "-i", str(sources[name])]
    # The sound is read as well, since time 0 is where the first stream in use starts.
    command += ["-map", "0:a", "-f", "null", "-", "-map", "0:v", "-vf", "fps=25"]
    command += ["-pix_fmt", "gray", "-vsync", "passthrough", "-f", "rawvideo", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    theirs = [number_of(f) for f in np.frombuffer(raw, np.uint8).reshape(-1, SIDE, SIDE)]
    slots = slots_of(sources[name])
    first, frames = slots[0], min(len(theirs), slots[-1] - slots[0])
    result = cut(sources[name], [ClipSpec("a", first, frames)], tmp_path)["a"]
    assert read(result.path)[0] == theirs[:frames]
    assert abs(len(theirs) - (slots[-1] - slots[0])) <= 1


@pytest.mark.parametrize("name", ["25.mp4", "open.mp4", "stream.ts", "vfr.mp4"])
def test_neighbours_and_seeks_leave_no_trace(sources, tmp_path, name, monkeypatch):
    clips = [c for c in some_clips(slots_of(sources[name])) if c.frames < 60]
    together = cut(sources[name], clips, tmp_path / "together")
    for ahead, folder in ((0, "seeking"), (10**9, "in order")):
        monkeypatch.setattr(video, "SEEK_AHEAD", ahead)
        for clip in clips:
            alone = cut(sources[name], [clip], tmp_path / folder)[clip.key]
            assert alone.path.read_bytes() == together[clip.key].path.read_bytes()


def test_a_seek_enters_only_at_clean_keyframes(tmp_path, monkeypatch):
    """Periodic intra refresh has one IDR; open GOPs flag keyframes that lean on the past."""
    monkeypatch.setattr(video, "SEEK_AHEAD", 25)
    entered = []
    leap = video._Reader._leap

    def spy(self, frame):
        packet = leap(self, frame)
        if packet is not None:
            entered.append(packet.pts * packet.time_base)
        return packet

    monkeypatch.setattr(video._Reader, "_leap", spy)
    stamps, base = list(range(300)), Fraction(1, 25)
    closed = write(tmp_path / "a.mp4", stamps, base, options=B_FRAMES)
    refresh = {"x264-params": "intra-refresh=1:keyint=30:bframes=0"}
    rolling = write(tmp_path / "b.mp4", stamps, base, options=refresh)
    old = write(tmp_path / "c.mp4", stamps, base, options=B_FRAMES, pix_fmt="yuv444p")
    for source, seeks in ((closed, 1), (rolling, 0), (old, 0)):
        entered.clear()
        result = cut(source, [ClipSpec("a", 250, 40)], tmp_path)["a"]
        assert read(result.path)[0] == list(range(250, 290))
        assert len([t for t in entered if t > 0]) == seeks


def test_frames_of_other_annotation_rates(sources, tmp_path):
    source = sources["29.97.mp4"]
    slots = slots_of(source)
    thirty = cut(source, [ClipSpec("a", 30, 60, fps=30.0)], tmp_path)["a"]
    assert (thirty.first_frame, thirty.frames) == (25, 50)
    native = cut(source, [ClipSpec("a", 30, 60, fps=None)], tmp_path)["a"]
    assert (native.first_frame, native.frames) == (slots[30], slots[90] - slots[30])
    assert read(native.path)[0] == shown(slots, slots[30], native.frames)
    segment = cut(source, [ClipSpec("a", 3, 30, fps=None, segment_start=0.9)], tmp_path)["a"]
    with av.open(str(source)) as container:
        packets = sorted((p.pts, p) for p in container.demux(video=0) if p.size)
    key = next(
        i for i, (_, p) in enumerate(packets) if p.is_keyframe and p.pts * p.time_base >= 0.9
    )
    assert segment.first_frame == slots[key + 3]
    whole = cut(source, [ClipSpec("a", None, None)], tmp_path)["a"]
    assert read(whole.path)[0] == shown(slots, 0, slots[-1])


def test_ends_are_honest(sources, tmp_path):
    clips = [ClipSpec(f"{a}", a, n) for a, n in ((100, 25), (101, 26), (102, 40), (130, 5))]
    results = cut(sources["25.mp4"], clips, tmp_path)
    assert results["100"].status == Status.OK and not results["100"].detail
    assert results["101"].status == Status.OK and "repeated 2" in results["101"].detail
    assert read(results["101"].path)[0][-3:] == [124, 124, 124]
    assert results["102"].status == Status.OUT_OF_RANGE and results["102"].path is None
    assert "17 frames" in results["102"].detail
    assert results["130"].detail == "starts at 5.20 s, the video ends at 5.00 s"


def test_the_box_recorded_is_the_box_cut(tmp_path):
    """A numbered tile stands somewhere in a noisy picture; the crop shows just the tile."""
    noise = np.random.default_rng(0).integers(90, 160, (240, 320), np.uint8)

    def tile(number: int) -> np.ndarray:
        canvas = noise.copy()
        canvas[60:124, 130:194] = picture(number)
        return canvas

    source = write(tmp_path / "tile.mp4", list(range(40)), Fraction(1, 25), draw=tile)
    face = np.array([[146, 76, 32, 32]], np.float32)
    fraction = face / np.array([320, 240, 320, 240], np.float32)
    doubled = face * 2
    settings = CropSettings(size=SIDE, margin=1.0, scene_threshold=0)
    clips = [
        ClipSpec("f", 0, 40, boxes=fraction),
        ClipSpec("d", 0, 40, boxes=np.repeat(doubled, 40, 0), box_height=480),
        ClipSpec(
            "r", 0, 40, boxes=face + np.array([-16, -16, 32, 32]), box_height=240, crop_ready=True
        ),
    ]
    for result in cut(source, clips, tmp_path, settings).values():
        assert result.crop_boxes.tolist() == [[130, 60, 64, 64]]
        assert result.padding == 0
        assert read(result.path)[0] == list(range(40))
    assert result.face_boxes.tolist() == [[0, 0, 64, 64]]


@pytest.mark.parametrize("offset", [(0, 0), (-40, -30)])
def test_a_tracked_box_follows_the_face(tmp_path, offset):
    noise = np.random.default_rng(0).integers(90, 160, (240, 320), np.uint8)

    def tile(number: int) -> np.ndarray:
        canvas = np.pad(noise, 64)
        x, y = 64 + 40 + offset[0] + 2 * number, 64 + 30 + offset[1] + number // 2 * 2
        canvas[y : y + 64, x : x + 64] = picture(number)
        return np.ascontiguousarray(canvas[64:-64, 64:-64])

    source = write(tmp_path / "tile.mp4", list(range(50)), Fraction(1, 25), draw=tile)
    places = [[40 + offset[0] + 2 * i, 30 + offset[1] + i // 2 * 2, 64, 64] for i in range(50)]
    spec = ClipSpec("a", 0, 50, boxes=np.array(places, np.float32), box_height=240)
    settings = CropSettings(size=SIDE, policy="track", margin=0, smooth=0, scene_threshold=0)
    result = cut(source, [spec], tmp_path, settings)["a"]
    assert result.crop_boxes.tolist() == places
    assert read(result.path)[0] == list(range(50))


def test_a_box_beyond_the_picture_is_padded_with_black(sources, tmp_path):
    box = np.array([[-32, 16, 64, 64]], np.float32)
    spec = ClipSpec("a", 0, 5, boxes=box, box_height=SIDE, crop_ready=True)
    result = cut(sources["25.mp4"], [spec], tmp_path)["a"]
    assert result.crop_boxes.tolist() == box.tolist()
    assert result.padding == pytest.approx(1 - 32 * 48 / 64**2)
    with av.open(str(result.path)) as container:
        luma = next(container.decode(video=0)).to_ndarray()[:SIDE]
    assert luma[:, :28].max() < 24 and luma[52:].max() < 24
    gone = ClipSpec("a", 0, 5, boxes=box - 200, box_height=SIDE, crop_ready=True)
    assert cut(sources["25.mp4"], [gone], tmp_path)["a"].status == Status.OUT_OF_RANGE


def test_small_faces_and_short_clips_are_named(sources, tmp_path):
    box = np.array([[10, 10, 20, 24]], np.float32)
    clips = [ClipSpec("small", 0, 30, boxes=box, box_height=SIDE), ClipSpec("short", 0, 9)]
    settings = CropSettings(size=SIDE, min_face=21, min_frames=10)
    results = cut(sources["25.mp4"], clips, tmp_path, settings)
    assert results["small"].status == Status.TOO_SMALL and "20 pixels" in results["small"].detail
    assert results["short"].status == Status.TOO_SHORT


def test_pixels_that_are_not_square(tmp_path):
    source = write(
        tmp_path / "a.mpg",
        list(range(30)),
        Fraction(1, 25),
        "mpeg2video",
        draw=lambda n: picture(n, 360, 288),
        sample_aspect_ratio=Fraction(16, 15),
        bit_rate=4_000_000,
    )
    assert probe(source).sar == Fraction(16, 15)
    face = np.array([[0.4, 0.4, 0.2 * 15 / 16 * 0.8, 0.2]], np.float32)  # square on the screen
    result = cut(source, [ClipSpec("a", 0, 20, boxes=face)], tmp_path)["a"]
    _, _, width, height = result.crop_boxes[0]
    assert width * 16 / 15 == pytest.approx(height, abs=2.2)


@needs_ffmpeg
@pytest.mark.parametrize("turn", [90, 180, 270])
def test_rotated_videos_are_cut_upright(tmp_path, turn):
    upright = (lambda n: picture(n, 128, 64)) if turn == 180 else (lambda n: picture(n, 64, 128))
    stored = write(
        tmp_path / "s.mp4",
        list(range(30)),
        Fraction(1, 25),
        draw=lambda n: np.ascontiguousarray(np.rot90(upright(n), turn // 90)),
    )
    source = tmp_path / "r.mp4"
    for angle in (turn, -turn):  # the meaning of the flag differs between ffmpeg versions
        command = ["ffmpeg", "-y", "-v", "error", "-display_rotation", str(angle), "-i"]
        done = subprocess.run([*command, str(stored), "-c", "copy", str(source)], check=False)
        if done.returncode:
            tags = ["-c", "copy", "-metadata:s:v:0", f"rotate={angle % 360}", str(source)]
            subprocess.run(["ffmpeg", "-y", "-v", "error", "-i", str(stored), *tags], check=True)
        if probe(source).rotation == turn:
            break
    info = probe(source)
    assert info.rotation == turn
    assert (info.width, info.height) == ((128, 64) if turn == 180 else (64, 128))
    spec = ClipSpec("a", 0, 30, boxes=np.array([[0, 0, 1, 0.5]], np.float32), crop_ready=True)
    if turn == 180:
        spec = ClipSpec("a", 0, 30, boxes=np.array([[0, 0, 0.5, 1]], np.float32), crop_ready=True)
    result = cut(source, [spec], tmp_path)["a"]
    with av.open(str(result.path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            wanted = upright(number)[:64, :64].astype(float)
            assert np.abs(frame.to_ndarray()[:SIDE] - wanted).mean() < 25


def test_a_cut_is_found_and_a_flash_is_not(tmp_path):
    rng = np.random.default_rng(1)
    scenes = [
        np.kron(rng.integers(30, 220, (8, 8), np.uint8), np.ones((8, 8), np.uint8))
        for _ in range(2)
    ]

    def draw(number: int) -> np.ndarray:
        if number in (20, 21):
            return np.full((SIDE, SIDE), 235, np.uint8)
        return np.roll(scenes[number >= 60], number // 8, axis=1)

    source = write(tmp_path / "a.mp4", list(range(90)), Fraction(1, 25), draw=draw)
    settings = CropSettings(size=SIDE, preset="ultrafast")
    clips = [ClipSpec("flash", 0, 50), ClipSpec("cut", 40, 40)]
    results = cut(source, clips, tmp_path, settings)
    assert results["flash"].status == Status.OK
    assert results["cut"].status == Status.SCENE_CUT
    assert results["cut"].detail.startswith("at 2.40 s")


def test_a_full_disk_is_no_fault_of_the_video(sources, tmp_path):
    with pytest.raises(OSError):
        list(crop_clips(sources["25.mp4"], [ClipSpec("a", 0, 9)], FAST, lambda key: tmp_path))


def test_sound_that_does_not_decode_costs_no_clip(tmp_path, sources):
    data = bytearray(sources["25.mp4"].read_bytes())
    with av.open(str(sources["25.mp4"])) as container:
        spots = [(p.pos, p.size) for p in container.demux(container.streams.audio[0]) if p.size]
    for position, size in spots:
        data[position : position + size] = bytes([0xFF]) * size
    source = tmp_path / "mute.mp4"
    source.write_bytes(data)
    result = cut(source, [ClipSpec("a", 10, 50)], tmp_path)["a"]
    assert result.status == Status.OK and not result.has_audio
    assert "sound" in result.detail
    assert read(result.path)[0] == list(range(10, 60))


# --- damaged and foreign bodies -----------------------------------------------------------


def verdict(path: Path, body: bytes) -> Status:
    path.write_bytes(body)
    try:
        probe(path)
    except MediaError as error:
        assert "\n" not in error.detail and str(path.parent) not in error.detail
        assert "0x" not in error.detail
        return error.status
    return Status.OK


def test_foreign_bodies_are_not_videos(tmp_path):
    from PIL import Image

    path = tmp_path / "a.mp4"
    assert verdict(path, b"") == Status.NOT_A_VIDEO
    assert verdict(path, b"<!DOCTYPE html><html><body>Sign in</body></html>") == Status.NOT_A_VIDEO
    assert verdict(path, b'{"error": 1}' * 100) == Status.NOT_A_VIDEO
    assert verdict(path, b"just some words\n" * 500) == Status.NOT_A_VIDEO
    assert verdict(path, b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n") == Status.NOT_A_VIDEO
    assert verdict(path, bytes(100_000)) == Status.NOT_A_VIDEO
    for kind in ("png", "jpeg", "gif", "bmp", "webp", "tiff"):
        Image.new("RGB", (64, 64), "red").save(tmp_path / "picture", kind)
        assert verdict(path, (tmp_path / "picture").read_bytes()) == Status.NOT_A_VIDEO
    with av.open(str(tmp_path / "sound.mp4"), "w") as out:
        stream = out.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(clicks(1, RATE)[None], "fltp", "mono")
        frame.sample_rate = RATE
        out.mux(stream.encode(frame) + stream.encode(None))
    assert verdict(path, (tmp_path / "sound.mp4").read_bytes()) == Status.NOT_A_VIDEO


@pytest.mark.parametrize("name", ["25.mp4", "30.mkv", "vp9.webm"])
def test_cut_bodies_are_truncated(sources, tmp_path, name):
    body = sources[name].read_bytes()
    assert verdict(tmp_path / name, body) == Status.OK
    for share in (0.3, 0.7, 0.99):
        assert verdict(tmp_path / name, body[: int(len(body) * share)]) == Status.TRUNCATED


def test_a_cut_body_with_its_index_in_front_is_truncated(sources, tmp_path):
    with av.open(str(sources["25.mp4"])) as old:
        name, options = str(tmp_path / "fast.mp4"), {"movflags": "+faststart"}
        with av.open(name, "w", options=options) as new:
            copies = {s.index: new.add_stream_from_template(s) for s in old.streams}
            for packet in old.demux():
                if packet.dts is not None:
                    packet.stream = copies[packet.stream.index]
                    new.mux(packet)
    body = (tmp_path / "fast.mp4").read_bytes()
    assert body.index(b"moov") < body.index(b"mdat")
    assert verdict(tmp_path / "a.mp4", body) == Status.OK
    assert verdict(tmp_path / "a.mp4", body[: len(body) * 3 // 4]) == Status.TRUNCATED


def test_frames_that_do_not_decode_are_corrupt(sources, tmp_path):
    body = bytearray(sources["25.mp4"].read_bytes())
    start = body.index(b"mdat") + 4
    body[start : body.index(b"moov") - 4] = bytes(body.index(b"moov") - 4 - start)
    assert verdict(tmp_path / "a.mp4", bytes(body)) == Status.CORRUPT
    body = bytearray(sources["25.mp4"].read_bytes())
    at = body.index(b"mdhd") + 4
    body[at + 16 : at + 20] = struct.pack(">I", 2**31 - 1)  # weeks of video
    assert verdict(tmp_path / "a.mp4", bytes(body)) in (Status.CORRUPT, Status.OK)


def test_damage_gives_typed_results_and_nothing_else(sources, tmp_path):
    """Bits flipped, runs zeroed, parts lost: seeded, so that a failure comes back."""
    rng = random.Random(7)
    clips = [ClipSpec("a", 3, 20), ClipSpec("b", 20, 70), ClipSpec("n", 2, 20, fps=None)]
    allowed = {Status.OK, Status.DECODE_ERROR, Status.OUT_OF_RANGE}
    for round_ in range(60):
        name = rng.choice(["25.mp4", "30.mkv", "old.mpg", "stream.ts", "vp9.webm"])
        body = bytearray(sources[name].read_bytes())
        kind = round_ % 4
        if kind == 0:
            for _ in range(rng.randint(1, 40)):
                body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
        elif kind == 1:
            at = rng.randrange(len(body))
            body[at : at + 600] = bytes(len(body[at : at + 600]))
        elif kind == 2:
            at = rng.randrange(len(body))
            del body[at : at + rng.randint(1, 3000)]
        else:
            for _ in range(8):  # headers
                body[rng.randrange(min(2000, len(body)))] = rng.randrange(256)
        path = tmp_path / name
        status = verdict(path, bytes(body))
        assert status in {Status.OK, Status.NOT_A_VIDEO, Status.TRUNCATED, Status.CORRUPT}
        try:
            results = cut(path, clips, tmp_path / "out")
        except MediaError:
            continue
        assert {r.status for r in results.values()} <= allowed
        assert set(results) == {"a", "b", "n"}
        for result in results.values():
            assert "\n" not in result.detail and str(tmp_path) not in result.detail
            if result.path:
                assert len(read(result.path)[0]) == result.frames


def test_damage_inside_one_clip_spares_the_others(tmp_path):
    source = write(tmp_path / "a.mp4", list(range(250)), Fraction(1, 25), options=B_FRAMES)
    with av.open(str(source)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        spots = [(p.pos, p.size) for p in packets if 95 <= p.pts * p.time_base * 25 < 105]
    body = bytearray(source.read_bytes())
    for position, size in spots:
        body[position + 5 : position + size] = bytes(size - 5)
    source.write_bytes(body)
    clips = [ClipSpec("before", 10, 60), ClipSpec("hit", 70, 60), ClipSpec("after", 160, 60)]
    results = cut(source, clips, tmp_path)
    assert results["hit"].status == Status.DECODE_ERROR
    for key, first in (("before", 10), ("after", 160)):
        assert read(results[key].path)[0] == list(range(first, first + 60))


def test_slots_grow_and_errors_are_of_one_kind():
    assert issubclass(FFmpegError, Exception)
    slots = [video._slot(i, Fraction(1, 1000)) for i in range(-100, 100)]
    assert all(b - a in (0, 1) for a, b in pairwise(slots))
    assert [video._slot(i, Fraction(1, 50)) for i in (-3, -1, 0, 1, 3)] == [-2, -1, 0, 1, 2]
