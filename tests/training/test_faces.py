from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image, ImageCms
from tiny_model import MONA

from pipelines.detectors.base import Landmarks
from pipelines.errors import UserError
from training import faces
from training.faces import Finder, face_box, from_picture, read_picture

pytest.importorskip("mediapipe")


def saved(path: Path, picture: npt.NDArray[np.uint8]) -> Path:
    Image.fromarray(picture).save(path)
    return path


# --- where to cut ----------------------------------------------------------------------------


def test_the_box_of_a_face_scales_and_moves_with_it() -> None:
    points = np.random.default_rng(0).uniform(50, 150, (68, 2))
    box = face_box(points)
    np.testing.assert_allclose(face_box(points * 2 + 7), box * 2 + [7, 7, 0, 0])
    longer = np.ptp(points, axis=0).max()
    assert box[2] == box[3] == pytest.approx(1.31 * longer)
    assert face_box(np.stack([points, points])).shape == (2, 4)


@pytest.mark.parametrize("name", ["mona_lisa.jpg", "einstein.jpg", "david_statue.png"])
def test_portraits_are_cut_as_the_dataset_is(corpus: Path, finder: Finder, name: str) -> None:
    face = from_picture(corpus / "portraits" / name, finder)
    assert face.picture.shape == (256, 256, 3) and face.picture.dtype == np.uint8
    low, high = face.points.min(0) / 256, face.points.max(0) / 256
    # Of 149 clips of a rebuild the middle 90 %: 0.31 to 0.39 and 0.75 to 0.82 of the height.
    assert 0.31 < low[1] < 0.39 and 0.75 < high[1] < 0.83
    assert abs((low + high)[0] / 2 - 0.5) < 0.03
    assert 0.40 < (high - low).max() < 0.50


@pytest.mark.slow
def test_every_portrait_of_the_corpus_works(corpus: Path, finder: Finder) -> None:
    paths = sorted((corpus / "portraits").iterdir())
    assert len([from_picture(path, finder) for path in paths]) == len(paths) == 6


def test_larger_networks_get_larger_crops(corpus: Path, finder: Finder) -> None:
    small, large = (from_picture(corpus / MONA, finder, side) for side in (256, 512))
    np.testing.assert_allclose(large.points / 2, small.points, atol=4)


# --- pictures that will not do ---------------------------------------------------------------


def test_a_picture_without_a_face_is_one_line(tmp_path: Path, finder: Finder) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    with pytest.raises(UserError, match=r"noise.png: no face found; give") as caught:
        from_picture(saved(tmp_path / "noise.png", noise), finder)
    assert "\n" not in str(caught.value)


def test_a_picture_on_its_side_is_told(
    tmp_path: Path, corpus: Path, finder: Finder, capsys: pytest.CaptureFixture[str]
) -> None:
    from_picture(corpus / MONA, finder)
    assert capsys.readouterr().err == ""
    turned = saved(tmp_path / "turned.png", np.rot90(read_picture(corpus / MONA)))
    from_picture(turned, finder)
    assert "turned.png: the face lies at -" in capsys.readouterr().err


def test_two_faces_are_numbered_from_the_left(tmp_path: Path, corpus: Path, finder: Finder) -> None:
    mona = read_picture(corpus / MONA)[:720]
    small = np.asarray(Image.fromarray(mona).resize((360, 360)))
    both = np.zeros((720, 1080, 3), np.uint8)
    both[:360, :360], both[:, 360:] = small, mona
    path = saved(tmp_path / "both.png", both)
    with pytest.raises(UserError, match=r"2 faces, .* 1: \d+ px, 2: \d+ px; .*--face N"):
        from_picture(path, finder)
    first, second = (from_picture(path, finder, which=n) for n in (1, 2))
    np.testing.assert_allclose(first.points, second.points, atol=6)
    with pytest.raises(UserError, match="no face 3"):
        from_picture(path, finder, which=3)


def test_unreadable_pictures_are_told_apart(tmp_path: Path, corpus: Path) -> None:
    (tmp_path / "text.jpg").write_text("not a picture")
    whole = (corpus / MONA).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 3])
    (tmp_path / "empty.png").touch()
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    saved(tmp_path / "dot.png", np.zeros((1, 1, 3), np.uint8))
    for name, why in (
        ("text.jpg", "not a picture"),
        ("cut.jpg", "truncated"),
        ("empty.png", "not a picture"),
        ("phone.heic", "HEIC; export it as JPEG"),
        ("dot.png", "1 x 1 pixels, too small"),
        ("gone.png", "no such file"),
    ):
        with pytest.raises(UserError, match=why) as caught:
            read_picture(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="is a folder"):
        read_picture(tmp_path)


