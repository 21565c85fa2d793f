"""Measures with known answers, and every verdict."""

from dataclasses import replace

import numpy as np
import pytest

from pipelines import quality
from pipelines.detectors.base import Landmarks
from pipelines.quality import Limits, Measures
from pipelines.statuses import Status


def rotation(yaw, pitch, roll):
    """The head pitches, then yaws, then rolls; degrees, x right, y down, z away."""
    a, b, c = np.radians([yaw, pitch, roll])
    turn = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    nod = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    lean = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return lean @ turn @ nod


def project(head, matrix, scale=1.3):
    """(16, 3) millimetres to the 68 points of one frame, (68, 2); the others are 0."""
    points = np.zeros((68, 2), np.float32)
    points[quality.HEAD_POINTS] = (head @ matrix.T)[:, :2] * scale + 128
    return points


@pytest.mark.parametrize("yaw", [-45, -20, 0, 30, 45])
@pytest.mark.parametrize(("pitch", "roll"), [(0, 0), (20, -15), (-25, 30)])
def test_pose_recovers_known_angles(yaw, pitch, roll):
    # another person's head, and landmarks that are a pixel off
    rng = np.random.default_rng(0)
    head = quality.HEAD * [1.05, 0.97, 1.0] + rng.normal(0, 0.5, quality.HEAD.shape)
    found = quality.pose(project(head, rotation(yaw, pitch, roll))[None])
    assert np.concatenate(found) == pytest.approx([yaw, pitch, roll], abs=3)


def test_signs_of_the_pose():
    nose = quality.HEAD_POINTS.index(30)
    straight = quality.HEAD[nose]
    assert (rotation(30, 0, 0) @ straight)[0] > 10  # yaw > 0: the nose goes to the right
    assert (rotation(0, 30, 0) @ straight)[1] < straight[1] - 10  # pitch > 0: it goes up
    right_eye = quality.HEAD[quality.HEAD_POINTS.index(36)]  # at the picture's left
    assert (rotation(0, 0, 30) @ right_eye)[1] < right_eye[1] - 10  # roll > 0: clockwise


def test_pose_of_missing_frames_is_nan():
    points = np.stack([project(quality.HEAD, np.eye(3)), np.full((68, 2), np.nan, np.float32)])
    for angle in quality.pose(points):
        assert angle.dtype == np.float32
        assert angle[0] == pytest.approx(0, abs=0.01)
        assert np.isnan(angle[1])
    assert all(np.isnan(angle).all() for angle in quality.pose(points[1:]))


