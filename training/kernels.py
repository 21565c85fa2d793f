# mypy: allow-subclassing-any, allow-untyped-decorators
"""The operations of a step whose order or gradient is written out, for speed: docs/model.md.

Each computes what its plain form does, but for float rounding; the tests hold them against it.
A gradient of a gradient is refused. Statistics and norms are float32 or wider, whatever autocast
says.

Shapes: B pictures, C and C' channels, H x W pixels, L positions.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

EPS = 1e-4
"""Of spectral norm and instance norm alike."""


def _widened(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def as_matrix(weight: Tensor) -> Tensor:
    """(out, everything else): a view of a channels-last weight, so nothing is copied there."""
    return (weight.permute(0, 2, 3, 1) if weight.dim() == 4 else weight).flatten(1)


class DivideByNorm(torch.autograd.Function):
    """weight / (u^T weight v), with u and v constants.

    The gradient (g - <g, normalised> u v^T) / sigma is written out because autograd's own way
    there passes over the whole weight eight times, a large share of a step of batch 1.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, left_o: Tensor, right_i: Tensor) -> Tensor:
        """Normalise."""
        sigma = torch.dot(left_o, as_matrix(weight) @ right_i).clamp_min(EPS)
        normalised = weight / sigma
        ctx.save_for_backward(normalised, left_o.clone(), right_i.clone(), sigma)
        return normalised

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """One dot product and one rank-one update."""
        normalised, left_o, right_i, sigma = ctx.saved_tensors
        shape = normalised.shape
        grad_oi, normalised_oi = as_matrix(grads[0]), as_matrix(normalised)
        along = torch.dot(grad_oi.flatten(), normalised_oi.flatten()) / sigma
        result = torch.addr(grad_oi / sigma, left_o, right_i * -along)
        if len(shape) == 4:
            result = result.view(shape[0], *shape[2:], shape[1]).permute(0, 3, 1, 2)
        return result, None, None


def divide_by_norm(weight: Tensor, left_o: Tensor, right_i: Tensor) -> Tensor:
    """The weight over its spectral norm, differentiable once."""
    with torch.autocast(weight.device.type, enabled=False):
        normalised: Tensor = DivideByNorm.apply(weight, left_o, right_i)
        return normalised


def box(x: Tensor, padding: int) -> Tensor:
    """The mean of every 2x2 pixels, at every place: (B, C, H, W) to (B, C, H - 1, W - 1), or, with
    a border of zeros, to (B, C, H + 1, W + 1)."""
    return F.avg_pool2d(x, 2, stride=1, padding=padding)


