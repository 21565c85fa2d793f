from __future__ import annotations

import hashlib
import time

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from training.rasterize import PEN, STROKES, TOGETHER, rasterize


def face() -> npt.NDArray[np.float64]:
    """68 points that sit about where a face's do, by formula."""
    t = np.linspace(0, np.pi, 17)
    jaw = np.stack([128 - 80 * np.cos(t), 110 + 100 * np.sin(t)], 1)
    x = np.linspace(-1, 1, 5)
    brows = [np.stack([c + 22 * x, 88 + 5 * x**2], 1) for c in (92, 164)]
    bridge = np.stack([np.full(4, 128), [100, 112, 124, 136]], 1)
    nostrils = np.stack([128 + 14 * x, 148 - 3 * x**2], 1)

    def ring(cx: float, cy: float, rx: float, ry: float, n: int) -> npt.NDArray[np.float64]:
        a = np.arange(n) * 2 * np.pi / n
        return np.stack([cx - rx * np.cos(a), cy - ry * np.sin(a)], 1)

    eyes = [ring(92, 105, 14, 6, 6), ring(164, 105, 14, 6, 6)]
    lips = [ring(128, 175, 28, 12, 12), ring(128, 175, 18, 5, 8)]
    return np.concatenate([jaw, *brows, bridge, nostrils, *eyes, *lips])


def test_colours_of_the_table() -> None:
    points = face()
    picture = rasterize(points)
    assert picture.shape == (256, 256, 3)
    assert picture.dtype == np.uint8
    colours = {
        (255, 255, 255): (0, 16),
        (255, 0, 0): (17, 21),
        (0, 255, 0): (22, 26),
        (0, 0, 255): (27, 35),
        (255, 0, 255): (36, 41),
        (0, 255, 255): (42, 47),
        (255, 255, 0): (48, 59),
    }
    for colour, (first, last) in colours.items():
        for x, y in np.floor(points[first : last + 1] + 0.5).astype(int):
            assert tuple(picture[y, x]) == colour
    assert {tuple(c) for c in picture.reshape(-1, 3)} == {(0, 0, 0), *colours}


def test_inner_lip_is_not_drawn() -> None:
    points = face()
    moved = points.copy()
    moved[60:] = 5
    assert np.array_equal(rasterize(points), rasterize(moved))
    moved[60:] = np.nan
    assert np.array_equal(rasterize(points), rasterize(moved))


def test_closed_and_open_lines() -> None:
    assert [stroke.closed for stroke in STROKES] == [False] * 5 + [True] * 3
    points = np.full((68, 2), -500.0)
    points[36:42] = [(100, 100), (120, 100), (140, 100), (140, 120), (120, 140), (100, 140)]
    assert tuple(rasterize(points)[120, 100]) == (255, 0, 255)  # the side that closes the eye
    points = np.full((68, 2), -500.0)
    points[17:22] = [(100, 100), (120, 100), (140, 100), (140, 140), (100, 140)]
    assert tuple(rasterize(points)[120, 100]) == (0, 0, 0)


def test_golden_picture() -> None:
    """The bytes of a landmark picture are part of what a checkpoint was trained on."""
    digest = hashlib.sha256(rasterize(face()).tobytes()).hexdigest()
    assert digest == "732f1a946f61381efdd8809258b2df3aaa71de57b583bcc7d2a146c1de18a4ae"


def test_golden_line() -> None:
    points = np.full((68, 2), -500.0)
    points[27:31] = (2, 2)
    points[30] = (5, 3)
    drawn = rasterize(points, 8, source_size=8)[..., 2] > 0
    expected = """
        ..##....
        .#####..
        ..#####.
        ....##..
    """
    assert ["".join(".#"[int(d)] for d in row) for row in drawn[1:5]] == expected.split()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_face_is_black(value: float) -> None:
    points = face()
    points[40, 1] = value
    assert not rasterize(points).any()


def test_other_sizes_keep_the_geometry() -> None:
    for size in (64, 128, 512):
        points = face()
        small = rasterize(points, size)
        assert small.shape == (size, size, 3)
        x, y = np.floor((points[8] + 0.5) * size / 256 - 0.5 + 0.5).astype(int)
        assert tuple(small[y, x]) == (255, 255, 255)


@given(
    arrays(
        np.float64,
        st.tuples(st.integers(0, 3), st.integers(0, 2 * TOGETHER), st.just(68), st.just(2)),
        elements=st.sampled_from([-1e9, -3.0, 0.0, 17.5, 40.25, 63.0, 64.0, 100.0, np.nan]),
        fill=st.just(31.0),
    ),
    st.data(),
)
def test_many_at_once_are_drawn_as_each_alone(
    points: npt.NDArray[np.float64], data: st.DataObject
) -> None:
    sides = data.draw(arrays(np.intp, points.shape[:2], elements=st.sampled_from([32, 64, 200])))
    together = rasterize(points, 64, source_size=sides)
    assert together.shape == (*points.shape[:2], 64, 64, 3)
    for place in np.ndindex(points.shape[:2]):
        alone = rasterize(points[place], 64, source_size=int(sides[place]))
        assert np.array_equal(together[place], alone)


@given(arrays(np.float64, (68, 2), elements=st.floats(-1e12, 1e12)))
def test_any_points_are_drawn_quickly_and_alike(points: npt.NDArray[np.float64]) -> None:
    first = rasterize(points, 64)
    assert np.array_equal(first, rasterize(points.copy(), 64))


def test_close_to_opencv() -> None:
    cv2 = pytest.importorskip("cv2")
    points = face()
    theirs = np.zeros((256, 256, 3), np.uint8)
    for stroke in STROKES:
        line = np.floor(points[stroke.first : stroke.last + 1] + 0.5).astype(np.int32)
        cv2.polylines(theirs, [line], stroke.closed, stroke.colour, thickness=2)
    ours = rasterize(points)
    either = ours.any(2) | theirs.any(2)
    assert (ours == theirs).all(2)[either].mean() > 0.85


def test_fast() -> None:
    points = face()
    rasterize(points)
    best = min(_timed(points) for _ in range(20))
    assert best < 0.005  # about 0.6 ms on a quiet machine


def _timed(points: npt.NDArray[np.float64]) -> float:
    start = time.process_time()
    rasterize(points)
    return time.process_time() - start


def test_the_pen_is_two_thick() -> None:
    assert (np.square(PEN).sum(1) <= 1).all()
    assert len(PEN) == 5
