"""The instruments with the real detector."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipelines import detectors
from pipelines.params.training import Evaluate
from training.evaluation.instruments import Instruments, Seen
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


def unit(*degrees: float) -> np.ndarray:
    """Embeddings on the unit circle: their cosines are those of the angles between them."""
    turns = np.deg2rad(degrees)
    return np.stack([np.cos(turns), np.sin(turns)], 1).astype(np.float32)


def seen(grey: list[int], shift: list[float], degrees: list[float], scale: float = 1) -> Seen:
    """Grey pictures of a face of which all points lie `shift` too far to the right."""
    pictures = np.stack([np.full((64, 64, 3), value, np.uint8) for value in grey])
    face = np.random.default_rng(0).uniform(20, 40, (68, 2))
    points = np.stack([face * scale + (value, 0) for value in shift])
    return Seen(pictures, points, np.nan_to_num(points, nan=30.0), {"id": unit(*degrees)}, {})


@pytest.fixture
def instruments(monkeypatch: pytest.MonkeyPatch) -> Instruments:
    monkeypatch.setattr(detectors, "load", lambda *_: None)
    return Instruments(Evaluate(), torch.device("cpu"))


def test_self_reenactment_compares_frame_by_frame(instruments: Instruments) -> None:
    real = seen([100, 100], [0, 0], [0, 90])
    fake = seen([100, 110], [0, 5], [60, 90])
    driver = SimpleNamespace(clips=np.zeros(2, int), numbers=np.arange(2))
    scores = instruments.reenacted_self(fake, real, driver)
    assert scores["id"] == pytest.approx([0.5, 1], abs=1e-6), "each with its own frame"
    assert scores["PSNR"] == pytest.approx([99, 20 * np.log10(255 / 10)], abs=1e-6)
    eyes = real.points[0, [36, 45]]
    between = np.linalg.norm(eyes[0] - eyes[1])
    assert scores["landmark error"] == pytest.approx([0, 100 * 5 / between])
    assert scores["found"].tolist() == [1, 1]


def test_cross_reenactment_asks_one_person_for_identity_and_the_other_for_motion(
    instruments: Instruments,
) -> None:
    own = seen([0, 0], [0, 0], [0, 60])
    driver = seen([0, 0], [7, 7], [180, 180])
    fake = seen([0, 0], [3, np.nan], [0, 90], scale=1.5)
    scores = instruments.reenacted_cross(fake, own, driver)
    # The mean over the person's frames: of 0 and 60 degrees, and of 90 and 30.
    half, far = np.cos(np.deg2rad(60)), np.cos(np.deg2rad(30))
    assert scores["id"] == pytest.approx([(1 + half) / 2, (0 + far) / 2], abs=1e-6)
    assert scores["landmark error"][0] == pytest.approx(0, abs=1e-6), "moved and scaled alone"
    assert np.isnan(scores["landmark error"][1]) and scores["found"].tolist() == [1, 0]
    assert "SSIM" not in scores and "jitter" not in scores


def test_real_frames_are_held_against_all_others(instruments: Instruments) -> None:
    real = seen([0, 0], [0, 0], [0, 60])
    others = seen([0, 0, 0], [0, 0, np.nan], [0, 180, 90])
    scores = instruments.real(others, real)
    half, far = np.cos(np.deg2rad(60)), np.cos(np.deg2rad(30))
    assert scores["id"] == pytest.approx([(1 + half) / 2, -(1 + half) / 2, far / 2], abs=1e-6)
    assert scores["found"].tolist() == [1, 1, 0]
