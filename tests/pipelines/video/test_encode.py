"""What is cut is what is recorded: tiles found again in padded, turned, tracked pictures."""

import struct
import subprocess
from fractions import Fraction

import av
import numpy as np
import pytest
from videos import SIDE, Sources, cut, needs_ffmpeg, picture, read, write

from pipelines.statuses import Status
from pipelines.video import ClipSpec, CropSettings
from pipelines.video.probe import probe


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources(tmp_path_factory.mktemp("sources"))


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
    settings = CropSettings(size=SIDE, margin=1.0)
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
    settings = CropSettings(size=SIDE, policy="track", margin=0, smooth=0)
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


@pytest.mark.parametrize(
    ("matrix", "undo"),
    [
        ((-1, 0, 0, 1), lambda shown: shown[:, ::-1]),  # mirrored, as selfies are
        ((1, 0, 0, -1), lambda shown: shown[::-1]),
        ((0, 1, 1, 0), lambda shown: shown.T),
    ],
)
def test_mirrored_videos_are_cut_as_players_show_them(tmp_path, matrix, undo):
    """(a, b, c, d) of the track header: (x, y) is shown at (ax + cy, bx + dy)."""
    source = write(
        tmp_path / "s.mp4",
        list(range(30)),
        Fraction(1, 25),
        draw=lambda n: np.ascontiguousarray(undo(picture(n))),
    )
    body = bytearray(source.read_bytes())
    at = body.find(b"tkhd") + 44
    a, b, c, d = (65536 * value for value in matrix)
    body[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    source.write_bytes(body)
    result = cut(source, [ClipSpec("a", 0, 30)], tmp_path)["a"]
    assert read(result.path)[0] == list(range(30))
