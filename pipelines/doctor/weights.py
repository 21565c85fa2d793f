"""Checks of trained networks: each is the one that params.yaml names, and there or to be had."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from pipelines import detectors
from pipelines.doctor.verdict import Verdicts, fail, ok, warn
from pipelines.params import Params

FAN = ("2DFAN4-11f355bf06.pth.tar", "s3fd-619a316812.pth")
"""face_alignment's weights in torch hub's cache; each name carries the start of its sha256."""
FAN_SITE = "https://www.adrianbulat.com/downloads/python-fan/"
_HEADS = (
    "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/"
)
PUBLISHED = {
    "vgg19": ("https://web.eecs.umich.edu/~justincj/models/vgg19-d01eb7cb.pth", "d01eb7cb"),
    "inception": (
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
        "pt_inception-2015-12-05-6726825d.pth",
        "6726825d",
    ),
    "alex": ("https://download.pytorch.org/models/alexnet-owt-7be5be79.pth", "7be5be79"),
    "alex-heads": (_HEADS + "alex.pth", "df73285e35b22355"),
    "vgg": ("https://download.pytorch.org/models/vgg16-397923af.pth", "397923af"),
    "vgg-heads": (_HEADS + "vgg.pth", "a78928a0af1e5f0f"),
}
"""What training and evaluation fetch where params.yaml names none, by its name in the cache: URL
and sha256. `training` has them too, whose import takes seconds; a test keeps them the same."""
TIMEOUT = 10
"""Seconds that a site has to answer."""


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
            yield from _known(f"{name} of face_alignment", hub / name, stem, FAN_SITE + name)
    for what, url, sha256 in _named(params):
        if not url:
            yield warn("weights", f"{what}: none named", "give its url in params.yaml")
        elif "://" not in url:
            yield from _known(what, Path(url).expanduser(), sha256, "")
        elif not sha256:
            yield fail("weights", f"{what}: {url} has no sha256", "give its sha256 in params.yaml")
        else:
            home = Path(os.environ.get("LIKENESS_CACHE") or _cache()).expanduser()
            name = f"{what.rpartition(' ')[2]}-{sha256.lower()[:16]}{Path(url).suffix}"
            yield from _known(what, home / "likeness" / "weights" / name, sha256, url)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


def _named(params: Params) -> Iterator[tuple[str, str, str]]:
    """(words ending with the network's name, path or URL, sha256)."""
    setting = params.settings.get(params.setting)
    for name, part in setting.content.items() if setting else ():
        url, sha256 = (part.url, part.sha256) if part.url or name != "vgg19" else PUBLISHED[name]
        if url or name not in ("random", "pixels"):
            yield f"content loss {name}", url, sha256
    own = params.evaluate
    for arcface, given in own.identity.items():
        yield f"evaluate.identity {arcface}", given.url, given.sha256
    for network, named in own.features.items():
        if network != "random":
            url, sha256 = (named.url, named.sha256) if named else PUBLISHED[network]
            yield f"evaluate.features {network}", url, sha256
    for distance, both in own.lpips.items():
        heads = both.heads if both else None
        url, sha256 = (both.url, both.sha256) if both else PUBLISHED[distance]
        yield f"evaluate.lpips {distance}", url, sha256
        if heads:
            yield f"evaluate.lpips {distance}-heads", heads.url, heads.sha256
        elif both is None:
            yield (f"evaluate.lpips {distance}-heads", *PUBLISHED[f"{distance}-heads"])


def _silence(url: str) -> str:
    """Why a site would not give a file; nothing where it would, or cannot be asked like that."""
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT):
            return ""
    except urllib.error.HTTPError as error:
        # Some sites give files only to who asks for them in earnest.
        return "" if error.code in (403, 405) else f"HTTP {error.code}"
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))


def _known(what: str, path: Path, sha256: str, url: str) -> Verdicts:
    """A file that is there, or that a URL would give."""
    if not path.is_file():
        if not url:
            yield fail("weights", f"{what}: no file {path}", "training needs it: put it there")
        elif reason := _silence(url):
            remedy = f"get it elsewhere and put it at {path}, or name its path in params.yaml"
            yield fail("weights", f"{what}: not in the cache, and {url}: {reason}", remedy)
        else:
            yield warn("weights", f"{what}: not in the cache", f"it is fetched when needed: {path}")
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found.startswith(sha256.lower()):
        yield ok("weights", f"{what}: {path.name}, sha256 {found[:12]}")
    else:
        remedy = "delete it and get it anew, or correct params.yaml"
        yield fail("weights", f"{what}: {path} has sha256 {found[:16]}, not {sha256}", remedy)
