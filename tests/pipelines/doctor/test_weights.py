"""Checks of trained networks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from visit import lines

from pipelines.doctor import weights
from pipelines.params import Params

MakeParams = Callable[..., Params]


def test_weights(make_params: MakeParams, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIKENESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda _: object())
    here = tmp_path / "net.pth"
    here.write_bytes(b"weights")
    true, sha = hashlib.sha256(b"weights").hexdigest(), hashlib.sha256(b"others").hexdigest()
    params = make_params(
        settings={
            "paper": {
                "content": {
                    "vgg19": {"weight": 1.0},
                    "vggface": {"weight": 1.0, "url": str(here), "sha256": sha},
                    "squeezenet": {"weight": 1.0, "url": str(here), "sha256": true[:12]},
                    "random": {"weight": 1.0},
                }
            }
        },
        evaluate={"identity": {"arcface": {"url": "https://x/y.onnx"}}},
    )
    found = lines(weights.weights(params)).splitlines()
    by_word = {
        word: line[:4]
        for word in ("2DFAN4", "vgg19", "vggface", "squeeze", "arcface")
        for line in found
        if word in line
    }
    assert by_word == {
        "2DFAN4": "warn",
        "vgg19": "warn",
        "vggface": "fail",
        "squeeze": "ok  ",
        "arcface": "fail",
    }
    # Where training looks for it, a file that is not what its name says is a failure.
    cached = tmp_path / "cache" / "likeness" / "weights" / "vgg19-d01eb7cb.pth"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"other")
    assert "has sha256" in next(
        x for x in lines(weights.weights(params)).splitlines() if "vgg19" in x
    )


def test_the_backbone_is_the_one_that_training_fetches() -> None:
    perceptual = pytest.importorskip("training.perceptual", reason="needs torch")
    known = perceptual.CAFFE_VGG19
    assert (known.url, known.sha256) == weights.VGG19


def test_a_file_that_is_not_there_would_stop_training(make_params: MakeParams) -> None:
    nowhere = {"vggface": {"weight": 1.0, "url": "weights/vgg_face_dag.pth"}}
    params = make_params(settings={"paper": {"content": nowhere}})
    (line,) = (x for x in lines(weights.weights(params)).splitlines() if "vggface" in x)
    assert line.startswith("fail") and "no file weights/vgg_face_dag.pth" in line
