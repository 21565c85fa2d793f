# mypy: allow-subclassing-any
"""Frozen backbones of the content loss: VGG19 and VGGFace, or a substitute that params must name.

The Caffe-trained networks see BGR, 0..255, minus a mean: pictures in [-1, 1] are turned into
that here. Weights come from a file or a URL and are checked against a sha256. When they cannot
be had `BackboneUnavailable` says so; nothing is ever substituted silently, because a loss or a
metric of other weights is another loss.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.addresses import without_secrets

Name = Literal["vgg19", "vggface", "squeezenet", "random", "pixels"]
NAMES: tuple[str, ...] = get_args(Name)


FORMATS = "a state dict as torch.save writes it (.pth, .pt), a .safetensors or an .npz"
"""What `read` takes."""


class BackboneUnavailable(RuntimeError):
    """Weights that cannot be had, are not the named ones or do not fit: one line and a remedy."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Where the weights of a backbone are, and how to know them."""

    url: str
    """A path, or a URL to be fetched once into the cache."""
    sha256: str = ""
    """64 hex digits, or the first 8 or more. May be empty for a local file only."""
    rgb: bool = False
    """The first convolution was converted to RGB input: flip it back."""


CAFFE_VGG19 = Weights("https://web.eecs.umich.edu/~justincj/models/vgg19-d01eb7cb.pth", "d01eb7cb")
"""Its name carries the start of its sha256. VGGFace has none published: params must name one."""

PUBLISHED: Mapping[str, Weights] = {"vgg19": CAFFE_VGG19}


@dataclass(frozen=True, slots=True)
class _Plan:
    """A VGG: 3x3 convolutions by width, "M" for a pool, and the mean of its training pictures."""

    layers: tuple[int | str, ...]
    taps: tuple[int, ...]
    mean_bgr: tuple[float, float, float]


