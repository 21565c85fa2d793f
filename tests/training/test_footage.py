from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from tiny_model import MONA, SHORT, begins

from pipelines.errors import UserError
from training import footage
from training.faces import Finder, face_box
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
    assert found.missing == 0 and found.found.all()
    assert found.crop.boxes.shape == (1, 4)
    middle = np.median(found.points, axis=(0, 1)) / 256
    assert 0.45 < middle[0] < 0.55 and 0.5 < middle[1] < 0.62
    pictures = list(found.pictures([0, 7]))
    assert [p.shape for p in pictures] == [(256, 256, 3)] * 2
    # The landmarks are those of the crop: found again in it, they are where they were.
    again = finder.near(pictures[1], face_box(found.points[7]))
    assert again is not None
    np.testing.assert_allclose(again, found.points[7], atol=6)


def test_two_people_in_a_driver_must_be_chosen_from(corpus: Path, finder: Finder) -> None:
    path = begins(corpus, "videos/Ydio")
    film = Film(path)
    with pytest.raises(UserError, match=r"2 faces, .*--driver-face N"):
        footage._track(film, finder, None, "--driver-face")
