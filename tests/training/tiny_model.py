"""A model of 64 pixels that has learned nothing, params to use it with, and real faces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_setting import CONTENT
from tiny_setting import NETWORKS as TINY

from training import perceptual, trained
from training.losses import ContentLoss
from training.meta import MetaConfig, MetaLearner
from training.networks import NetworkConfig
from training.perceptual import Pixels

MONA, EINSTEIN = "portraits/mona_lisa.jpg", "portraits/einstein.jpg"
SHORT = "videos/le4a"
"""How the name of a video of 72 frames at 30 a second begins; all of these in the corpus."""
NETWORKS = NetworkConfig(**TINY | {"image_size": 64})
SETTING: dict[str, Any] = {"setting": {"content": CONTENT}}
PARAMS = """
name: test
catalog: {metadata: m, sources: [{name: s, reader: mp4}]}
card: {title: t, licence: mit, description: d}
landmarks: {backend: mediapipe}
"""


def begins(corpus: Path, start: str) -> Path:
    """The file so called: with whole ids here, a check after a takedown would find them here."""
    (found,) = corpus.glob(f"{start}*")
    return found


def write_model(path: Path, facts: dict[str, Any]) -> Path:
    learner = MetaLearner(3, ContentLoss((Pixels(), 1.0)), MetaConfig(), NETWORKS)
    trained.save_model(str(path), learner, facts)
    return path


def write_squeezenet(path: Path) -> Path:
    """A content network whose weights are of no use."""
    layers = perceptual._squeezenet(False).layers.state_dict()
    torch.save({f"features.{key}": torch.zeros_like(v) for key, v in layers.items()}, path)
    return path
