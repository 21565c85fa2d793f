"""Faces laid over one another."""

from __future__ import annotations

import numpy as np
import pytest
from made_up import face, moved

from training.metrics.alignment import aligned, similarity


def test_a_similarity_transform_is_found_again_and_no_better_one_exists():
    points = face()
    target = moved(points, 0.4, 1.7, (12, -30))
    assert aligned(points, target) == pytest.approx(target)
    # Against noise: least squares over the four numbers of a similarity transform.
    target = target + np.random.default_rng(3).normal(0, 5, target.shape)
    rows = np.concatenate(
        [
            np.stack([points[:, 0], -points[:, 1], np.ones(68), np.zeros(68)], 1),
            np.stack([points[:, 1], points[:, 0], np.zeros(68), np.ones(68)], 1),
        ]
    )
    a, b, x, y = np.linalg.lstsq(rows, target.T.ravel(), rcond=None)[0]
    assert similarity(points, target) == pytest.approx(np.array([[a, -b, x], [b, a, y]]))
    batch = aligned(np.stack([points, points]), np.stack([target, points]))
    assert batch[1] == pytest.approx(points) and batch[0] == pytest.approx(aligned(points, target))
