import numpy as np
import pytest
from PIL import Image

from pipelines.errors import UserError
from training.marking import draw_label


def grey(side: int, n: int = 2, width: int | None = None) -> np.ndarray:
    return np.full((n, side, width or side, 3), 120, np.uint8)


@pytest.mark.parametrize("side", [64, 96, 256, 1024])
def test_one_line_in_the_lower_left_corner_inside_the_frame(side: int) -> None:
    frames = grey(side)
    labelled = draw_label(frames, "AI-generated")
    assert (frames == 120).all()
    changed = (labelled != frames).any(axis=(0, 3))
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert rows[0] > side * 0.6
    assert rows[-1] < side - 1
    assert 0 < columns[0] <= side * 0.05
    assert columns[-1] < side - 1
    # Letters stand out from the plate, and are tall enough to be read.
    bright = (labelled[0] > 200).any(axis=2)
    inked = np.flatnonzero(bright.any(axis=1))
    assert inked[-1] - inked[0] + 1 >= max(6, side / 40)
    assert (labelled[0] == labelled[1]).all()


@pytest.mark.parametrize("shade", [0, 255])
def test_is_read_on_black_and_on_white(shade: int) -> None:
    frames = np.full((1, 64, 64, 3), shade, np.uint8)
    labelled = draw_label(frames, "AI-generated")[0].astype(int)
    corner = labelled[45:62, 4:60]
    assert corner.max() - corner.min() > 100


def test_survives_a_lossy_encoder() -> None:
    labelled = draw_label(grey(64, 1), "AI-generated")[0]
    import io

    body = io.BytesIO()
    Image.fromarray(labelled).save(body, "JPEG", quality=60)
    back = np.asarray(Image.open(body)).astype(int)
    ink = (labelled > 200).all(axis=2)
    plate = (labelled < 60).all(axis=2)
    assert back[ink].mean() - back[plate].mean() > 120


def test_long_words_are_wrapped_and_do_not_cover_the_face() -> None:
    labelled = draw_label(grey(64), "Synthetic video made with Likeness")
    changed = (labelled[0] != 120).any(axis=2)
    assert np.flatnonzero(changed.any(axis=1))[0] >= 31


def test_other_alphabets_of_the_second_font() -> None:
    pytest.importorskip("matplotlib")
    assert (draw_label(grey(128), "KI-erzeugt für Sie, създадено") != 120).any()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("  \n ", "empty"),
        ("生成", "no font at hand has"),
        ("x" * 200, "does not fit a picture of 64 x 64"),
    ],
)
def test_a_label_that_cannot_be_read_is_refused(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        draw_label(grey(64), text)


def test_a_picture_too_small_for_any_label() -> None:
    with pytest.raises(UserError, match="does not fit"):
        draw_label(grey(8), "AI")


def test_no_frames_and_wide_frames() -> None:
    assert draw_label(grey(64, 0), "AI").shape == (0, 64, 64, 3)
    assert draw_label(grey(64, 1, 640), "AI-generated").shape == (1, 64, 640, 3)
    with pytest.raises(ValueError, match="uint8"):
        draw_label(grey(64).astype(np.float32), "AI")
