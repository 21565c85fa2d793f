from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.quality import HEAD as SIXTEEN
from pipelines.quality import HEAD_POINTS
from training.one_euro import OneEuro
from training.retarget import (
    FURTHEST,
    HEAD,
    LIDS,
    Head,
    Pose,
    Retargeter,
    calmest,
    pose_of,
    retarget,
    similarity,
    smooth,
    turned_back,
)

Array = npt.NDArray[np.float64]
MOTIONS = ("relative", "absolute")


def rotation(yaw: float = 0, pitch: float = 0, roll: float = 0) -> Array:
    """From degrees; the head pitches first, then yaws, then rolls."""
    (sy, sp, sr), (cy, cp, cr) = (f(np.radians([yaw, pitch, roll])) for f in (np.sin, np.cos))
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def face(
    yaw: float = 0,
    pitch: float = 0,
    roll: float = 0,
    mouth: float = 0,
    scale: float = 0.8,
    seed=None,
) -> Array:
    """Landmarks of an average head, its lower lip `mouth` mm down, or of somebody by the seed."""
    head = HEAD.copy()
    if seed is not None:
        head[:, :2] += np.random.default_rng(seed).normal(0, 2, (68, 2))
    head[[55, 56, 57, 58, 59, 65, 66, 67], 1] += mouth
    return Pose(scale, rotation(yaw, pitch, roll), np.array([128.0, 140.0])).show(head)


def clip(seed: int = 0, frames: int = 12) -> Array:
    """Somebody who turns, nods, leans and talks; the first frame is at rest."""
    draw = np.random.default_rng(seed)
    poses = draw.uniform(-18, 18, (frames, 3))
    poses[0] = 0
    mouths = np.r_[0, draw.uniform(0, 14, frames - 1)]
    return np.stack(
        [face(*pose, mouth, seed=seed) for pose, mouth in zip(poses, mouths, strict=True)]
    )


def moved(points: Array, angle: float, scale: float, x: float, y: float) -> Array:
    turn = scale * rotation(roll=angle)[:2, :2]
    return np.asarray(points @ turn.T + (x, y))


similarities = st.tuples(
    st.floats(-60, 60), st.floats(0.3, 3), st.floats(-200, 200), st.floats(-200, 200)
)


def test_the_head_is_the_one_that_poses_are_measured_with() -> None:
    assert np.abs(HEAD[HEAD_POINTS] - SIXTEEN).max() < 0.4
    mirror = [*range(16, -1, -1), *range(26, 16, -1)]
    np.testing.assert_allclose(HEAD[mirror], HEAD[:27] * [-1, 1, 1])


@pytest.mark.parametrize("yaw", [-40, 0, 25])
@pytest.mark.parametrize("pitch", [-20, 10])
def test_a_pose_is_found_again(yaw: float, pitch: float) -> None:
    pose = pose_of(face(yaw, pitch, 15), HEAD)
    np.testing.assert_allclose(pose.rotation, rotation(yaw, pitch, 15), atol=1e-9)
    assert pose.scale == pytest.approx(0.8)
    np.testing.assert_allclose(pose.shift, (128, 140))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99))
def test_a_driver_moves_themself_as_they_are(seed: int) -> None:
    driver = clip(seed)
    rest = driver[calmest(driver)]
    np.testing.assert_allclose(retarget(driver, rest), driver, atol=1e-8)


def test_who_does_not_move_moves_nobody() -> None:
    driver = np.repeat(face(20, mouth=6, seed=1)[None], 4, axis=0)
    portrait = face(-15, 5, 10, seed=2)
    np.testing.assert_allclose(retarget(driver, portrait), [portrait] * 4, atol=1e-8)
    same = retarget(np.repeat(portrait[None], 4, axis=0), portrait, "absolute")
    np.testing.assert_allclose(same, [portrait] * 4, atol=1e-8)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), by=similarities, motion=st.sampled_from(MOTIONS))
def test_where_how_large_and_how_tilted_a_driver_is_filmed_does_not_matter(
    seed: int, by: tuple[float, float, float, float], motion: str
) -> None:
    driver, portrait = clip(seed), face(10, seed=seed + 1)
    expected = retarget(driver, portrait, motion)
    np.testing.assert_allclose(retarget(moved(driver, *by), portrait, motion), expected, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99), by=similarities)
def test_a_portrait_elsewhere_moves_alike_there(
    seed: int, by: tuple[float, float, float, float]
) -> None:
    driver, portrait = clip(seed), face(5, seed=seed + 1)
    there = retarget(driver, moved(portrait, *by))
    np.testing.assert_allclose(there, moved(retarget(driver, portrait), *by), atol=1e-5)


def test_a_turn_is_a_turn_of_the_portraits_own_face() -> None:
    angles = [0, 10, 20, 30]
    driver = np.stack([face(yaw, seed=1) for yaw in angles])
    portrait = face(seed=2)
    shape = Head(portrait).shape
    move = Retargeter(portrait, driver[:1])
    for yaw, points in zip(angles, driver, strict=True):
        turned = pose_of(move(points), shape)
        turn = Head(driver[0]).pose.rotation.T @ pose_of(points, Head(driver[0]).shape).rotation
        expected = Head(portrait).pose.rotation @ turn
        np.testing.assert_allclose(turned.rotation, expected, atol=1e-3)
        own = turned.straighten(move(points), HEAD[:, 2])
        np.testing.assert_allclose(own, shape[:, :2], atol=0.5)  # mm: no distortion
        assert np.degrees(turned.away) == pytest.approx(yaw, abs=4)


