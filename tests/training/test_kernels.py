"""Operations whose order or gradient is written out, against their plain forms."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from training import kernels


def double(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1, 1), (5, 4, 3, 3)])
def test_gradcheck_spectral_norm(shape: tuple[int, ...]) -> None:
    weight = double(*shape)
    u = F.normalize(torch.randn(5, dtype=torch.float64), dim=0)
    v = F.normalize(kernels.as_matrix(weight.detach()).T @ u, dim=0)  # sigma well above the clamp
    assert torch.autograd.gradcheck(lambda w: kernels.divide_by_norm(w, u, v), (weight,))


def test_attention_is_pytorchs_own() -> None:
    query, key = torch.randn(2, 2, 1, 30, 4).unbind()
    value = torch.randn(2, 1, 30, 32)
    expected = F.scaled_dot_product_attention(query, key, value, scale=1.0)
    torch.testing.assert_close(kernels.attend(query, key, value), expected)
    low = [x.bfloat16() for x in (query, key, value)]
    with torch.autocast("cpu", torch.bfloat16):
        found = kernels.attend(*low)
    assert found.dtype == torch.bfloat16
    exact = F.scaled_dot_product_attention(*(x.float() for x in low), scale=1.0)
    torch.testing.assert_close(found.float(), exact, rtol=2e-2, atol=2e-2)  # bf16 has 3 digits


def test_standardising_is_instance_norm_to_the_gradients() -> None:
    x = double(2, 5, 6, 7)
    scale, shift = double(1, 5), double(1, 5)
    plain = F.instance_norm(x, weight=scale[0], bias=shift[0], eps=kernels.EPS)
    found = kernels.standardise(x, scale, shift)
    torch.testing.assert_close(found, plain)
    for ours, theirs in zip(
        torch.autograd.grad(found.pow(3).sum(), (x, scale, shift)),
        torch.autograd.grad(plain.pow(3).sum(), (x, scale, shift)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_standardised_bf16_has_float32_statistics(mean: float) -> None:
    torch.manual_seed(0)
    x = (torch.randn(1, 4, 64, 64) + mean).bfloat16().requires_grad_()
    scale, shift = torch.rand(1, 4) + 0.5, torch.rand(1, 4)
    weights = torch.randn(1, 4, 64, 64)
    exact = x.detach().double().requires_grad_()
    (kernels.standardise(exact, scale.double(), shift.double()) * weights).sum().backward()
    (kernels.standardise(x, scale, shift) * weights).sum().backward()
    assert x.grad is not None and exact.grad is not None
    # One rounding to bf16 of the gradient that comes in, and one of what goes out.
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=2e-2, atol=5e-3)


def test_mean_absolute_has_its_gradient_in_the_type_and_order_of_its_picture() -> None:
    assert torch.autograd.gradcheck(kernels.mean_absolute, (double(2, 3, 4, 5),))
    last = torch.randn(2, 3, 4, 5).bfloat16().contiguous(memory_format=torch.channels_last)
    last[0, 0] = 0
    seen = []
    last.requires_grad_().register_hook(seen.append)
    (3 * kernels.mean_absolute(last)).backward()
    (grad,) = seen
    assert grad.dtype == torch.bfloat16
    assert grad.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(grad.float(), last.detach().float().sign() / 40, rtol=1e-2, atol=0)
