# mypy: allow-subclassing-any
"""The pieces of E, G and D: spectral norm, (adaptive) instance norm, attention, residual blocks.

Shapes: B pictures, C channels, H x W pixels, N embedding entries. Statistics and spectral norms
are always computed in float32 (or wider), whatever autocast says; docs/model.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.kernels import (
    EPS,
    as_matrix,
    attend,
    box_then_conv,
    conv_then_box,
    divide_by_norm,
    for_conv_then_box,
    standardise,
)

WARM_UP = 5
"""Power iterations at construction, so that the first step divides by a real norm."""

Resample = Literal["same", "down", "up"]


class SpectralNorm(nn.Module):
    """A layer whose weight is divided by its largest singular value.

    The power iteration runs only in `update_spectral_norm`, once per optimizer step, never in
    `forward`: training and eval compute the same function, repeatable bit for bit, and several
    forwards may share one backward.
    """

    weight: Tensor
    left_o: Tensor
    right_i: Tensor
    _normalised: Tensor | None
    _sharing: bool

    def _start(self) -> None:
        """Make the singular vectors; a subclass calls this once its weight exists."""
        self._normalised, self._sharing = None, False
        matrix_oi = as_matrix(self.weight.detach())
        left_o = F.normalize(torch.randn(matrix_oi.shape[0]), dim=0, eps=EPS)
        self.register_buffer("left_o", left_o)
        self.register_buffer("right_i", torch.zeros(matrix_oi.shape[1]))
        for _ in range(0 if self.weight.is_meta else WARM_UP):
            iterate_power([self])

    def sigma(self) -> Tensor:
        """The largest singular value, as far as the power iteration has found it."""
        return torch.dot(self.left_o, as_matrix(self.weight) @ self.right_i)

    def _prepare(self) -> Tensor:
        weight = self._arrange(divide_by_norm(self.weight, self.left_o, self.right_i))
        device = weight.device.type
        if torch.is_autocast_enabled(device):
            weight = weight.to(torch.get_autocast_dtype(device))
        return weight

    def _arrange(self, weight: Tensor) -> Tensor:
        return weight

    def normalised(self) -> Tensor:
        """The weight that `forward` uses; computed once inside `shared_weights`."""
        if not self._sharing or torch.compiler.is_compiling():  # a graph keeps no state
            return self._prepare()
        if self._normalised is None:
            self._normalised = self._prepare()
        return self._normalised


def _spectral(*modules: nn.Module) -> Iterator[SpectralNorm]:
    for module in modules:
        yield from (m for m in module.modules() if isinstance(m, SpectralNorm))


def update_spectral_norm(*modules: nn.Module) -> None:
    """One power iteration of every layer: call once per optimizer step, outside any graph."""
    iterate_power(list(_spectral(*modules)))


def iterate_power(layers: Sequence[SpectralNorm]) -> None:
    """Turn the singular vectors of layers once towards those of their present weights.

    All layers together: one by one each of these small operations costs a GPU its start.
    """
    with torch.no_grad():
        left = [layer.left_o for layer in layers]
        right = [layer.right_i for layer in layers]
        matrices = [as_matrix(layer.weight) for layer in layers]
        for turned, by, those in ((right, left, [m.T for m in matrices]), (left, right, matrices)):
            products = [matrix @ vector for matrix, vector in zip(those, by, strict=True)]
            norms = torch._foreach_norm(products)
            torch._foreach_clamp_min_(norms, EPS)
            torch._foreach_div_(products, norms)
            torch._foreach_copy_(turned, products)


@contextmanager
def shared_weights(*modules: nn.Module) -> Iterator[None]:
    """Inside, every forward of a module uses one normalised weight (and one graph of it).

    Do not change the weights, and do not backpropagate twice through them, while inside.
    """
    with ExitStack() as stack:
        for layer in _spectral(*modules):
            layer._sharing = True
            stack.callback(_forget, layer)
        yield


def _forget(layer: SpectralNorm) -> None:
    layer._sharing, layer._normalised = False, None


class Linear(SpectralNorm):
    """A spectral-normed linear layer with bias. It stays in full precision under autocast."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self._start()

    def forward(self, x_bi: Tensor) -> Tensor:
        """(B, inputs) to (B, outputs)."""
        with torch.autocast(x_bi.device.type, enabled=False):
            return F.linear(x_bi.to(self.weight.dtype), self.normalised(), self.bias)


