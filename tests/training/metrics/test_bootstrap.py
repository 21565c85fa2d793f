"""Intervals over people."""

from __future__ import annotations

import numpy as np
import pytest

from training.metrics.bootstrap import estimate, interval, resamples


def test_an_interval_is_that_of_plain_resampling_and_of_the_normal_law():
    values = np.random.default_rng(0).normal(10, 2, 40)
    counts = resamples(40, 4000, seed=5)
    assert (counts.sum(1) == 40).all() and (counts == resamples(40, 4000, seed=5)).all()
    found = estimate(values, counts, 0.95)
    half = 1.96 * values.std() / np.sqrt(40)
    assert found.mean == pytest.approx(values.mean()) and found.people == 40
    assert found.low == pytest.approx(values.mean() - half, abs=0.07)
    assert found.high == pytest.approx(values.mean() + half, abs=0.07)
    drawn = np.random.default_rng(5).integers(40, size=(4000, 40))
    expected = np.percentile(values[drawn].mean(1), [2.5, 97.5])
    assert (found.low, found.high) == pytest.approx(tuple(expected))


def test_people_without_a_value_are_left_out_and_one_person_has_no_interval():
    counts = resamples(3, 500, seed=0)
    found = estimate(np.array([1.0, np.nan, 3.0]), counts, 0.9)
    assert found.mean == 2 and found.people == 2 and (found.low, found.high) == (1, 3)
    alone = estimate(np.array([np.nan, 7.0, np.nan]), counts, 0.9)
    assert alone.mean == 7 and alone.people == 1 and np.isnan(alone.low)
    assert estimate(np.full(3, np.nan), counts, 0.9).people == 0
    assert np.isnan(interval(np.full(4, np.nan), 0.9)).all()
