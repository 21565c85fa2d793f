"""Hostile media: containers that open other files, bombs of pixels, streams, sound and time."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pipelines import catalog, clips, manifest
from pipelines.params import Params
from pipelines.statuses import Status
from pipelines.video import ClipSpec, CropSettings, crop_clips
from pipelines.video.probe import MediaError, open_container, probe
from pipelines.video.sound import read_sound

REPO = Path(__file__).resolve().parents[2]
FAST = CropSettings(size=64, preset="ultrafast")
MB = 2**20


# --- files that name other files --------------------------------------------------------------


@pytest.fixture
def secret(tmp_path: Path, make_video: Callable[..., Path]) -> Path:
    return make_video(tmp_path / "secret.mp4", frames=30)


REFERRERS = {
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n",
    "m3u8 by url": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{}\n#EXT-X-ENDLIST\n",
    "m3u8 of the web": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nhttp://127.0.0.1:9/x.m3u8\n",
    "ffconcat": "ffconcat version 1.0\nfile {}\n",
    "ffconcat beside": "ffconcat version 1.0\nfile secret.mp4\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\n",
    "mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT1S"><Period><AdaptationSet mimeType="video/mp4">'
    '<Representation id="1" bandwidth="1"><BaseURL>{}</BaseURL></Representation>'
    "</AdaptationSet></Period></MPD>",
    "svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="file://{}"/></svg>',
    "ass": "[Script Info]\nScriptType: v4.00+\n[Events]\nDialogue: 0,0:00:00.00,0:00:01.00,,x\n",
    "imf": '<?xml version="1.0"?><CompositionPlaylist><Id>{}</Id></CompositionPlaylist>',
    "rtsp text": "RTSPtextRTSP://127.0.0.1:9/x\n",
}


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "m3u8"])
@pytest.mark.parametrize("name", sorted(REFERRERS))
def test_a_list_of_other_files_posing_as_a_video_opens_none_of_them(
    secret: Path, tmp_path: Path, name: str, suffix: str
) -> None:
    path = tmp_path / f"posing.{suffix}"
    path.write_text(REFERRERS[name].format(secret))
    with pytest.raises(MediaError) as caught:
        probe(path, deep=True)
    assert caught.value.status is Status.NOT_A_VIDEO
    with pytest.raises(MediaError):
        list(crop_clips(path, [ClipSpec("k")], FAST, lambda key: tmp_path / "out.mp4"))
    with pytest.raises(av.error.FFmpegError):
        clips.read_frames(path)
    assert not (tmp_path / "out.mp4").exists()


def test_libav_itself_would_have_followed_the_list(secret: Path, tmp_path: Path) -> None:
    """Else the test above would pass for another reason."""
    path = tmp_path / "posing.mp4"
    path.write_text(REFERRERS["ffconcat beside"])
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).width == 64


@pytest.mark.parametrize(
    "name", ["concat:secret.mp4|secret.mp4", "subfile,,start,0,end,0,,:secret.mp4", "-i", "http:x"]
)
def test_a_file_name_is_never_taken_for_a_protocol(
    secret: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError):
        open_container(name)
    Path(name).write_bytes(secret.read_bytes())
    assert probe(name).width == 64  # a file of that very name is that file
    assert len(clips.read_frames(Path(name))) == 30


def test_a_quicktime_reference_to_another_file_is_not_followed(
    secret: Path, tmp_path: Path
) -> None:
    """`dref` may say that the pictures lie elsewhere."""
    data = bytearray(secret.read_bytes())
    at = data.index(b"url \0\0\0\1")
    data[at : at + 8] = b"alis\0\0\0\0"
    start = data.index(b"mdat") + 4
    size = int.from_bytes(data[start - 8 : start - 4])
    data[start : start + size - 8] = bytes(size - 8)
    path = tmp_path / "referring.mov"
    path.write_bytes(data)
    with pytest.raises(MediaError):
        probe(path, deep=True)


# --- bombs ------------------------------------------------------------------------------------


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    packer = zlib.compressobj(9)
    rows = bytes((width + 1) * 125)
    body = b"".join(packer.compress(rows) for _ in range(height // 125)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def mux(path: Path, codec: str, packets: list[bytes], **settings: Any) -> Path:
    """A container around packets that no encoder made."""
    with av.open(str(path), "w") as out:
        stream = out.add_mux_stream(codec, **settings)
        for at, data in enumerate(packets):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts = stream, at, at
            packet.time_base, packet.duration = Fraction(1, 25), 1
            packet.is_keyframe = True
            out.mux(packet)
    return path


@pytest.mark.parametrize("honest", [True, False])
def test_a_picture_of_gigapixels_costs_no_memory(tmp_path: Path, honest: bool) -> None:
    """16,000 x 16,000 in 250 kB; in one case the container's own header says 64 x 64."""
    said = 16_000 if honest else 64
    path = mux(
        tmp_path / "bomb.mov", "png", [png(16_000, 16_000)] * 3, rate=25, width=said, height=said
    )
    assert path.stat().st_size < MB
    script = (
        "import resource, sys\n"
        "from pipelines.video.probe import MediaError, probe\n"
        "from pipelines.video import CropSettings, crop_clips, ClipSpec\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "def cut():\n"
        "    list(crop_clips(sys.argv[1], [ClipSpec('k')], CropSettings(), str))\n"
        "for read in (lambda: probe(sys.argv[1], deep=True), cut):\n"
        "    try:\n"
        "        read()\n"
        "    except MediaError as error:\n"
        "        print(error.status)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, path], cwd=REPO, capture_output=True, text=True, check=True
    )
    *statuses, kilobytes = done.stdout.split()
    assert statuses == ["corrupt", "corrupt"]
    assert int(kilobytes) < 100_000  # one such picture alone takes 256 MB


