"""Frame truth: in order, after a seek, in every container, as ffmpeg's filter gives them."""

import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
from videos import (
    RATE,
    SIDE,
    SOURCES,
    Sources,
    clicks,
    cut,
    lag,
    needs_ffmpeg,
    number_of,
    read,
    shown,
    slots_of,
)

from pipelines.statuses import Status
from pipelines.video import ClipSpec, frames
from pipelines.video.keyframes import Keyframe


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources(tmp_path_factory.mktemp("sources"))


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
        assert result.status == Status.OK
        numbers, sound = read(result.path)
        assert numbers == shown(slots, clip.first_frame, clip.frames)
        if clip.first_frame >= 25 * 5:  # the sound is five seconds long
            assert sound is None and result.detail == "the sound of the video does not reach here"
            continue
        assert not result.detail or result.detail.startswith("the sound ends")
        assert result.has_audio and sound is not None
        assert 0 <= len(sound) - clip.frames * 640 < 1024
        if clip.frames > 40:
            wanted = np.pad(clicks(5, RATE), (0, 6 * RATE))[clip.first_frame * 640 :]
            if "late" in name or sources[name].suffix in (".mkv", ".ts", ".webm"):
                continue  # their containers' zero is not the sound's: see the tests of sound
            assert abs(lag(sound, wanted)) < 0.04


@pytest.mark.parametrize(
    "name", ["29.97.mp4", "vfr.mp4", "vfr.flv", "open.mp4", "late.mp4", "stream.ts"]
)
@needs_ffmpeg
def test_same_frames_as_the_fps_filter(sources, tmp_path, name):
    command = ["ffmpeg", "-v", "error", "-i", str(sources[name])]
    # The sound is read as well, since time 0 is where the first stream in use starts.
    command += ["-map", "0:a", "-f", "null", "-", "-map", "0:v", "-vf", "fps=25"]
    command += ["-pix_fmt", "gray", "-fps_mode", "passthrough", "-f", "rawvideo", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    theirs = [number_of(f) for f in np.frombuffer(raw, np.uint8).reshape(-1, SIDE, SIDE)]
    slots = slots_of(sources[name])
    first, frames = slots[0], min(len(theirs), slots[-1] - slots[0])
    result = cut(sources[name], [ClipSpec("a", first, frames)], tmp_path)["a"]
    assert read(result.path)[0] == theirs[:frames]
    assert abs(len(theirs) - (slots[-1] - slots[0])) <= 1


@pytest.mark.parametrize(
    "name", ["25.mp4", "open.mp4", "stream.ts", "vfr.mp4", "vfr.flv", "h264.avi", "old.mpg"]
)
def test_neighbours_and_seeks_leave_no_trace(sources, tmp_path, name, monkeypatch):
    clips = [c for c in some_clips(slots_of(sources[name])) if c.frames < 60]
    together = cut(sources[name], clips, tmp_path / "together")
    for ahead, folder in ((0, "seeking"), (10**9, "in order")):
        monkeypatch.setattr(frames, "SEEK_AHEAD", ahead)
        for clip in clips:
            alone = cut(sources[name], [clip], tmp_path / folder)[clip.key]
            assert alone.path.read_bytes() == together[clip.key].path.read_bytes()


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_times_of_decoding_are_not_taken_for_times_of_showing(sources, tmp_path, suffix):
    """As careless muxers leave them, and copies of what lay in an AVI."""
    path = tmp_path / f"careless{suffix}"
    with av.open(str(sources["25.mp4"])) as old, av.open(str(path), "w") as new:
        pictures = old.streams.video[0]
        copy = new.add_stream_from_template(pictures)
        packets = [packet for packet in old.demux(pictures) if packet.size]
        begin = packets[0].dts
        for packet in packets:
            packet.pts = packet.dts = packet.dts - begin
            packet.stream = copy
            new.mux(packet)
    clips = [ClipSpec("time", 30, 60), ClipSpec("number", 30, 60, fps=None)]
    for result in cut(path, clips, tmp_path).values():
        assert read(result.path)[0] == list(range(30, 90))


def test_a_bare_stream_is_counted(sources, tmp_path):
    path = tmp_path / "bare.h264"
    with av.open(str(sources["25.mp4"])) as old:
        bare = av.BitStreamFilterContext("h264_mp4toannexb", old.streams.video[0])
        packets = [p for packet in old.demux(video=0) for p in bare.filter(packet)]
        path.write_bytes(b"".join(bytes(packet) for packet in packets))
    clips = [ClipSpec("number", 30, 60, fps=None), ClipSpec("all", 0, None)]
    results = cut(path, clips, tmp_path)
    assert read(results["number"].path)[0] == list(range(30, 90))
    assert read(results["all"].path)[0] == list(range(125))


@pytest.mark.parametrize("miss", [Keyframe(101, 100), Keyframe(10**6, 10**6), Keyframe(120, 118)])
def test_a_seek_that_misses_starts_over(sources, tmp_path, monkeypatch, miss):
    """No keyframe there, nothing there at all, or pictures that begin too late."""
    base = 512  # ticks a frame

    def misleading(path: Path, after: int, until: int) -> Keyframe:
        assert (path, until) == (sources["25.mp4"], 100 * base)
        return Keyframe(miss.pts * base, miss.dts * base)

    restarts = []
    start_over = frames.FrameReader._start_over
    monkeypatch.setattr(frames, "SEEK_AHEAD", 0)
    monkeypatch.setattr(frames, "find_keyframe", misleading)
    monkeypatch.setattr(
        frames.FrameReader, "_start_over", lambda self: restarts.append(1) or start_over(self)
    )
    result = cut(sources["25.mp4"], [ClipSpec("a", 100, 25)], tmp_path)["a"]
    assert read(result.path)[0] == list(range(100, 125))
    assert restarts == [1]
