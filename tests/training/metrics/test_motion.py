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
    clips = np.zeros(6, int)
    assert motion.jitter(driver, driver, clips) == pytest.approx(1)
    output = face()[None] + np.concatenate([3 * steps**2, 0 * steps], -1)
    assert motion.jitter(output, driver, clips) == pytest.approx(3)
    # In a picture of twice the size everything is twice as large, and as restless as before.
    assert motion.jitter(2 * output, driver, clips) == pytest.approx(3)
    cut = output.copy()
    cut[3:] += 500
    assert motion.jitter(cut, driver, np.array([0, 0, 0, 1, 1, 1])) == pytest.approx(3)
    lost = output.copy()
    lost[2] = np.nan
    assert motion.jitter(lost, driver, clips) == pytest.approx(3)  # frames 3, 4, 5
    lost[4] = np.nan
    assert np.isnan(motion.jitter(lost, driver, clips))
    still = np.repeat(face()[None], 6, 0)
    assert np.isnan(motion.jitter(output, still, clips))
