"""Checks of trained networks: each is there and is the one that params.yaml names."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from pipelines import detectors
from pipelines.doctor.verdict import Verdicts, fail, ok, warn
from pipelines.params import Params

FAN = ("2DFAN4-11f355bf06.pth.tar", "s3fd-619a316812.pth")
"""face_alignment's weights in torch hub's cache; each name carries the start of its sha256."""
VGG19 = ("https://web.eecs.umich.edu/~justincj/models/vgg19-d01eb7cb.pth", "d01eb7cb")
"""What `training.perceptual` fetches where params.yaml names none; a test keeps them the same."""


def weights(params: Params) -> Verdicts:
    """Every network that this params.yaml names: there, and the one that is named. No downloads."""
    backend = params.landmarks.backend
    if importlib.util.find_spec(backend) is None:
        yield fail("weights", f"{backend} is not installed", detectors.BACKENDS[backend][1])
    elif backend == "mediapipe":
        spec = importlib.util.find_spec("mediapipe")
        root = Path(spec.origin).parent if spec and spec.origin else Path()
        model = root / "modules" / "face_landmark" / "face_landmark.tflite"
        if model.is_file():
            yield ok("weights", "mediapipe's models are in its wheel")
        else:
            yield fail("weights", "this mediapipe has no models", detectors.BACKENDS[backend][1])
    else:
        hub = Path(os.environ.get("TORCH_HOME") or _cache() / "torch") / "hub" / "checkpoints"
        for name in FAN:
            stem = name.partition("-")[2].partition(".")[0]
            yield from _known(f"{name} of face_alignment", hub / name, stem, fetched=True)
    for what, url, sha256 in _named(params):
        if not url:
            yield warn("weights", f"{what}: none named", "give its url in params.yaml")
        elif "://" not in url:
            yield from _known(what, Path(url).expanduser(), sha256, fetched=False)
        elif not sha256:
            yield fail("weights", f"{what}: {url} has no sha256", "give its sha256 in params.yaml")
        else:
            home = Path(os.environ.get("LIKENESS_CACHE") or _cache()).expanduser()
            name = f"{what.rpartition(' ')[2]}-{sha256.lower()[:16]}{Path(url).suffix}"
            yield from _known(what, home / "likeness" / "weights" / name, sha256, fetched=True)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


def _named(params: Params) -> Iterator[tuple[str, str, str]]:
    """(words ending with the network's name, path or URL, sha256)."""
    setting = params.settings.get(params.setting)
    for name, part in setting.content.items() if setting else ():
        url, sha256 = (part.url, part.sha256) if part.url or name != "vgg19" else VGG19
        if url or name not in ("random", "pixels"):
            yield f"content loss {name}", url, sha256
    own = params.evaluate
    for kind, group in (
        ("identity", own.identity),
        ("features", own.features),
        ("lpips", own.lpips),
    ):
        for network, one in group.items():
            if one is not None:
                yield f"evaluate.{kind} {network}", one.url, one.sha256


def _known(what: str, path: Path, sha256: str, fetched: bool) -> Verdicts:
    if not path.is_file():
        if fetched:
            yield warn("weights", f"{what}: not in the cache", f"it is fetched when needed: {path}")
        else:
            yield fail("weights", f"{what}: no file {path}", "training needs it: put it there")
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found.startswith(sha256.lower()):
        yield ok("weights", f"{what}: {path.name}, sha256 {found[:12]}")
    else:
        remedy = "delete it and get it anew, or correct params.yaml"
        yield fail("weights", f"{what}: {path} has sha256 {found[:16]}, not {sha256}", remedy)