def test_a_face_that_is_too_small_is_refused(tmp_path: Path, corpus: Path, finder: Finder) -> None:
    mona = Image.fromarray(read_picture(corpus / MONA)[150:550, 130:530])
    canvas = np.full((200, 200, 3), 90, np.uint8)
    canvas[60:100, 60:100] = np.asarray(mona.resize((40, 40)))
    with pytest.raises(UserError, match=r"pixels large|no face"):
        from_picture(saved(tmp_path / "tiny.png", canvas), finder)


def test_transparency_is_white_and_rotation_is_undone(tmp_path: Path) -> None:
    Image.new("RGBA", (40, 30), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (read_picture(tmp_path / "clear.png") == 255).all()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new("RGB", (40, 30)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_picture(tmp_path / "turned.jpg").shape == (40, 30, 3)


@pytest.mark.parametrize("mode", ["I;16", "I"])
def test_sixteen_bits_of_grey_are_scaled_not_clipped(tmp_path: Path, mode: str) -> None:
    grey = np.linspace(0, 65535, 64 * 64).reshape(64, 64)
    kind = np.uint16 if mode == "I;16" else np.int32
    Image.fromarray(grey.astype(kind)).save(tmp_path / "grey.png")
    found = read_picture(tmp_path / "grey.png")
    assert found.shape == (64, 64, 3)
    np.testing.assert_allclose(found[..., 1], grey / 257, atol=0.51)


def test_thirty_two_bits_of_grey_have_no_white(tmp_path: Path) -> None:
    for kind in (np.int32, np.float32):
        Image.fromarray(np.full((64, 64), 1, kind)).save(tmp_path / "grey.tif")
        with pytest.raises(UserError, match=r"grey\.tif: .* \(32 bits of grey"):
            read_picture(tmp_path / "grey.tif")


def test_colours_are_those_that_a_profile_means(tmp_path: Path) -> None:
    picture = Image.new("RGB", (64, 64), (200, 100, 50))
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, lab, b"damaged"):  # a profile of other colours than RGB does not count
        picture.save(tmp_path / "a.png", icc_profile=profile)
        assert abs(read_picture(tmp_path / "a.png")[0, 0].astype(int) - (200, 100, 50)).max() <= 1


def test_a_phones_wide_colours_become_those_of_screens(corpus: Path) -> None:
    with Image.open(corpus / MONA) as file:  # its profile is Display P3
        stored = np.asarray(file.convert("RGB")).astype(float)
    shown = read_picture(corpus / MONA).astype(float)
    assert np.ptp(shown, axis=2).mean() > 1.05 * np.ptp(stored, axis=2).mean()


class Unsure:
    """A backend that puts 68 points into any box, as face_alignment does."""

    def __init__(self, confidence: float) -> None:
        self.confidence = confidence

    def __call__(self, frames: np.ndarray, boxes: np.ndarray) -> Landmarks:
        points = boxes[:, None, :2] + boxes[:, None, 2:] * np.full((1, 68, 1), 0.5)
        return Landmarks(points.astype(np.float32), np.full(len(frames), self.confidence))


@pytest.mark.parametrize(("confidence", "there"), [(0.1, False), (0.9, True)])
def test_points_that_a_network_is_unsure_of_are_no_face(confidence: float, there: bool) -> None:
    finder = Finder.__new__(Finder)
    finder.detect = Unsure(confidence)  # type: ignore[assignment]
    found = finder.near(np.zeros((64, 64, 3), np.uint8), np.array([10, 10, 40, 40]))
    assert (found is not None) == there


# --- for the networks ------------------------------------------------------------------------


def test_pictures_become_what_networks_eat() -> None:
    picture = np.zeros((256, 256, 3), np.uint8)
    picture[..., 0] = 255
    x = faces.pictures_to([picture, picture], 64, torch.device("cpu"))
    assert x.shape == (2, 3, 64, 64)
    assert (x[:, 0] == 1).all() and (x[:, 1:] == -1).all()
    points = np.random.default_rng(0).uniform(40, 200, (2, 68, 2))
    drawn = faces.drawings(points, 256, 64)
    assert drawn.shape == (2, 64, 64, 3)
    np.testing.assert_array_equal(drawn[0], faces.rasterize(points[0], 64, source_size=256))


def test_of_several_pictures_in_a_file_the_first_is_taken_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shades = [Image.new("L", (64, 64), grey) for grey in (0, 255)]
    shades[0].save(tmp_path / "a.gif", save_all=True, append_images=shades[1:])
    assert read_picture(tmp_path / "a.gif").max() == 0
    assert "a.gif: holds 2 pictures; the first is taken" in capsys.readouterr().err