def test_a_picture_of_eight_thousand_pixels_is_still_a_video(tmp_path: Path) -> None:
    path = mux(tmp_path / "8k.mov", "png", [png(7680, 4250)], rate=25, width=7680, height=4250)
    assert probe(path).width == 7680


def test_hundreds_of_streams_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "many.mp4"
    with av.open(str(path), "w") as out:
        for stream in [out.add_mux_stream("aac", rate=16000) for _ in range(900)]:
            packet = av.Packet(bytes(16))
            packet.stream, packet.pts, packet.dts = stream, 0, 0
            out.mux(packet)
    with pytest.raises(MediaError) as caught:
        probe(path, deep=True)
    assert caught.value.status is Status.CORRUPT


@pytest.fixture
def video(tmp_path: Path, make_video: Callable[..., Path]) -> Path:
    return make_video(tmp_path / "v.mp4", frames=50, side=128)


@pytest.mark.parametrize("policy", ["clip", "track"])
@pytest.mark.parametrize("side", [200.0, 1e6])
def test_a_box_far_larger_than_the_picture_is_out_of_range(
    video: Path, tmp_path: Path, policy: Any, side: float
) -> None:
    """In fractions of the picture: 200 of them are 25,600 pixels a side, gigabytes of padding."""
    boxes = np.tile(np.array([[-side / 2, -side / 2, side, side]], np.float32), (50, 1))
    settings = CropSettings(size=64, policy=policy)
    spec = ClipSpec("k", first_frame=0, frames=50, boxes=boxes)
    (result,) = crop_clips(video, [spec], settings, lambda key: tmp_path / "out.mp4")
    assert result.status is Status.OUT_OF_RANGE
    assert "far beyond" in result.detail


def test_a_box_twice_as_large_as_the_picture_is_cut(video: Path, tmp_path: Path) -> None:
    boxes = np.array([[-0.5, -0.5, 2, 2]], np.float32)
    spec = ClipSpec("k", first_frame=0, frames=50, boxes=boxes)
    (result,) = crop_clips(video, [spec], FAST, lambda key: tmp_path / "out.mp4")
    assert result.status is Status.OK