class Conv(SpectralNorm):
    """A spectral-normed convolution, 1x1 or 3x3, that may carry the block's resampling.

    Both are linear, so they change places where that is cheaper, with the same result but for
    rounding. A 2x2 average of a 3x3 convolution is the convolution of 2x2 means, and only every
    second one is wanted: 9 products for 36. What follows a nearest doubling is the transpose of
    that. A 1x1 convolution simply goes to the smaller side: 1 product for 4.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Literal[1, 3],
        *,
        resample: Resample = "same",
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.kernel, self.resample = kernel, resample
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self._start()

    def _arrange(self, weight: Tensor) -> Tensor:
        if self.kernel == 3 and self.resample == "up":
            return for_conv_then_box(weight)
        return weight

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H', W')."""
        weight = self.normalised()
        if self.kernel == 1:
            if self.resample == "down":
                x = F.avg_pool2d(x, 2)
            x = F.conv2d(x, weight, self.bias)
            return F.interpolate(x, scale_factor=2.0) if self.resample == "up" else x
        if self.resample == "down":
            return box_then_conv(x, weight, self.bias)
        if self.resample == "up":
            return conv_then_box(x, weight, self.bias)
        return F.conv2d(x, weight, self.bias, padding=1)


class InstanceNorm(nn.Module):
    """Plain instance norm with a learned weight and bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        return standardise(x, self.weight[None], self.bias[None])


class AdaIN(nn.Module):
    """Instance norm whose [bias, weight] is a slice of psi; it owns no parameter."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor, psi_b2c: Tensor) -> Tensor:
        """(B, C, H, W) and (B or 1, 2 C) to (B, C, H, W), with this layer's own statistics."""
        bias, weight = psi_b2c.split(self.channels, dim=1)
        return standardise(x, weight, bias)


class SelfAttention(nn.Module):
    """SAGAN attention over all positions, scale 1, blended in by a gain learned from 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = Conv(channels, channels // 8, 1)
        self.key = Conv(channels, channels // 8, 1)
        self.value = Conv(channels, channels, 1)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        query, key, value = (
            layer(x).flatten(2).transpose(1, 2)[:, None]  # (B, 1 head, H W, C or C / 8)
            for layer in (self.query, self.key, self.value)
        )
        seen = attend(query, key, value)
        return torch.addcmul(x, self.gain.to(x.dtype), seen[:, 0].transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    """[norm] ReLU [nearest x2] conv3 [norm] ReLU conv3 [avgpool], plus a skip; docs/model.md.

    The skip is the input itself where nothing changes shape, else a conv1 with the same
    resampling. A conv that a norm surrounds has no bias; the skip's always has.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        resample: Resample = "same",
        norm: Literal["none", "instance", "adaptive"] = "none",
        first: bool = False,
    ) -> None:
        super().__init__()
        bias = norm == "none"
        up: Resample = "up" if resample == "up" else "same"
        down: Resample = "down" if resample == "down" else "same"
        self.first, self.adaptive = first, norm == "adaptive"
        self.norm1 = None if first else _norm(norm, inputs)
        self.conv1 = Conv(inputs, outputs, 3, resample=up, bias=bias)
        self.norm2 = _norm(norm, outputs)
        self.conv2 = Conv(outputs, outputs, 3, resample=down, bias=bias)
        plain = inputs == outputs and resample == "same"
        self.skip = None if plain else Conv(inputs, outputs, 1, resample=resample)

    def forward(self, x: Tensor, psi: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H', W'); `psi` has a part for each of its AdaINs."""
        psi1, psi2 = psi or (None, None)
        h = x if self.first else torch.relu(_apply(self.norm1, x, psi1))
        h = torch.relu_(_apply(self.norm2, self.conv1(h), psi2))
        h = self.conv2(h)
        return h + (x if self.skip is None else self.skip(x))


def _norm(kind: Literal["none", "instance", "adaptive"], channels: int) -> nn.Module | None:
    if kind == "none":
        return None
    return AdaIN(channels) if kind == "adaptive" else InstanceNorm(channels)


def _apply(norm: nn.Module | None, x: Tensor, psi: Tensor | None) -> Tensor:
    if norm is None:
        return x
    return norm(x) if psi is None else norm(x, psi)