class BoxThenConv(torch.autograd.Function):
    """Every second place of a convolution of `box(x, 1)`.

    The means are made a second time for the gradient rather than kept, or an embedder would hold
    every picture twice; and the gradient of `box` is itself, but for the padding, which PyTorch's
    gradient of an average pool does not know: it scatters.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(B, C, H, W), (C', C, 3, 3), (C',) to (B, C', H / 2, W / 2)."""
        ctx.save_for_backward(x, weight)
        return F.conv2d(box(x, 1), weight, bias, stride=2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Of what is asked for."""
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        grad_means, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
            grads[0],
            box(x, 1),
            weight,
            [len(weight)],  # how many biases
            *([2, 2], [0, 0], [1, 1]),  # stride, padding, dilation
            *(False, [0, 0], 1),  # neither transposed nor in groups
            list(wanted),
        )
        return box(grad_means, 0) if wanted[0] else None, grad_weight, grad_bias


def box_then_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 3x3 convolution and the 2x2 average of it: (B, C, H, W) to (B, C', H / 2, W / 2)."""
    smaller: Tensor = BoxThenConv.apply(x.to(weight.dtype), weight, bias)
    return smaller


class Box(torch.autograd.Function):
    """`box` without padding, and the gradient of it: `box` with."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H - 1, W - 1)."""
        return box(x, 0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """A pixel was seen by the 2x2 places around it."""
        return box(grads[0], 1)


def conv_then_box(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Nearest doubling and a 3x3 convolution: (B, C, H, W) to (B, C', 2 H, 2 W).

    The weight is that of the transposed convolution, `for_conv_then_box`.
    """
    larger: Tensor = Box.apply(F.conv_transpose2d(x, weight, bias, stride=2))
    return larger


def for_conv_then_box(weight: Tensor) -> Tensor:
    """(C', C, 3, 3) to (C, C', 3, 3), times 4: each pixel of a doubling is a sum, not a mean."""
    return (4 * weight).flip(2, 3).transpose(0, 1)


class Standardise(torch.autograd.Function):
    """(x - mean) / deviation * scale + shift, with the statistics of each picture and channel.

    The gradient is written out, as every framework's norm layers have it: autograd's own goes
    over the picture twice as often and keeps it in float32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """(B, C, H, W), (B or 1, C) twice to (B, C, H, W)."""
        wide = _widened(x)
        mean = wide.mean((2, 3), keepdim=True)
        centred = wide - mean
        variance = centred.square().mean((2, 3), keepdim=True)
        per_deviation = (variance + EPS).rsqrt()
        ctx.save_for_backward(x, mean, per_deviation, scale)
        gain = per_deviation * scale[:, :, None, None]
        return torch.addcmul(shift[:, :, None, None], centred, gain).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """With x' = (x - mean) / deviation: the sums of g x' and of g, and what is left of g."""
        x, mean, per_deviation, scale = ctx.saved_tensors
        grad, centred = _widened(grads[0]), _widened(x) - mean
        total = grad.sum((2, 3), keepdim=True)
        along = (grad * centred).sum((2, 3), keepdim=True) * per_deviation
        gain, pixels = per_deviation * scale[:, :, None, None], x.shape[2] * x.shape[3]
        grad_x = torch.addcmul(gain * total / -pixels, grad, gain)
        grad_x.addcmul_(centred, gain * per_deviation * along / -pixels)
        return (
            grad_x.to(x.dtype),
            along.flatten(1).sum_to_size(scale.shape),
            total.flatten(1).sum_to_size(scale.shape),
        )


def standardise(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Zero mean and unit deviation per picture and channel, then `scale` and `shift`.

    `x` is (B, C, H, W), `scale` and `shift` (B or 1, C). Statistics and coefficients are float32
    or wider; the picture is touched by one multiply-add.
    """
    with torch.autocast(x.device.type, enabled=False):
        standardised: Tensor = Standardise.apply(x, scale, shift)
        return standardised


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(query key^T) value, for (B, 1, L, C / 8) twice and (B, 1, L, C) to (B, 1, L, C).

    Scores and softmax are float32 or wider. A CPU has no fused kernel for a value wider than the
    key, and what PyTorch falls back to does the value's large product in float32 too, and more.
    """
    if value.is_cuda:
        return F.scaled_dot_product_attention(query, key, value, scale=1.0)
    with torch.autocast(query.device.type, enabled=False):
        scores = _widened(query) @ _widened(key).transpose(-1, -2)
        return torch.softmax(scores, -1).to(value.dtype) @ value


class MeanAbsolute(torch.autograd.Function):
    """mean |x|, summed in float32 at least.

    Its gradient is written out because autograd's own is born in plain memory order and float32,
    and the whole backward pass of a channels-last bfloat16 network inherits both from it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Any shape to a scalar."""
        ctx.save_for_backward(x)
        return x.abs().mean(dtype=torch.promote_types(x.dtype, torch.float32))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """The sign of x over how many there are, in the type and memory order of x."""
        (x,) = ctx.saved_tensors
        return x.sign() * (grads[0] / x.numel())


def mean_absolute(x: Tensor) -> Tensor:
    """mean |x|, a scalar."""
    mean: Tensor = MeanAbsolute.apply(x)
    return mean