def texture(side):
    """The same picture at any size: waves a few hundredths of it long."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    grey = 128 + 50 * np.sin(2 * np.pi * 9 * x) * np.cos(2 * np.pi * 7 * y)
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def test_sharpness_does_not_depend_on_the_size_of_the_crop():
    values = []
    for side in (128, 256, 512):
        low, high = np.array([[0.1, 0.1], [0.9, 0.9]], np.float32) * side
        values.append(quality.sharpness(texture(side), low, high))
    assert values == pytest.approx([values[1]] * 3, rel=0.1)


def test_sharpness_falls_with_blur_and_is_zero_off_the_picture():
    low, high = np.array([20, 20], np.float32), np.array([220, 220], np.float32)
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 255, (256, 256, 3), np.uint8)
    coarse = frame[::8, ::8].repeat(8, axis=0).repeat(8, axis=1)
    flat = np.full_like(frame, 90)
    assert quality.sharpness(frame, low, high) > 100
    assert quality.sharpness(flat, low, high) < 1e-3
    assert quality.sharpness(coarse, low, high) > 100
    assert quality.sharpness(frame, low + 300, high + 300) == 0
    assert quality.sharpness(frame, low - 300, high - 300) == 0
    assert quality.sharpness(frame, low, low) == 0
    assert quality.sharpness(frame, low - 100, high + 100) > 100  # cut at the edge


def test_area_means_are_exact():
    values = np.arange(8, dtype=np.float32)[:, None].repeat(2, axis=1)
    assert quality._area_mean(values, np.array([0, 2.5, 5, 7.5]))[:, 0] == pytest.approx(
        [(0 + 1 + 1) / 2.5, (1 + 3 + 4) / 2.5, (5 + 6 + 3.5) / 2.5]
    )


def clip_of(frames=4):
    points = np.random.default_rng(0).uniform(60, 200, (frames, 68, 2)).astype(np.float32)
    points[:, quality.HEAD_POINTS] = project(quality.HEAD, np.eye(3))[quality.HEAD_POINTS]
    pictures = np.random.default_rng(1).integers(0, 255, (frames, 256, 256, 3), np.uint8)
    return pictures, points


def test_measure_fills_every_frame_and_leaves_the_lost_ones_nan():
    frames, points = clip_of()
    points[2] = np.nan
    confidence = np.array([0.9, 0.8, 0, 1], np.float32)
    box = np.array([[55, 55, 150, 150]], np.float32)
    measures = quality.measure(frames, Landmarks(points, confidence), box)
    assert measures.detected.tolist() == [True, True, False, True]
    for name, values in measures.arrays().items():
        assert values.shape == (4,), name
        assert values.dtype == np.float32, name
        assert np.isfinite(values[[0, 1, 3]]).all(), name
        assert values[2] == 0 if name == "confidence" else np.isnan(values[2]), name
    assert measures.overlap[0] > 0.9
    assert measures.face_size[0] == pytest.approx(np.ptp(points[0], axis=0).max())
    without = quality.measure(frames, Landmarks(points, confidence), None)
    assert np.isnan(without.overlap).all()
    assert without.sharpness.tobytes() == measures.sharpness.tobytes()


def test_arrays_round_trip_beside_other_names():
    frames, points = clip_of(2)
    measures = quality.measure(frames, Landmarks(points, np.ones(2, np.float32)), None)
    arrays = measures.arrays() | {"points": points}
    assert Measures.from_arrays(arrays).arrays().keys() == measures.arrays().keys()
    del arrays["yaw"]
    with pytest.raises(KeyError):
        Measures.from_arrays(arrays)


GOOD = Measures(
    confidence=np.full(10, 0.9, np.float32),
    sharpness=np.full(10, 200, np.float32),
    face_size=np.full(10, 120, np.float32),
    yaw=np.full(10, -8, np.float32),
    pitch=np.full(10, 3, np.float32),
    roll=np.full(10, 2, np.float32),
    overlap=np.full(10, 0.95, np.float32),
)


def full(value):
    return np.full(10, value, np.float32)


def lose(measures, frames):
    """The face is gone in the first `frames` frames."""
    arrays = {name: values.copy() for name, values in measures.arrays().items()}
    for name, values in arrays.items():
        values[:frames] = 0 if name == "confidence" else np.nan
    return Measures(**arrays)


@pytest.mark.parametrize(
    ("measures", "status", "words"),
    [
        (GOOD, Status.OK, ()),
        (replace(GOOD, overlap=full(np.nan)), Status.OK, ()),
        (lose(GOOD, 2), Status.OK, ()),
        (lose(GOOD, 10), Status.NO_FACE, ("0 of 10",)),
        (replace(GOOD, overlap=full(0.2)), Status.WRONG_FACE, ("0.20", "min_overlap is 0.5")),
        (lose(GOOD, 3), Status.FEW_FRAMES, ("7 of 10", "min_detected is 0.8")),
        (replace(GOOD, confidence=full(0.4)), Status.LOW_CONFIDENCE, ("0.40", "is 0.5")),
        (replace(GOOD, sharpness=full(4)), Status.BLURRED, ("4.0", "min_sharpness is 25")),
        (replace(GOOD, yaw=full(-80)), Status.EXTREME_POSE, ("yaw 80", "max_yaw is 75")),
        (replace(GOOD, pitch=full(50)), Status.EXTREME_POSE, ("pitch 50", "max_pitch is 45")),
        (replace(GOOD, roll=full(60)), Status.EXTREME_POSE, ("roll 60", "max_roll is 45")),
        # the first miss counts
        (replace(GOOD, sharpness=full(4), yaw=full(80)), Status.BLURRED, ("sharpness",)),
        (lose(replace(GOOD, overlap=full(0.1)), 5), Status.WRONG_FACE, ("overlap",)),
    ],
)
def test_verdict(measures, status, words):
    found, detail = quality.verdict(measures, Limits())
    assert found == status
    assert (detail == "") == (status == Status.OK)
    for word in words:
        assert word in detail


def test_a_head_that_turns_both_ways_is_not_straight():
    turning = replace(GOOD, yaw=np.tile(np.array([-80, 80], np.float32), 5))
    assert quality.verdict(turning, Limits())[0] == Status.EXTREME_POSE


def test_no_frames_at_all_is_no_face():
    empty = Measures(*(np.empty(0, np.float32) for _ in GOOD.arrays()))
    assert quality.verdict(empty, Limits())[0] == Status.NO_FACE
    assert set(quality.summary(empty).values()) == {None}


def test_summary_uses_the_detected_frames_alone():
    found = quality.summary(lose(replace(GOOD, overlap=full(np.nan)), 5))
    assert found["confidence"] == pytest.approx(0.9)
    assert found["yaw"] == -8
    assert found["overlap"] is None
    assert set(found) == set(GOOD.arrays())
