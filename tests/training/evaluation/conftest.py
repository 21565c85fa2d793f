"""The detector of drawn faces, and one whole evaluation of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from drawn_faces import Detector, make_model, make_params, make_shards, run

from pipelines import detectors


@pytest.fixture(autouse=True)
def detector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detectors, "load", lambda name, device: Detector())


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, a model, and one whole run's results."""
    folder = tmp_path_factory.mktemp("rig")
    torch.manual_seed(5)  # `untrained` has evaluate.seed, 0
    torch.set_num_threads(1)  # as in the tests: sums over threads differ in their last bits
    make_shards(folder)
    make_model(folder)
    params = make_params(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detectors, "load", lambda name, device: Detector())
        assert run(params) == 0
    return folder
