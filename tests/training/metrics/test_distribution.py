"""Distances between distributions, in closed form and by other code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made_up import noisy, pictures

from training.metrics import distribution
from training.metrics.bootstrap import resamples
from training.perceptual import Weights


def gaussian(n: int, d: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


@pytest.mark.parametrize(("n", "m", "d"), [(60, 50, 8), (9, 12, 30), (40, 12, 20), (2, 2, 5)])
def test_frechet_distance_is_that_of_the_matrix_square_root(n, m, d):
    linalg = pytest.importorskip("scipy.linalg")
    x, y = gaussian(n, d, 1), gaussian(m, d, 2)
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    # The root's trace from the product's eigenvalues: sqrtm itself fails where it is singular.
    root = np.sqrt(np.maximum(linalg.eigvals(a @ b).real, 0)).sum()
    if min(n, m) > d:
        assert np.trace(linalg.sqrtm(a @ b).real) == pytest.approx(root)
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(a + b) - 2 * root
    assert distribution.frechet(x, y) == pytest.approx(expected, rel=1e-5)


def test_frechet_distance_of_known_gaussians():
    x = gaussian(50, 6, 3)
    assert distribution.frechet(x, x) == pytest.approx(0, abs=1e-8)
    assert distribution.frechet(x, x + 2) == pytest.approx(4 * 6)
    centre = x.mean(0)
    stretched = centre + 3 * (x - centre)  # tr(A + 9 A - 6 A)
    assert distribution.frechet(x, stretched) == pytest.approx(4 * np.trace(np.cov(x.T)))


def test_kernel_distance_is_the_unbiased_one():
    kid = pytest.importorskip("torchmetrics.image.kid")
    x, y = gaussian(24, 10, 4), gaussian(24, 10, 5)
    parts = list(np.split(x, 6)), list(np.split(y, 6))
    found = distribution.kernel_distance(*parts, resamples(6, 200, 0), 0.95)
    expected = kid.poly_mmd(torch.from_numpy(x), torch.from_numpy(y))
    assert found.mean == pytest.approx(float(expected)) and found.people == 6
    assert found.low < found.mean < found.high


def test_a_resampled_kernel_distance_counts_no_frame_against_its_copy():
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(5, 7)) for _ in range(5)]
    y = [rng.normal(size=(6, 7)) + 0.2 for _ in range(5)]
    counts = np.array([[2.0, 0, 1, 1, 1]])

    def mean(a, b, same):
        total = pairs = 0.0
        for p, wp in enumerate(counts[0]):
            for q, wq in enumerate(counts[0]):
                k = (a[p] @ b[q].T / 7 + 1) ** 3
                weight = wp if p == q else wp * wq * 5 / 4
                here = ~np.eye(len(k), dtype=bool) if same and p == q else np.ones(k.shape, bool)
                total, pairs = total + weight * k[here].sum(), pairs + weight * here.sum()
        return total / pairs

    expected = mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)
    low, high = distribution.kernel_distance(x, y, counts, 0.95)[1:3]
    assert low == high == pytest.approx(expected)


@pytest.mark.parametrize("people", [1, 2, 4, 5])
def test_an_interval_of_a_kernel_distance_wants_people_and_holds_the_estimate(people):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        own = rng.normal(size=(people, 1, 7)) * 3  # people differ more than real from generated
        x, y = (list(own + rng.normal(size=(people, 8, 7))) for _ in range(2))
        found = distribution.kernel_distance(x, y, resamples(people, 200, seed), 0.95)
        assert np.isfinite(found.mean) and found.people == people
        if people < distribution.FEW_PEOPLE:
            assert np.isnan(found.low) and np.isnan(found.high)
        else:
            assert found.low <= found.mean <= found.high


def test_equal_distributions_have_a_kernel_distance_around_zero():
    rng = np.random.default_rng(1)
    values = []
    for _ in range(40):
        x, y = (list(rng.normal(size=(4, 5, 6))) for _ in range(2))
        values.append(distribution.kernel_distance(x, y, resamples(4, 1, 0), 0.95).mean)
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(40)
    assert min(values) < 0


def test_features_tell_their_network():
    assert distribution.names("inception") == ("FID", "KID")
    assert distribution.names("squeezenet") == ("FD-squeezenet", "KD-squeezenet")


def test_squeezenet_features_part_noise_from_pictures(corpus):
    weights = Weights(str(corpus / "weights" / "squeezenet1_1_caffe.npz"))
    network = distribution.extractor("squeezenet", weights)
    x = pictures(4, 64)
    a, b = (distribution.features(network, y) for y in (x, noisy(x, 60)))
    assert a.shape == (4, 512)
    assert distribution.features(network, x, batch=3) == pytest.approx(a, abs=1e-4)
    assert distribution.frechet(a, b) > 10 * abs(distribution.frechet(a, a))
