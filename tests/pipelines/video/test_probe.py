"""Damaged and foreign bodies, each told apart."""

import errno
import struct
import wave
from itertools import islice

import av
import numpy as np
import pytest
from videos import RATE, Sources, clicks, verdict

from pipelines.statuses import Status
from pipelines.video import frames, grid, keyframes, sound
from pipelines.video import probe as probe_module
from pipelines.video.frames import FrameReader
from pipelines.video.grid import FrameTimes
from pipelines.video.keyframes import find_keyframe
from pipelines.video.probe import MediaError, open_container, probe
from pipelines.video.sound import read_sound


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources(tmp_path_factory.mktemp("sources"))


def test_foreign_bodies_are_not_videos(tmp_path):
    from PIL import Image

    path = tmp_path / "a.mp4"
    assert verdict(path, b"") == Status.NOT_A_VIDEO
    assert verdict(path, b"<!DOCTYPE html><html><body>Sign in</body></html>") == Status.NOT_A_VIDEO
    assert verdict(path, b'{"error": 1}' * 100) == Status.NOT_A_VIDEO
    assert verdict(path, b"just some words\n" * 500) == Status.NOT_A_VIDEO
    assert verdict(path, b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n") == Status.NOT_A_VIDEO
    assert verdict(path, bytes(100_000)) == Status.NOT_A_VIDEO
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", "not compressed"))
        file.writeframes(bytes(2 * RATE))
    with pytest.raises(MediaError, match="sound alone"):
        open_container(tmp_path / "sound.wav")
    for kind in ("png", "jpeg", "gif", "bmp", "webp", "tiff"):
        Image.new("RGB", (64, 64), "red").save(tmp_path / "picture", kind)
        assert verdict(path, (tmp_path / "picture").read_bytes()) == Status.NOT_A_VIDEO
    with av.open(str(tmp_path / "sound.mp4"), "w") as out:
        stream = out.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(clicks(1, RATE)[None], "fltp", "mono")
        frame.sample_rate = RATE
        out.mux(stream.encode(frame) + stream.encode(None))
    assert verdict(path, (tmp_path / "sound.mp4").read_bytes()) == Status.NOT_A_VIDEO


@pytest.mark.parametrize("name", ["25.mp4", "30.mkv", "vp9.webm", "h264.avi"])
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


def test_several_recordings_in_one_file_are_corrupt(sources, tmp_path):
    """Joined byte by byte, as a recorder's parts are: the clock begins anew."""
    with av.open(str(sources["25.mp4"])) as old, av.open(str(tmp_path / "a.ts"), "w") as new:
        copy = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = copy
                new.mux(packet)
    one = (tmp_path / "a.ts").read_bytes()
    assert verdict(tmp_path / "one.ts", one) == Status.OK
    (tmp_path / "both.ts").write_bytes(one + one)
    with pytest.raises(MediaError, match="the timestamps go back by") as caught:
        probe(tmp_path / "both.ts", deep=True)
    assert caught.value.status == Status.CORRUPT


def test_packets_before_the_beginning_are_no_clock_that_goes_back(tmp_path):
    """An edit list that begins behind a keyframe: what precedes it has negative timestamps."""
    path = tmp_path / "late.mp4"
    options = {"avoid_negative_ts": "disabled", "use_editlist": "1"}
    with av.open(str(path), "w", options=options) as new:
        stream = new.add_stream(
            "libx264", rate=25, options={"g": "250", "bf": "0", "sc_threshold": "0"}
        )
        stream.width = stream.height = 64
        for shade in [*range(125), None]:
            picture = None if shade is None else np.full((64, 64, 3), shade, np.uint8)
            frame = None if picture is None else av.VideoFrame.from_ndarray(picture)
            for packet in stream.encode(frame):
                three_seconds = 3 / packet.time_base
                packet.pts -= int(three_seconds)
                packet.dts -= int(three_seconds)
                new.mux(packet)
    with av.open(str(path)) as file:
        assert min(p.dts * p.time_base for p in file.demux(video=0) if p.dts is not None) < -2
    assert probe(path, deep=True).codec == "h264"


class Unanswering:
    """A container on a network's file system that stops to answer after some packets."""

    def __init__(self, container):
        self._container = container

    def __getattr__(self, name):
        return getattr(self._container, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._container.close()

    def demux(self, *streams):
        yield from islice(self._container.demux(*streams), 3)
        av.error.err_check(-errno.EIO)


@pytest.mark.parametrize(
    "look",
    [
        lambda path: probe(path, deep=True),
        FrameTimes.of,
        lambda path: list(iter(FrameReader(path).read, None)),
        lambda path: find_keyframe(path, -(10**9), 124 * 512),
        lambda path: read_sound(path, 0, 125, RATE),
    ],
    ids=["probe", "times", "frames", "keyframes", "sound"],
)
def test_a_disk_that_does_not_answer_says_nothing_of_the_file(sources, monkeypatch, look):
    def opened(path):
        return Unanswering(open_container(path))

    for module in (probe_module, grid, frames, keyframes, sound):
        monkeypatch.setattr(module, "open_container", opened)
    with pytest.raises(OSError, match="Input/output error") as caught:
        look(sources["25.mp4"])
    assert not isinstance(caught.value, av.error.FFmpegError)
