from __future__ import annotations

import shutil
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
from tiny_model import MONA, SHORT, begins

from pipelines.errors import UserError
from training import footage
from training.faces import Finder, face_box, found_again
from training.footage import Film, fill, follow

pytest.importorskip("mediapipe")


def video(
    path: Path, times: list[int], rate: int = 25, shade: bool = True, b_frames: int = 0
) -> Path:
    """Frames at those ticks of 1 / rate s; frame n is of brightness 10 n."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=rate, options={"crf": "10", "bf": str(b_frames)})
        stream.width = stream.height = 64
        stream.codec_context.time_base = Fraction(1, rate)
        for number, tick in enumerate(times):
            picture = np.full((64, 64, 3), 10 * number if shade else 128, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, rate)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def sound_alone(path: Path) -> Path:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 16000, 0
        file.mux(stream.encode(frame) + stream.encode(None))
    return path


def test_gaps_lie_on_lines_between_what_was_found() -> None:
    points = np.arange(6, dtype=np.float32)[:, None, None] * np.ones((6, 68, 2), np.float32)
    found = np.array([False, True, False, False, True, False])
    torn = points.copy()
    torn[~found] = np.nan
    filled = fill(torn, found)
    np.testing.assert_allclose(filled[:, 0, 0], [1, 1, 2, 3, 4, 4])


def shades(path: Path) -> list[int]:
    return [round(frame.to_ndarray(format="gray").mean() / 10) for frame in Film(path)]


def test_frames_of_a_constant_rate_are_given_once_each(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", list(range(12)))
    assert Film(path).fps == 25
    assert shades(path) == list(range(12))


def test_an_avi_with_b_frames_gives_every_frame_once_and_in_order(tmp_path: Path) -> None:
    path = video(tmp_path / "a.avi", list(range(12)), b_frames=2)
    with av.open(str(path)) as source:
        assert source.streams.video[0].codec_context.has_b_frames
    assert shades(path) == list(range(12))


def test_a_stream_without_timestamps_gives_every_frame(tmp_path: Path) -> None:
    raw = tmp_path / "raw.h264"
    with av.open(str(video(tmp_path / "v.mp4", list(range(12))))) as source:
        bare = av.BitStreamFilterContext("h264_mp4toannexb", source.streams.video[0])
        packets = [p for packet in source.demux(video=0) for p in bare.filter(packet)]
        raw.write_bytes(b"".join(bytes(p) for p in packets))
    shades = [frame.to_ndarray(format="gray").mean() for frame in Film(raw)]
    assert len(shades) == 12
    assert shades == sorted(shades)


def test_a_recording_without_a_rate_has_that_of_its_frames(tmp_path: Path) -> None:
    """As browsers write them: stamps in milliseconds, and no word of a rate."""
    path = tmp_path / "camera.webm"
    stamps = np.cumsum([0, *np.random.default_rng(0).integers(20, 48, 59)])
    with av.open(str(path), "w", options={"live": "1"}) as file:
        stream = file.add_stream("libvpx", rate=1000, options={"deadline": "realtime"})
        stream.width = stream.height = 64
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, stamp in enumerate(stamps.tolist()):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 4 * number, np.uint8), "rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    body = bytearray(path.read_bytes())
    at = body.find(b"\x23\xe3\x83")  # DefaultDuration becomes padding
    length = body[at + 3] & 0x7F
    body[at : at + 4 + length] = bytes([0xEC, 0x80 | (2 + length)]) + bytes(2 + length)
    path.write_bytes(body)
    with av.open(str(path)) as file:
        assert not file.streams.video[0].average_rate
    film = Film(path)
    assert float(film.fps) == pytest.approx(59 / (stamps[-1] / 1000), rel=1e-3)
    assert len(list(film)) == 60


def test_gaps_and_crowds_of_timestamps_keep_to_the_clock(tmp_path: Path) -> None:
    # 6 frames over 0.25 s of a clock of 100: a mean rate near 24 with a hole in it.
    path = video(tmp_path / "a.mp4", [0, 4, 8, 9, 20, 24], rate=100)
    fps = Film(path).fps
    shown = shades(path)
    seconds = np.array([0, 0.04, 0.08, 0.09, 0.20, 0.24])
    slots = [round(float(t * fps)) for t in seconds]
    expected = [max(n for n, s in enumerate(slots) if s <= k) for k in range(slots[-1] + 1)]
    assert shown == expected


def test_a_damaged_clock_stops(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", [0, 1, 25 * 3600], rate=25)
    with pytest.raises(UserError, match="timestamps leap"):
        film = Film(path)
        film.fps = Fraction(25)
        list(film)


def test_several_recordings_in_one_file_stop(tmp_path: Path) -> None:
    """As of a recorder that begins anew: its timestamps go back to 0."""
    one, two = (video(tmp_path / f"{n}.ts", list(range(50)), shade=False) for n in "ab")
    both = tmp_path / "both.ts"
    both.write_bytes(one.read_bytes() + two.read_bytes())
    with pytest.raises(UserError, match=r"go back by .* encode it anew"):
        list(Film(both))


def test_faults_of_a_file_are_told(tmp_path: Path) -> None:
    whole = video(tmp_path / "whole.mkv", list(range(50)), shade=False)
    film = Film(whole)
    assert len(list(film)) == 50 and film.faults() == ()
    body = whole.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(body[: len(body) // 2])
    film = Film(tmp_path / "cut.mkv")
    assert 0 < len(list(film)) < 50
    assert "promises" in film.faults()[0]

    with av.open(str(tmp_path / "hdr.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        stream.codec_context.color_trc = HLG = 18
        for _ in range(5):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))))
        file.mux(stream.encode(None))
    with av.open(str(tmp_path / "hdr.mp4")) as file:
        assert file.streams.video[0].codec_context.color_trc == HLG
    assert ["HDR" in fault for fault in Film(tmp_path / "hdr.mp4").faults()] == [True]


def test_what_is_no_video_is_one_line(tmp_path: Path, corpus: Path) -> None:
    (tmp_path / "page.mp4").write_text("<html>404</html>")
    (tmp_path / "empty.mp4").touch()
    shutil.copy(corpus / MONA, tmp_path / "picture.mp4")
    sound_alone(tmp_path / "sound.m4a")
    for name, why in (
        ("page.mp4", "HTML"),
        ("empty.mp4", "not a video"),
        ("picture.mp4", "JPEG picture"),
        ("sound.m4a", "sound alone"),
        ("gone.mp4", "no such file"),
    ):
        with pytest.raises(UserError, match=why) as caught:
            Film(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="is a folder"):
        Film(tmp_path)


def test_a_driver_without_faces_is_one_line(tmp_path: Path, finder: Finder) -> None:
    path = video(tmp_path / "gray.mp4", list(range(5)), shade=False)
    with pytest.raises(UserError, match=r"gray.mp4: no face found in the video"):
        follow(path, finder)


def test_a_video_is_followed_in_one_square(corpus: Path, finder: Finder) -> None:
    found = follow(begins(corpus, SHORT), finder)
    with av.open(str(begins(corpus, SHORT))) as file:
        count = sum(1 for _ in file.decode(video=0))
    assert found.points.shape == (count, 68, 2) and found.fps == 30
    assert found.found.all() and found.remarks() == []
    assert found.crop.boxes.shape == (1, 4)
    middle = np.median(found.points, axis=(0, 1)) / 256
    assert 0.45 < middle[0] < 0.55 and 0.5 < middle[1] < 0.62
    pictures = list(found.pictures([0, 7]))
    assert [p.shape for p in pictures] == [(256, 256, 3)] * 2
    # The landmarks are those of the crop: found again in it, they are where they were.
    again = finder.near(pictures[1], face_box(found.points[7]))
    assert again is not None
    np.testing.assert_allclose(again, found.points[7], atol=6)


def side_by_side(path: Path, left: list[np.ndarray], right: list[np.ndarray]) -> Path:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=30, options={"crf": "18", "preset": "veryfast"})
        stream.height, stream.width = len(left[0]), left[0].shape[1] + right[0].shape[1]
        for one, two in zip(left, right, strict=True):
            picture = np.concatenate([one, two], axis=1)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        file.mux(stream.encode(None))
    return path


def squares(path: Path, count: int) -> list[np.ndarray]:
    """The first frames of a clip, 320 x 320."""
    with av.open(str(path)) as file:
        frames = islice(file.decode(video=0), count)
        return [frame.reformat(320, 320, "rgb24").to_ndarray() for frame in frames]


def test_nobody_else_is_followed_when_a_face_leaves(
    corpus: Path, finder: Finder, tmp_path: Path
) -> None:
    first, second = sorted((corpus / "voxceleb2_mp4").rglob("*.mp4"))[:60:59]
    left, right = squares(first, 40), squares(second, 40)
    gone = left[:20] + [np.full_like(left[0], 90)] * 20
    path = side_by_side(tmp_path / "leaves.mp4", gone, right)
    found = follow(path, finder, which=1)
    assert found.found[:20].all() and not found.found[25:].any()
    corner, side = found.crop.boxes[0, :2], found.crop.size
    assert corner[0] + max(side) / 2 < 320, "around the one on the left"
    (said,) = found.remarks()
    assert "of 40 frames of leaves.mp4 do not show this face" in said


def test_a_cut_to_somebody_else_is_told(corpus: Path, finder: Finder, tmp_path: Path) -> None:
    first, second = sorted((corpus / "voxceleb2_mp4").rglob("*.mp4"))[:60:59]
    pictures = squares(first, 30) + squares(second, 30)
    blank = [np.zeros((320, 2, 3), np.uint8)] * 60
    found = follow(side_by_side(tmp_path / "cut.mp4", pictures, blank), finder)
    assert found.cut == 30
    assert "cut.mp4 looks cut at 1.0 s: is it the same person from there on?" in found.remarks()


def test_a_face_is_found_again_where_it_may_have_gone() -> None:
    oval = np.random.default_rng(0).uniform(-50, 50, (68, 2))
    box = face_box(oval + 300)
    near, far, small, large = oval + 340, oval + 300 + 2 * box[2], 0.3 * oval + 300, 3 * oval + 300
    assert found_again([far, near], box) is near
    assert found_again([small, near], box) is near, "not the poster behind"
    for faces in ([], [far], [small], [large]):
        assert found_again(faces, box) is None


def test_two_people_in_a_driver_must_be_chosen_from(corpus: Path, finder: Finder) -> None:
    path = begins(corpus, "videos/Ydio")
    film = Film(path)
    with pytest.raises(UserError, match=r"2 faces, .*--driver-face N"):
        footage._track(film, finder, None, "--driver-face")
