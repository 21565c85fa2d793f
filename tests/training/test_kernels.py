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


def test_attention_in_bf16_has_float32_scores() -> None:
    torch.manual_seed(0)
    query, key = (8 * torch.randn(2, 2, 1, 60, 8)).bfloat16().unbind()  # in bf16 off by 1 and more
    value = torch.randn(2, 1, 60, 32).bfloat16().requires_grad_()
    weights = torch.randn(2, 1, 60, 32)
    exact = value.detach().double().requires_grad_()
    expected = F.scaled_dot_product_attention(query.double(), key.double(), exact, scale=1.0)
    (expected * weights).sum().backward()
    with torch.autocast("cpu", torch.bfloat16):
        found = kernels.attend(query, key, value)
    (found * weights).sum().backward()
    assert found.dtype == torch.bfloat16 and value.grad is not None and exact.grad is not None
    torch.testing.assert_close(found.double(), expected, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(value.grad.double(), exact.grad, rtol=2e-2, atol=2e-2)


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


def test_a_gradient_of_a_gradient_is_refused() -> None:
    weight, u, v = double(5, 4), torch.rand(5).double(), torch.rand(4).double()
    for made in (
        kernels.divide_by_norm(weight, u, v),
        kernels.standardise(weight[None, :, :, None], double(1, 5), double(1, 5)),
        kernels.mean_absolute(weight),
    ):
        (grad,) = torch.autograd.grad(made.pow(3).sum(), weight, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            grad.sum().backward()


@pytest.mark.parametrize("channels_last", [False, True])
def test_statistics_of_large_pictures_are_exact(channels_last: bool) -> None:
    x = torch.randn(1, 16, 256, 256) + 3
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    found = kernels.standardise(x, torch.ones(1, 16), torch.zeros(1, 16))
    exact = kernels.standardise(x.double(), torch.ones(1, 16), torch.zeros(1, 16))
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=2e-6)


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
