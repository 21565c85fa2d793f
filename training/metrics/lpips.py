# mypy: allow-subclassing-any
"""Perceptual distance of two pictures, in the features of a network trained on ImageNet.

Zhang et al. 2018 (arXiv 1801.03924), version 0.1. A distance is called LPIPS only with the
published backbone *and* the published linear heads; without them it is `perceptual-<backbone>`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training import perceptual
from training.metrics.weights import fill
from training.perceptual import Weights
from training.pixels import to_unit

Name = Literal["alex", "vgg", "squeezenet"]
Layers = tuple[int | str, ...]

HEADS_URL = (
    "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/"
)


@dataclass(frozen=True, slots=True)
class _Published:
    """The files that make an LPIPS."""

    backbone: Weights
    heads: Weights


PUBLISHED = {
    "alex": _Published(
        Weights("https://download.pytorch.org/models/alexnet-owt-7be5be79.pth", "7be5be79"),
        Weights(HEADS_URL + "alex.pth", "df73285e35b22355"),
    ),
    "vgg": _Published(
        Weights("https://download.pytorch.org/models/vgg16-397923af.pth", "397923af"),
        Weights(HEADS_URL + "vgg.pth", "a78928a0af1e5f0f"),
    ),
}
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""ImageNet's mean and deviation for RGB in [-1, 1]."""


class Perceptual(nn.Module):
    """Squared differences of unit-length features, weighed by a head for each layer."""

    def __init__(self, name: str, backbone: nn.Module, heads: list[Tensor] | None = None) -> None:
        """heads: for each tapped layer the weights of its channels, (C,); None: all one."""
        super().__init__()
        self.name = name
        self.backbone = backbone
        self.heads = heads
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(B, 3, H, W) twice, RGB in [-1, 1], to (B,); 0 where they are equal."""
        total = x.new_zeros(len(x))
        for layer, (a, b) in enumerate(zip(self.backbone(x), self.backbone(y), strict=True)):
            difference = (_unit(a) - _unit(b)).square()
            if self.heads is not None:
                difference = difference * self.heads[layer].to(x.device).view(1, -1, 1, 1)
            total = total + difference.sum(1).mean((1, 2))
        return total

    def measure(
        self, pictures: npt.NDArray[np.uint8], references: npt.NDArray[np.uint8], batch: int = 8
    ) -> npt.NDArray[np.float64]:
        """(n, H, W, 3) twice to (n,)."""
        device = next(self.backbone.parameters()).device
        parts = []
        with torch.inference_mode():
            for at in range(0, len(pictures), batch):
                pair = (pictures[at : at + batch], references[at : at + batch])
                parts.append(self(*(to_unit(part, device) for part in pair)).cpu())
        distances: npt.NDArray[np.float64] = torch.cat(parts).double().numpy()
        return distances


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)


def load(name: Name, backbone: Weights | None = None, heads: Weights | None = None) -> Perceptual:
    """The named distance. For alex and vgg: the published files, fetched once, where none is given.

    A backbone that is given without heads gets none. Raises BackboneUnavailable.
    """
    if name == "squeezenet":  # the Caffe-trained one: LPIPS has no heads for it
        return Perceptual("perceptual-squeezenet", perceptual.load(name, backbone))
    published = PUBLISHED[name]
    if backbone is None:
        backbone, heads = published.backbone, heads or published.heads
    network = _alexnet() if name == "alex" else _vgg16()
    fill(network, name, backbone)
    if heads is None:
        return Perceptual(f"perceptual-{name}", network)
    linear = _Heads(network.channels)
    fill(linear, f"{name}-heads", heads)
    genuine = _is(backbone, published.backbone) and _is(heads, published.heads)
    return Perceptual(f"{'LPIPS' if genuine else 'perceptual'}-{name}", network, linear.weights())


def _is(weights: Weights, published: Weights) -> bool:
    """Whether the file was checked to be the published one."""
    known, given = published.sha256, weights.sha256.lower()
    return given.startswith(known) or (len(given) >= 8 and known.startswith(given))


class Torchvision(nn.Module):
    """The convolutions of a torchvision model, with its names, and the layers to compare."""

    shift: Tensor
    scale: Tensor

    def __init__(self, layers: list[nn.Module], taps: tuple[int, ...], channels: list[int]) -> None:
        super().__init__()
        self.features = nn.Sequential(*layers)
        self.taps, self.channels = taps, channels
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W), RGB in [-1, 1], to the tapped layers' outputs."""
        h = (x - self.shift) / self.scale
        seen = []
        for index, layer in enumerate(self.features):
            h = layer(h)
            if index in self.taps:
                seen.append(h)
        return seen


def _alexnet() -> Torchvision:
    layers: list[nn.Module] = [
        *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
    ]
    return Torchvision(layers, (1, 4, 7, 9, 11), [64, 192, 384, 256, 256])


def _vgg16() -> Torchvision:
    plan: Layers = (64, 64, "M", 128, 128, "M", *[256] * 3, "M", *[512] * 3, "M", *[512] * 3)
    layers: list[nn.Module] = []
    width = 3
    for step in plan:
        if isinstance(step, int):
            layers += [nn.Conv2d(width, step, 3, padding=1), nn.ReLU()]
            width = step
        else:
            layers.append(nn.MaxPool2d(2))
    return Torchvision(layers, (3, 8, 15, 22, 29), [64, 128, 256, 512, 512])


class _Head(nn.Module):
    """A 1x1 convolution to one channel; the name's 1 leaves room for the dropout of training."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Identity(), nn.Conv2d(channels, 1, 1, bias=False))


class _Heads(nn.Module):
    """The published file's names: `lin0.model.1.weight` and so on."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        for index, width in enumerate(channels):
            self.add_module(f"lin{index}", _Head(width))

    def weights(self) -> list[Tensor]:
        """(C,) for each layer."""
        return [parameter.detach().flatten() for parameter in self.parameters()]