def test_a_closed_eye_closes_a_wider_one() -> None:
    head = HEAD.copy()
    shut = head.copy()
    middle = (head[LIDS[:, 0], 1] + head[LIDS[:, 1], 1]) / 2
    shut[LIDS[:, 0], 1] = shut[LIDS[:, 1], 1] = middle
    wide = head.copy()
    wide[LIDS[:, 0], 1] -= 2.5
    show = Pose(0.8, np.eye(3), np.array([128.0, 128.0])).show
    move = Retargeter(show(wide), show(head)[None])
    lids = move(show(shut))[LIDS][..., 1]
    assert np.abs(lids[:, 0] - lids[:, 1]).max() < 0.3  # of 5 pixels


def test_frames_without_a_face_keep_the_last_motion() -> None:
    driver, portrait = clip(3), face(seed=4)
    holes = driver.copy()
    holes[[0, 5, 6]] = np.nan
    for motion in MOTIONS:
        out = retarget(holes, portrait, motion)
        assert np.isfinite(out).all()
        np.testing.assert_array_equal(out[5], out[4])
        np.testing.assert_array_equal(out[6], out[4])
        np.testing.assert_array_equal(out[0], portrait)
    with pytest.raises(ValueError, match="no frame"):
        retarget(np.full((3, 68, 2), np.nan), portrait)


@pytest.mark.parametrize("motion", MOTIONS)
def test_frame_by_frame_is_the_same_as_the_clip(motion: str) -> None:
    driver, portrait = clip(5), face(seed=6)
    driver[4] = np.nan
    whole = smooth(retarget(driver, portrait, motion), 25, 1.0, 0.3)
    move, calm = Retargeter(portrait, driver, motion), OneEuro(1.0, 0.3)
    live = [calm(move(points), 1 / 25) for points in driver]
    np.testing.assert_array_equal(whole, live)


def test_rest_is_a_closed_mouth_looking_as_usual() -> None:
    driver = np.stack(
        [face(mouth=9), face(30), face(2, mouth=1), face(-28, mouth=3), face(mouth=12)]
    )
    assert calmest(driver) == 2
    driver[2] = np.nan
    assert calmest(driver) != 2


def test_nobody_is_turned_further_than_networks_have_seen() -> None:
    driver = np.stack([face(seed=1), face(40, seed=1)])
    turned = retarget(driver[[0, 1]], face(30, seed=2))
    head = Head(face(30, seed=2))
    assert pose_of(turned[1], head.shape).away <= FURTHEST + 1e-6
    for yaw in (-80, 20, 70):
        back = turned_back(rotation(yaw, 10), FURTHEST)
        np.testing.assert_allclose(back @ back.T, np.eye(3), atol=1e-12)
        away = np.arccos(back[2, 2])
        assert away == pytest.approx(min(np.arccos(rotation(yaw, 10)[2, 2]), FURTHEST))


@settings(max_examples=20, deadline=None)
@given(by=similarities)
def test_procrustes_finds_a_similarity(by: tuple[float, float, float, float]) -> None:
    frames = clip(7)
    target = face(seed=8)
    matrix, shift = similarity(np.stack([moved(target, *by)] * 3), target)
    np.testing.assert_allclose(moved(target, *by) @ matrix.T + shift, target, atol=1e-6)
    matrix, _ = similarity(frames, target)
    assert matrix[0, 0] == matrix[1, 1] and matrix[0, 1] == -matrix[1, 0]


# --- One-Euro --------------------------------------------------------------------------------


def test_one_euro_calms_what_rests_and_follows_what_runs() -> None:
    draw = np.random.default_rng(0)
    rest = draw.normal(0, 0.5, 300)
    calm = OneEuro(1.0, 0.3)
    still = np.array([float(calm(x, 1 / 30)) for x in rest])
    assert still[30:].std() < 0.6 * rest.std()
    run = np.arange(60) * 5.0  # 150 px/s
    quick, slow = OneEuro(1.0, 0.3), OneEuro(1.0, 0.0)
    lag = [run[-1] - [float(f(x, 1 / 30)) for x in run][-1] for f in (quick, slow)]
    assert 0 <= lag[0] < 3 < 15 < lag[1]


def test_one_euro_by_hand() -> None:
    calm = OneEuro(2.0, 0.0)
    assert calm(1.0, 0.1) == 1.0
    share = 1 / (1 + 1 / (2 * np.pi * 2.0 * 0.1))
    assert calm(3.0, 0.1) == pytest.approx(1 + share * 2)


def test_one_euro_passes_over_what_is_missing() -> None:
    calm = OneEuro(1.0, 0.1)
    assert np.isnan(calm([np.nan, 1.0], 0.1)).any()
    first = calm([2.0, 3.0], 0.1)
    np.testing.assert_array_equal(calm([np.nan, 9.0], 0.1), first)
    # The next one comes after twice the time.
    other = OneEuro(1.0, 0.1)
    other([2.0, 3.0], 0.1)
    np.testing.assert_allclose(calm([4.0, 4.0], 0.1), other([4.0, 4.0], 0.2))


@pytest.mark.parametrize("bad", [(0, 1), (1, -1)])
def test_one_euro_refuses_impossible_settings(bad: tuple[float, float]) -> None:
    with pytest.raises(ValueError):
        OneEuro(*bad)
