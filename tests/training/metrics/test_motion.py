"""Landmark error and jitter."""

from __future__ import annotations

import numpy as np
import pytest
from made_up import face, moved

from training.metrics import motion


def test_landmark_error_is_in_percent_of_the_interocular_distance():
    reference = np.stack([face(), face(1)])
    points = reference + np.array([3, 4])  # 5 pixels, of 60
    assert motion.landmark_error(points, reference) == pytest.approx(100 * 5 / 60)
    points[1] = np.nan
    assert np.isnan(motion.landmark_error(points, reference)).tolist() == [False, True]
    assert motion.found(points).tolist() == [True, False]
    # After alignment place, size and roll are no error; expression is.
    other = moved(reference[:1], 0.3, 2, (50, 9))
    assert motion.landmark_error(other, reference[:1], align=True) == pytest.approx(0, abs=1e-9)
    other[:, 48:] += 10
    assert motion.landmark_error(other, reference[:1], align=True) > 1


def test_jitter_is_the_ratio_of_second_differences_within_a_clip():
    steps = np.arange(6.0)[:, None, None]
    driver = face()[None] + np.concatenate([steps**2, 0 * steps], -1)  # bends by 2 everywhere
    clips, numbers = np.zeros(6, int), np.arange(6)

    def jitter(output, driver, clips=clips, numbers=numbers):
        return motion.jitter(output, driver, clips, numbers)

    assert jitter(driver, driver) == pytest.approx(1)
    output = face()[None] + np.concatenate([3 * steps**2, 0 * steps], -1)
    assert jitter(output, driver) == pytest.approx(3)
    # In a picture of twice the size everything is twice as large, and as restless as before.
    assert jitter(2 * output, driver) == pytest.approx(3)
    cut = output.copy()
    cut[3:] += 500
    assert jitter(cut, driver, np.array([0, 0, 0, 1, 1, 1])) == pytest.approx(3)
    lost = output.copy()
    lost[2] = np.nan
    assert jitter(lost, driver) == pytest.approx(3)  # frames 3, 4, 5
    lost[4] = np.nan
    assert np.isnan(jitter(lost, driver))
    still = np.repeat(face()[None], 6, 0)
    assert np.isnan(jitter(output, still))


def test_jitter_counts_neighbours_in_time_alone():
    rng = np.random.default_rng(0)
    numbers = np.array([0, 1, 3, 4, 6, 7])
    clips = np.zeros(6, int)
    even = face()[None] + 2.0 * numbers[:, None, None]
    trembling = even + rng.normal(0, 1, even.shape)
    # However unequally the frames lie apart, what moves evenly does not tremble.
    assert motion.jitter(even, trembling, clips, numbers) == pytest.approx(0, abs=1e-9)
    assert motion.jitter(trembling, trembling, clips, numbers) == pytest.approx(1)
    # Half a second apart faces move: that says nothing of jitter.
    assert np.isnan(motion.jitter(even, trembling, clips, 12 * numbers))
    far = np.array([0, 1, 2, 30, 31, 32])
    other = trembling.copy()
    other[3:] += 40
    assert motion.jitter(other, other, clips, far) == pytest.approx(1)
    assert motion.close(clips, far).tolist() == [True, True, False, True, True]
    assert motion.close(np.array([0, 0, 0, 1, 1, 1]), np.arange(6)).tolist() == [1, 1, 0, 1, 1]