# Truncated after the last ReLU that the loss looks at: the first of each of five stages.
PLANS: Mapping[str, _Plan] = {
    "vgg19": _Plan(
        (64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", 512),
        (1, 6, 11, 20, 29),
        (103.939, 116.779, 123.68),
    ),
    "vggface": _Plan(
        (64, 64, "M", 128, 128, "M", *[256] * 3, "M", *[512] * 3, "M", 512),
        (1, 6, 11, 18, 25),
        (93.5940, 104.7624, 129.1863),
    ),
}
SQUEEZENET_MEAN_BGR = (104.0, 117.0, 123.0)


class Backbone(nn.Module):
    """A frozen sequence of layers and the indices of those whose outputs are compared."""

    mean: Tensor

    def __init__(
        self, layers: nn.Sequential, taps: Sequence[int], mean_bgr: Sequence[float]
    ) -> None:
        super().__init__()
        self.layers = layers
        self.taps = tuple(taps)
        self.register_buffer("mean", torch.tensor(mean_bgr).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Backbone:
        """Stay in eval mode: it is an instrument, never a pupil."""
        super().train(False)
        return self

    def forward(self, x: Tensor) -> list[Tensor]:
        """Pictures (B, 3, H, W), RGB in [-1, 1], to the outputs of the tapped layers."""
        h = x.flip(1) * 127.5 + (127.5 - self.mean)
        seen = []
        for index, layer in enumerate(self.layers):
            h = layer(h)
            if index in self.taps:
                seen.append(h)
        return seen


class Pixels(nn.Module):
    """No network: the content loss compares the pictures themselves."""

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to a list of itself."""
        return [x]


class Fire(nn.Module):
    """SqueezeNet's block, with torchvision's names."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, 2 expand, H, W)."""
        h = F.relu(self.squeeze(x))
        return F.relu(torch.cat((self.expand1x1(h), self.expand3x3(h)), dim=1))


def load(
    name: str,
    weights: Weights | None = None,
    *,
    cache: Path | None = None,
    average_pool: bool = False,
    seed: int = 0,
) -> nn.Module:
    """The backbone of that name, ready and frozen; `seed` is for `random` alone.

    `average_pool` replaces each max-pool by an average-pool.
    """
    if name not in NAMES:
        raise BackboneUnavailable(f"no backbone named {name!r}; there are {', '.join(NAMES)}")
    if name == "pixels":
        return Pixels()
    if name == "random":
        return random_backbone("vgg19", seed, average_pool=average_pool)
    weights = _named(name, weights)
    path = fetch(name, weights, cache or default_cache())
    backbone = _squeezenet(average_pool) if name == "squeezenet" else _vgg(name, average_pool)
    _fill(backbone, read(name, path), name, weights)
    return backbone


def digest(name: str, weights: Weights | None = None, *, cache: Path | None = None) -> str:
    """The whole sha256 of a backbone's file; empty for `random` and `pixels`, which have none."""
    if name in ("random", "pixels"):
        return ""
    return _sha256(fetch(name, _named(name, weights), cache or default_cache()))


def _named(name: str, weights: Weights | None) -> Weights:
    weights = weights or PUBLISHED.get(name)
    if weights is None:
        others = " or ".join(other for other in ("random", "pixels") if other != name)
        raise BackboneUnavailable(
            f"{name}: no weights named; give a url (with its sha256) or a path, or choose "
            f"{others} as backbone, which needs none"
        )
    return weights


def default_cache() -> Path:
    """`$LIKENESS_CACHE`, else the user's cache folder."""
    home = os.environ.get("LIKENESS_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "likeness" / "weights"


def random_backbone(plan: str = "vgg19", seed: int = 0, *, average_pool: bool = False) -> Backbone:
    """A VGG of random weights that depend on the seed alone: of use in tests and benchmarks."""
    with torch.random.fork_rng(devices=[]):  # layers are born with random weights of their own
        backbone = _vgg(plan, average_pool)
    generator = torch.Generator().manual_seed(seed)
    for layer in backbone.layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
    return backbone


def _pool(average: bool, kernel: int = 2, *, ceil: bool = False) -> nn.Module:
    kind = nn.AvgPool2d if average else nn.MaxPool2d
    return kind(kernel, stride=2, ceil_mode=ceil)


def _vgg(plan_name: str, average_pool: bool) -> Backbone:
    plan = PLANS[plan_name]
    layers: list[nn.Module] = []
    width = 3
    for layer in plan.layers:
        if isinstance(layer, int):
            layers += [nn.Conv2d(width, layer, 3, padding=1), nn.ReLU(inplace=True)]
            width = layer
        else:
            layers.append(_pool(average_pool))
    return Backbone(nn.Sequential(*layers), plan.taps, plan.mean_bgr)


def _squeezenet(average_pool: bool) -> Backbone:
    def pool() -> nn.Module:
        return _pool(average_pool, 3, ceil=True)

    layers = nn.Sequential(
        *(nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(inplace=True), pool()),
        *(Fire(64, 16, 64), Fire(128, 16, 64), pool()),
        *(Fire(128, 32, 128), Fire(256, 32, 128), pool()),
        *(Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256)),
    )
    return Backbone(layers, (1, 4, 7, 9, 12), SQUEEZENET_MEAN_BGR)


def fetch(name: str, weights: Weights, cache: Path) -> Path:
    """The weights as a local file whose sha256 is the named one; a URL goes through the cache."""
    sha = weights.sha256.lower()
    if sha and not re.fullmatch("[0-9a-f]{8,64}", sha):
        raise BackboneUnavailable(f"{name}: sha256 {weights.sha256!r} is not 8 to 64 hex digits")
    if re.match("[a-z0-9+]+://", weights.url) is None:
        path = Path(weights.url).expanduser()
        if not path.is_file():
            raise BackboneUnavailable(
                f"{name}: no weights at {path}; put the file there, or correct its url"
            )
        return _checked(name, path, sha)
    if not sha:
        told = without_secrets(weights.url)
        raise BackboneUnavailable(f"{name}: {told} needs a sha256 to be checked against")
    try:
        suffix = Path(urlsplit(weights.url).path).suffix  # by which `read` knows the format
    except ValueError:
        raise BackboneUnavailable(f"{name}: {without_secrets(weights.url)} is no URL") from None
    path = cache / f"{name}-{sha[:16]}{suffix}"
    if not path.is_file():
        _download(name, weights.url, path, sha)
    return _checked(name, path, sha)


def _checked(name: str, path: Path, sha: str, called: str = "") -> Path:
    found = _sha256(path)
    if not found.startswith(sha):
        raise BackboneUnavailable(
            f"{name}: {called or path} has sha256 {found}, not {sha}; get the file anew or correct "
            "the params"
        )
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(name: str, url: str, path: Path, sha: str) -> None:
    """Fetch to a temporary file, check, rename: the cache never holds a broken file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as out, urllib.request.urlopen(url, timeout=60) as body:
            shutil.copyfileobj(body, out)
        _checked(name, Path(temporary), sha, without_secrets(url))
        Path(temporary).replace(path)
    except (OSError, HTTPException, ValueError) as error:
        told = without_secrets(url)
        # Its words may repeat what was left out.
        why = f"{error}" if told == url else type(error).__name__
        raise BackboneUnavailable(
            f"{name}: {told} cannot be fetched ({why}); put the file somewhere and name its path, "
            "or name another network in params.yaml"
        ) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()


def read(name: str, path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by their names, never running code from the file.

    .npz and .safetensors are known by their suffix; all else is taken for PyTorch's.
    """
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        state: Any = torch.load(path, map_location="cpu", weights_only=True)  # .safetensors too
    except Exception as error:
        # Not torch's own words: they advise to read the file in a way that runs code from it.
        reason = type(error).__name__
        raise BackboneUnavailable(
            f"{name}: {path} is no weights file ({reason}): it must be {FORMATS}; get it anew or "
            "convert it"
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    return {key: value for key, value in state.items() if isinstance(value, Tensor)}


def _fill(backbone: Backbone, state: dict[str, Tensor], name: str, weights: Weights) -> None:
    """Copy the weights in; what lies behind the truncation is ignored, what lacks is an error."""
    with torch.no_grad():
        for key, parameter in backbone.layers.named_parameters():
            names = _aliases(key, backbone)
            source = next((k for k in names if k in state), None)
            if source is None:
                raise BackboneUnavailable(
                    f"{name}: {weights.url} does not fit: it holds no {' or '.join(names)}"
                )
            if state[source].shape != parameter.shape:
                raise BackboneUnavailable(
                    f"{name}: {weights.url} does not fit: {source} is "
                    f"{tuple(state[source].shape)}, not {tuple(parameter.shape)}"
                )
            parameter.copy_(state[source])
        if weights.rgb:
            first = backbone.layers[0].weight
            first.copy_(first.flip(1))


def _aliases(key: str, backbone: Backbone) -> list[str]:
    """Names of one parameter: torchvision's `features.5.weight`, of a VGG also `conv2_1.weight`."""
    index, leaf = key.split(".", 1)
    names = [f"features.{key}"]
    if isinstance(backbone.layers[int(index)], nn.Conv2d):
        before = list(backbone.layers)[: int(index)]
        pools = [i for i, layer in enumerate(before) if not isinstance(layer, nn.Conv2d | nn.ReLU)]
        stage = before[pools[-1] + 1 :] if pools else before
        number = sum(isinstance(layer, nn.Conv2d) for layer in stage) + 1
        names.append(f"conv{len(pools) + 1}_{number}.{leaf}")
    return names
