"""SSIM and PSNR."""

from __future__ import annotations

import pytest
from made_up import noisy, pictures

from training.metrics.similarity import psnr, ssim


def test_ssim_and_psnr_are_those_of_scikit_image():
    reference = pytest.importorskip("skimage.metrics")
    x = pictures(3)
    y = noisy(x, 20)
    for i in range(3):
        expected = reference.structural_similarity(
            x[i], y[i], gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
            data_range=255, channel_axis=2,
        )  # fmt: skip
        assert ssim(x, y)[i] == pytest.approx(expected, abs=1e-9)
        expected = reference.peak_signal_noise_ratio(y[i], x[i], data_range=255)
        assert psnr(x, y)[i] == pytest.approx(expected, abs=1e-9)


def test_equal_pictures_are_as_alike_as_can_be():
    x = pictures(2)
    assert ssim(x, x) == pytest.approx(1)
    assert (psnr(x, x) == 99).all()  # finite, so that its person keeps a mean
