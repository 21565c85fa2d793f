"""Who competes, and the frames they get."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_faces import PEOPLE, SIDE, face
from PIL import Image

from training import content, evaluate, trained
from training.evaluation import methods as methods_module
from training.evaluation.frames import open_split, read
from training.evaluation.methods import Methods, nearest
from training.finetune import feed_forward


@pytest.fixture
def shown(rig: Path) -> Callable[[list[int]], Any]:
    episodes = open_split(str(rig / "index.parquet"), str(rig / "shards"), "test", SIDE)
    return lambda frames: read(episodes, episodes.videos[1], [PEOPLE["id1"] + f for f in frames])


def test_frames_come_with_their_own_landmarks(shown):
    frames = shown([0, 5])
    for i, at in enumerate((0, 5)):
        jpeg, points = face(1, at)
        assert (frames.pictures[i] == np.asarray(Image.open(io.BytesIO(jpeg)))).all()
        assert frames.points[i] == pytest.approx(points)
    assert frames.drawings.any() and frames.clips.tolist() == [1, 1]


def test_the_nearest_source_is_of_the_same_pose_wherever_it_stands(shown):
    sources, driver = shown([0, 2, 4, 6]), shown([4, 0])
    assert nearest(sources, driver).tolist() == [2, 0]
    moved = replace(driver, points=driver.points * 1.5 + 20)
    assert nearest(sources, moved).tolist() == [2, 0]


def test_methods_make_as_many_pictures_as_the_driver_has(rig, shown, monkeypatch):
    model = trained.load_model(rig / "models" / "tiny.safetensors")
    adapt = evaluate.load(rig / "params.yaml").adapt
    device = torch.device("cpu")
    methods = Methods(model, content.loss_of(model), adapt, 0, device)
    learned = methods.learn(shown([0, 2]))
    assert list(learned) == ["FF", "FT", "nearest source", "mean of sources", "untrained"]
    driver = shown([1, 3, 5])
    monkeypatch.setattr(methods_module, "BATCH", 2)
    made = {name: method(driver) for name, method in learned.items()}
    assert all(p.shape == (3, SIDE, SIDE, 3) and p.dtype == np.uint8 for p in made.values())
    assert (made["FF"] != made["FT"]).any() and (made["FF"] != made["untrained"]).any()
    x, y = shown([0, 2]).tensors(device)
    e_hat = model.embedder(x, y).mean(0, keepdim=True)
    expected = feed_forward(model.generator, e_hat).render(driver.tensors(device)[1])
    assert np.abs(made["FF"] - (expected.permute(0, 2, 3, 1).numpy() * 127.5 + 127.5)).max() < 0.6
    again = Methods(model, None, adapt, 0, device).learn(shown([0, 2]))
    assert "FT" not in again and (again["untrained"](driver) == made["untrained"]).all()
