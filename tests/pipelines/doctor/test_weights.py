"""Checks of trained networks."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from visit import lines

from pipelines.doctor import weights
from pipelines.params import Params

MakeParams = Callable[..., Params]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A site that gives one file, with empty caches beside it."""
    monkeypatch.setenv("LIKENESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "net.pth").touch()
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            raise AssertionError("doctor downloads nothing")

        def log_message(self, format: str, *args: object) -> None:
            asked.append(self.path)

    handler = partial(Handler, directory=str(tmp_path / "site"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
    assert asked


def test_weights(
    make_params: MakeParams, monkeypatch: pytest.MonkeyPatch, site: str, tmp_path: Path
) -> None:
    monkeypatch.setitem(weights.PUBLISHED, "vgg19", (f"{site}/net.pth", "d01eb7cb"))
    monkeypatch.setattr(weights, "FAN_SITE", f"{site}/gone/")
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
        "2DFAN4": "fail",
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


def test_published_weights_of_metrics_are_looked_for_before_days_of_training(
    make_params: MakeParams, monkeypatch: pytest.MonkeyPatch, site: str
) -> None:
    for name, (_, sha256) in list(weights.PUBLISHED.items()):
        gone = "gone/" if name == "alex-heads" else ""
        monkeypatch.setitem(weights.PUBLISHED, name, (f"{site}/{gone}net.pth", sha256))
    params = make_params(evaluate={"features": {"inception": None}, "lpips": {"alex": None}})
    found = [x for x in lines(weights.weights(params)).splitlines() if "evaluate." in x]
    assert [line.split()[0] for line in found] == ["warn", "warn", "fail"]
    assert "not in the cache, and http://" in found[2] and "HTTP 404" in found[2]
    assert "alex-heads-df73285e35b22355.pth" in found[2]


def test_published_weights_are_those_that_training_fetches() -> None:
    perceptual = pytest.importorskip("training.perceptual", reason="needs torch")
    from training.metrics import inception, lpips

    known = {"vgg19": perceptual.CAFFE_VGG19, "inception": inception.PUBLISHED}
    for name, files in lpips.PUBLISHED.items():
        known |= {name: files.backbone, f"{name}-heads": files.heads}
    assert {name: (one.url, one.sha256) for name, one in known.items()} == weights.PUBLISHED


def test_a_file_that_is_not_there_would_stop_training(make_params: MakeParams) -> None:
    nowhere = {"vggface": {"weight": 1.0, "url": "weights/vgg_face_dag.pth"}}
    params = make_params(settings={"paper": {"content": nowhere}})
    (line,) = (x for x in lines(weights.weights(params)).splitlines() if "vggface" in x)
    assert line.startswith("fail") and "no file weights/vgg_face_dag.pth" in line
