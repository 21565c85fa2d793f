from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pipelines.errors import UserError
from pipelines.video.sound import read_sound
from training.layouts import (
    SOUND_RATE,
    Frames,
    Gif,
    Mp4,
    Row,
    check_output,
    compose,
    layout_for,
    open_writer,
)

S = 16


def plain(value: int, frames: int = 3) -> Frames:
    return np.full((frames, S, S, 3), value, np.uint8)


def row(value: int) -> Row:
    return Row(plain(value)[0], plain(value + 1), plain(value + 2))


def test_plain_is_what_was_generated() -> None:
    np.testing.assert_array_equal(compose("plain", [row(10)], plain(0, 0)), plain(12))


def test_side_by_side_from_left_to_right() -> None:
    whole = compose("side-by-side", [row(10)], plain(99))
    assert whole.shape == (3, S, 4 * S, 3)
    assert [int(v) for v in whole[1, 0, ::S, 0]] == [10, 99, 11, 12]


def test_grid_is_a_row_for_each_portrait() -> None:
    whole = compose("grid", [row(10), row(20)], plain(99))
    assert whole.shape == (3, 2 * S, 4 * S, 3)
    assert [int(v) for v in whole[2, S, ::S, 0]] == [20, 99, 21, 22]


def test_the_usual_layout_and_the_impossible_one() -> None:
    assert layout_for(1, None) == "plain"
    assert layout_for(3, None) == "grid"
    assert layout_for(1, "grid") == "grid"
    with pytest.raises(UserError, match="--layout grid"):
        layout_for(2, "side-by-side")


def test_outputs_are_told_by_their_names(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.gif", "folder/", "folder", "new.folder/"):
        assert check_output(str(tmp_path / name) + ("/" if name.endswith("/") else ""))
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "x.png").touch()
    (tmp_path / "file").touch()
    for name in (".", "..", "/"):
        with pytest.raises(UserError, match="a name"):
            check_output(name)
    for name, why in (
        ("a.avi", "must end in"),
        ("used", "not empty"),
        ("file", "is a file"),
        ("a.mp4/", "is a folder"),
    ):
        with pytest.raises(UserError, match=why):
            check_output(f"{tmp_path}/{name}")


def ramp(frames: int) -> Frames:
    """Frame n is of brightness 10 n."""
    return np.concatenate([plain(10 * n, 1) for n in range(frames)])


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30000, 1001), Fraction(15)])
def test_an_mp4_has_the_frames_rate_and_sound_it_was_given(tmp_path: Path, fps: Fraction) -> None:
    seconds = 20 / fps
    sound = np.sin(np.arange(round(seconds * SOUND_RATE)) / 20).astype(np.float32)[None]
    writer = open_writer(tmp_path / "a.mp4", fps, [sound])
    writer.write(ramp(20)[:8])
    writer.write(ramp(20)[8:])
    writer.close()
    with av.open(str(tmp_path / "a.mp4")) as file:
        video, audio = file.streams.video[0], file.streams.audio[0]
        assert video.average_rate == fps
        assert video.codec_context.name == "h264" and audio.codec_context.name == "aac"
        assert float(audio.duration * audio.time_base) == pytest.approx(float(seconds), abs=0.03)
        seen = [frame.to_ndarray(format="rgb24").mean() for frame in file.decode(video)]
    np.testing.assert_allclose(seen, 10 * np.arange(20), atol=3)


def test_stereo_stays_stereo_and_mono_mono(tmp_path: Path) -> None:
    left = np.sin(np.arange(SOUND_RATE) / 20).astype(np.float32) / 2
    for sound in (np.stack([left, np.zeros_like(left)]), left[None]):
        path = tmp_path / f"{len(sound)}.mp4"
        writer = Mp4(path, Fraction(25), [sound])
        writer.write(ramp(25))
        writer.close()
        kept, note = read_sound(path, 0, 25, SOUND_RATE, channels=2)
        assert kept is not None and kept.shape == sound.shape and not note
        np.testing.assert_allclose(kept[:, 5000:-5000].std(1), sound.std(1), atol=0.01)
        mixed, _ = read_sound(path, 0, 25, SOUND_RATE)
        assert mixed is not None and mixed.shape == (1, SOUND_RATE)
        assert np.corrcoef(mixed[0], kept.mean(0))[0, 1] > 0.99


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (10, 64, 64, 3), dtype=np.uint8)
    sound = np.sin(np.arange(round(0.4 * SOUND_RATE)) / 20).astype(np.float32)[None]
    for name in ("a.mp4", "b.mp4"):
        writer = Mp4(tmp_path / name, Fraction(25), [sound])
        writer.write(frames)
        writer.close()
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    asked: list[int] = []

    def parts() -> Iterator[npt.NDArray[np.float32]]:
        for at in range(0, sound.shape[1], 1000):
            asked.append(at)
            yield sound[:, at : at + 1000]

    writer = Mp4(tmp_path / "c.mp4", Fraction(25), parts())
    writer.write(frames[:5])
    assert len(asked) == 10, "no more than the pictures need"
    writer.write(frames[5:])
    writer.close()
    assert (tmp_path / "c.mp4").read_bytes() == (tmp_path / "a.mp4").read_bytes()


def test_a_gif_keeps_time_at_thirty_frames_a_second(tmp_path: Path) -> None:
    writer = Gif(tmp_path / "a.gif", Fraction(30))
    writer.write(ramp(15))
    writer.close()
    lengths = []
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 15
        for number in range(15):
            image.seek(number)
            lengths.append(image.info["duration"])
            assert np.asarray(image.convert("RGB")).mean() == pytest.approx(10 * number, abs=1)
    assert set(lengths) == {30, 40}
    assert sum(lengths) == 500


def test_a_gif_is_never_faster_than_browsers_play_it(tmp_path: Path) -> None:
    writer = Gif(tmp_path / "a.gif", Fraction(60))
    writer.write(ramp(24))
    writer.close()
    with Image.open(tmp_path / "a.gif") as image:
        lengths = []
        for number in range(image.n_frames):
            image.seek(number)
            lengths.append(image.info["duration"])
            assert np.asarray(image.convert("RGB")).mean() == pytest.approx(20 * number, abs=1)
    assert len(lengths) == 12 and min(lengths) >= 20 and sum(lengths) == 400


def test_a_folder_of_numbered_pictures(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "frames", Fraction(25), None)
    writer.write(ramp(2))
    writer.write(ramp(3)[2:])
    writer.close()
    assert sorted(p.name for p in (tmp_path / "frames").iterdir()) == [
        *("000000.png", "000001.png", "000002.png")
    ]
    with Image.open(tmp_path / "frames" / "000002.png") as image:
        np.testing.assert_array_equal(np.asarray(image), ramp(3)[2])
