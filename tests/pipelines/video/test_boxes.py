"""Geometry of the crops, by examples and by properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.video.boxes import (
    Crop,
    into_crop,
    moving,
    outside,
    ready,
    smooth,
    still,
    to_pixels,
)

coordinate = st.floats(-500, 2500)
side = st.floats(1, 1500)
boxes = st.lists(st.tuples(coordinate, coordinate, side, side), min_size=1, max_size=40).map(
    lambda rows: np.array(rows, np.float64)
)
aspect = st.sampled_from([1.0, 16 / 15, 12 / 11, 0.5, 2.0])


def centre(box: np.ndarray) -> np.ndarray:
    return box[..., :2] + box[..., 2:] / 2


def test_fractions_and_lines_become_pixels():
    box = np.array([[0.25, 0.5, 0.1, 0.2]], np.float32)
    np.testing.assert_allclose(to_pixels(box, None, 640, 360), [[160, 180, 64, 72]], rtol=1e-6)
    lines = np.array([[160, 180, 64, 72]], np.float32)
    np.testing.assert_allclose(to_pixels(lines, 360, 1280, 720), [[320, 360, 128, 144]])
    # 360 x 288 at 16:15 shows as 384 x 288: lines of 576 stand for 768 columns
    np.testing.assert_allclose(to_pixels(lines, 576, 360, 288, 16 / 15), [[75, 90, 30, 36]])


def test_an_unmoving_face_gets_its_side_and_the_margin():
    face = np.tile([[101.0, 81, 40, 50]], (30, 1))
    crop = still(face, 0.6)
    assert crop.boxes.tolist() == [[82, 66, 80, 80]]
    assert moving(face, 0.6).boxes.tolist() == crop.boxes.tolist() * 30


def test_smoothing_drops_a_wild_box_and_keeps_a_steady_walk():
    walk = np.stack([np.arange(60.0), np.arange(60.0), np.full(60, 40), np.full(60, 40)], axis=1)
    wild = walk.copy()
    wild[30] = [900, 900, 5, 5]
    calm = smooth(wild, 11)
    np.testing.assert_allclose(calm[8:-8], walk[8:-8], atol=1.01)
    np.testing.assert_array_equal(smooth(walk[:1], 11), walk[:1])
    np.testing.assert_array_equal(smooth(walk, 1), walk)


def test_squares_are_square_on_the_screen():
    face = np.array([[100.0, 100, 60, 64]])
    _, _, width, height = still(face, 0.5, sar=16 / 15).boxes[0]
    assert (width, height) == (90, 96)


def test_ready_crops_are_taken_as_they_are_unless_they_would_squash():
    assert ready(None, 224, 224).boxes.tolist() == [[0, 0, 224, 224]]
    assert ready(None, 640, 360).boxes.tolist() == [[0, -140, 640, 640]]
    assert ready(np.array([[10.0, 20, 100, 104]]), 640, 360).boxes.tolist() == [[10, 20, 100, 104]]
    assert ready(np.array([[10.0, 20, 100, 200]]), 640, 360).boxes.tolist() == [[-40, 20, 200, 200]]


def test_padding_is_the_share_outside():
    crop = Crop(np.array([[-50, 0, 100, 100]]))
    assert crop.padding(640, 360) == 0.5
    assert crop.overhang(640, 360) == (50, 0, 0, 0)
    assert not outside(crop, 640, 360)
    assert outside(Crop(np.array([[0, 0, 10, 10], [640, 0, 10, 10]])), 640, 360)


def test_faces_move_into_the_crop():
    crop = Crop(np.array([[100, 50, 128, 128]]))
    faces = np.array([[100.0, 50, 64, 64], [132, 82, 64, 64]])
    np.testing.assert_allclose(into_crop(faces, crop, 256), [[0, 0, 128, 128], [64, 64, 128, 128]])


@given(boxes, st.floats(0, 2), aspect)
def test_crops_are_even_square_and_of_one_size(faces, margin, sar):
    for crop in (
        still(faces, margin, sar),
        moving(faces, margin, sar),
        ready(faces, 640, 360, sar),
    ):
        assert (crop.boxes % 2 == 0).all()
        assert (crop.boxes[:, 2:] >= 2).all()
        assert (crop.boxes[:, 2:] == crop.boxes[0, 2:]).all()
    width, height = still(faces, margin, sar).size
    assert abs(width * sar - height) <= 2 * sar + 2


@given(boxes, st.floats(0, 2))
def test_a_still_crop_holds_every_centre(faces, margin):
    x, y, width, height = still(faces, margin).boxes[0]
    middle = centre(faces)
    assert (middle >= np.array([x, y]) - 2).all()
    assert (middle <= np.array([x + width, y + height]) + 2).all()


@given(boxes)
def test_a_moving_crop_is_centred_on_the_face(faces):
    crop = moving(faces, 0.6)
    assert np.abs(centre(crop.boxes.astype(float)) - centre(faces)).max() <= 1 + 1e-6


@given(boxes, st.integers(0, 40))
def test_smoothing_stays_within_what_was_seen(faces, window):
    calm = smooth(faces, window)
    assert calm.shape == faces.shape
    low, high = centre(faces).min(axis=0), centre(faces).max(axis=0)
    assert (centre(calm) >= low - 1e-6).all() and (centre(calm) <= high + 1e-6).all()


@given(boxes, st.integers(2, 2000), st.integers(2, 2000))
def test_padding_is_a_share(faces, width, height):
    crop = still(faces, 0.6)
    assert 0 <= crop.padding(width, height) <= 1
    if not any(crop.overhang(width, height)):
        assert crop.padding(width, height) == pytest.approx(0)


@given(boxes)
def test_the_way_into_a_crop_leads_back(faces):
    crop = moving(faces, 0.6)
    inside = into_crop(faces, crop, 256)
    scale = crop.boxes[:, 2:] / 256
    np.testing.assert_allclose(inside[:, :2] * scale + crop.boxes[:, :2], faces[:, :2], atol=1e-6)
