"""Same input, same bytes on any processor: ours is told to be older than it is."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from videos import cut

from pipelines import clips, crop, landmarks, shard, storage
from pipelines.video import ClipSpec, CropSettings, exact

FFMPEG = {"C": 0, "SSE2": 0x18}
"""AV_CPU_FLAG_* of libavutil/cpu.h: SSE is 0x8, SSE2 0x10."""
X264 = {"C": "0", "SSE2": "SSE2"}


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Make FFmpeg and x264 believe that this is another processor."""
    library = next(
        (
            line.split()[-1]
            for line in Path("/proc/self/maps").read_text().splitlines()
            if "libavutil" in line
        ),
        None,
    )
    if library is None:
        pytest.skip("the libavutil that PyAV uses is not to be found")
    force = ctypes.CDLL(library).av_force_cpu_flags
    params = exact.X264["x264-params"]

    def pretend(name: str) -> None:
        force(FFMPEG[name])
        monkeypatch.setitem(exact.X264, "x264-params", f"{params}:asm={X264[name]}")

    yield pretend
    force(-1)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy colours that move and change their light: whole numbers, stored as they are."""
    rng = np.random.default_rng(0)
    blobs = np.kron(rng.integers(40, 200, (36, 32)), np.ones((16, 16), int))  # Y, then U and V
    for axis in (0, 1):
        blobs = sum(np.roll(blobs, step, axis) for step in range(-8, 9)) // 17
    path = tmp_path_factory.mktemp("exact") / "a.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 512, 384, "yuv420p"
        for number in range(100):
            moved = np.roll(blobs, (number, 3 * number // 2), (0, 1)) + abs(number % 40 - 20)
            noisy = (moved + rng.integers(-6, 7, moved.shape)).clip(16, 235).astype(np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(noisy, "yuv420p")))
        out.mux(stream.encode(None))
    return path


def clip_of(source: Path, folder: Path) -> Path:
    """The clip that the kernel cuts out of it."""
    boxes = np.array([[120 + i // 4, 90, 130, 130] for i in range(100)], np.float32)
    spec = ClipSpec("a", 0, 100, boxes=boxes, box_height=384)
    folder.mkdir()
    path: Path = cut(source, [spec], folder, CropSettings(policy="track"))["a"].path
    return path


def test_the_bytes_are_those_of_this_version(source: Path, tmp_path: Path) -> None:
    """Where they are not, and on purpose, raise VERSION in crop.py (landmarks.py, shard.py)."""
    path = clip_of(source, tmp_path / "clip")
    assert crop.VERSION == landmarks.VERSION + 2 == shard.VERSION + 2 == 4
    assert storage.sha256(path)[:16] == "3489bf82066e8ca2"
    frames = clips.read_frames(path)
    assert storage.digest_bytes(frames.tobytes())[:16] == "d9eeef7a14c013fc"
    picture = shard._jpeg(frames[50], 95)
    assert storage.digest_bytes(picture)[:16] == "f747bac9046f712c"


@pytest.mark.parametrize("older", FFMPEG)
def test_clips_and_their_frames(
    processor: Callable[[str], None], source: Path, tmp_path: Path, older: str
) -> None:
    here = clip_of(source, tmp_path / "here")
    frames = clips.read_frames(here)
    processor(older)
    there = clip_of(source, tmp_path / "there")
    assert there.read_bytes() == here.read_bytes()
    assert (clips.read_frames(there) == frames).all()
