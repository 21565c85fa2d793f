"""The instruments with the real detector."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipelines import detectors
from pipelines.params.training import Evaluate
from training.evaluation.instruments import Instruments
from training.metrics import motion

LOAD = detectors.load


def test_a_real_face_is_found_in_64_pixels(corpus, monkeypatch):
    """With the real detector, where it is in the large picture; noise has no face."""
    av = pytest.importorskip("av")
    pytest.importorskip("mediapipe")
    monkeypatch.setattr(detectors, "load", LOAD)
    clip = next(path for path in sorted((corpus / "voxceleb2_mp4").rglob("*.mp4")))
    with av.open(str(clip)) as file:
        frame = next(iter(file.decode(video=0))).to_image()
    large, small = (np.asarray(frame.resize((side, side)))[None] for side in (256, 64))
    instruments = Instruments(Evaluate(), torch.device("cpu"))
    nowhere = np.full((1, 68, 2), 8.0)
    expected, found = (instruments.see(pictures, nowhere) for pictures in (large, small))
    assert motion.found(expected.points).all() and motion.found(found.points).all()
    assert motion.landmark_error(found.points, expected.points)[0] < 8
    driver = SimpleNamespace(clips=np.zeros(1, int), numbers=np.zeros(1, int))
    scores = instruments.reenacted_self(found, found, driver)
    assert scores["landmark error"] == 0 and scores["SSIM"] == pytest.approx(1)
    noise = np.random.default_rng(0).integers(0, 255, small.shape, np.uint8)
    lost = instruments.see(noise, nowhere)
    assert not motion.found(lost.points).any()
    assert lost.reference == pytest.approx((nowhere + 0.5) * 4 - 0.5), "where it should be"


def test_the_detector_runs_where_evaluation_does(monkeypatch):
    asked = []
    monkeypatch.setattr(detectors, "load", lambda *words: asked.append(words))
    for detector in ("mediapipe", "face_alignment"):
        Instruments(Evaluate(detector=detector), torch.device("cuda:1"))
    assert asked == [("mediapipe", "cpu"), ("face_alignment", "cuda:1")]
