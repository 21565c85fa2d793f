"""Intervals by resampling people: frames of one person are no independent witnesses."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.float64]


class Estimate(NamedTuple):
    """A mean over people and its percentile interval (NaN for fewer than two people)."""

    mean: float
    low: float
    high: float
    people: int
    """Who had a value."""


def resamples(people: int, count: int, seed: int) -> Counts:
    """How often each person is drawn in each of `count` resamplings: (count, people).

    Counts, not indices: every statistic of a resampling becomes a matrix product.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.integers(people, size=(count, people))
    rows = np.arange(count)[:, None] * people + drawn
    return np.bincount(rows.ravel(), minlength=count * people).reshape(count, people).astype(float)


def interval(statistics: npt.NDArray[np.float64], confidence: float) -> tuple[float, float]:
    """Percentile interval of a statistic's resampled values (count,); NaNs are left out."""
    known = statistics[np.isfinite(statistics)]
    if not len(known):
        return float("nan"), float("nan")
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(known, [tail, 100 - tail])
    return float(low), float(high)


def estimate(values: npt.NDArray[np.float64], counts: Counts, confidence: float) -> Estimate:
    """Mean over people (P,) with an interval from `resamples` (count, P); NaN: had no value."""
    known = np.isfinite(values)
    if not known.any():
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    mean = float(values[known].mean())
    if known.sum() < 2:
        return Estimate(mean, float("nan"), float("nan"), 1)
    drawn = counts[:, known]
    with np.errstate(invalid="ignore"):
        means = drawn @ values[known] / drawn.sum(1)
    return Estimate(mean, *interval(means, confidence), int(known.sum()))