def with_sound(path: Path, rate: int) -> Path:
    """A video with sound of so few samples a second that a packet of it lasts for hours."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", 25, options={"preset": "ultrafast"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        sound = out.add_stream("pcm_s16le", rate=rate, layout="mono")
        black = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
        for number in range(25):
            black.pts = number
            out.mux(stream.encode(black))
        out.mux(stream.encode(None))
        packet = av.Packet(b"\0\x40" * 1000)
        packet.stream, packet.pts, packet.dts, packet.time_base = sound, 0, 0, Fraction(1, rate)
        out.mux(packet)
    return path


def test_sound_of_one_sample_a_second_is_not_unrolled(tmp_path: Path) -> None:
    path = with_sound(tmp_path / "slow.mkv", 1)
    sound, note = read_sound(path, 0, 25, 16000)
    assert sound is None
    assert "1 samples a second" in note
    sound, note = read_sound(with_sound(tmp_path / "fair.mkv", 8000), 0, 25, 16000)
    assert sound is not None and sound.any() and "ends 0.1 s" in note


@pytest.mark.parametrize(("first", "frames"), [(0, 2**31 - 1), (2**31 - 1, 10), (0, 180_001)])
def test_absurd_spans_cost_nothing_and_have_a_status(
    video: Path, tmp_path: Path, first: int, frames: int
) -> None:
    spec = ClipSpec("k", first_frame=first, frames=frames)
    (result,) = crop_clips(video, [spec], FAST, lambda key: tmp_path / "out.mp4")
    assert result.status is Status.OUT_OF_RANGE


@pytest.mark.parametrize("leap", [10**9, 2**40])
def test_timestamps_that_leap_fill_no_disk(tmp_path: Path, leap: int) -> None:
    path = tmp_path / "leap.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", 25, options={"preset": "ultrafast", "bf": "0"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        black = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
        for number in range(20):
            black.pts, black.time_base = (
                number * 40 + (leap if number >= 10 else 0),
                Fraction(1, 1000),
            )
            out.mux(stream.encode(black))
        out.mux(stream.encode(None))
    spec = ClipSpec("k", first_frame=0, frames=None)
    try:
        (result,) = crop_clips(path, [spec], FAST, lambda key: tmp_path / "out.mp4")
    except MediaError as error:
        assert error.status is Status.CORRUPT
    else:
        assert result.status in (Status.OUT_OF_RANGE, Status.DECODE_ERROR)
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("fps", ["1e-300", "0.0001", "1e300", "-25", "nan", "0"])
def test_an_absurd_frame_rate_of_a_list_is_a_bad_annotation(
    make_params: Callable[..., Params], tmp_path: Path, fps: str
) -> None:
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "vox-metadata.csv").write_text(
        "video_id,start,end,bbox,fps,width,height,partition,person_id\n"
        f"v,0,50,1-1-9-9,{fps},64,64,train,p\n"
    )
    params = make_params(catalog={"sources": [{"name": "vox", "reader": "vox_metadata"}]})
    catalog.build(params)
    (row,) = manifest.read(params.paths.manifest("catalog")).to_pylist()
    assert row["status"] == "bad_annotation"


def test_a_gap_of_millions_of_frames_in_an_annotation_is_not_filled(
    make_params: Callable[..., Params], tmp_path: Path
) -> None:
    folder = tmp_path / "metadata" / "p" / "v"
    folder.mkdir(parents=True)
    rows = "FRAME X Y W H\n0 0.1 0.1 0.5 0.5\n2000000000 0.1 0.1 0.5 0.5\n"
    (folder / "1.txt").write_text(rows)
    params = make_params()
    catalog.build(params)
    (row,) = manifest.read(params.paths.manifest("catalog")).to_pylist()
    assert row["status"] == "bad_annotation" and "gap" in row["detail"]
