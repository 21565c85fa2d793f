from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from training import layers
from training.layers import AdaIN, Block, Conv, InstanceNorm, Linear, SelfAttention


def double(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_gradcheck_adain() -> None:
    adain = AdaIN(3)
    assert torch.autograd.gradcheck(adain, (double(2, 3, 4, 4), double(2, 6)))
    assert torch.autograd.gradcheck(adain, (double(2, 3, 4, 4), double(1, 6)))


def test_gradcheck_attention() -> None:
    attention = SelfAttention(8).double()
    with torch.no_grad():
        attention.gain.fill_(0.7)
    assert torch.autograd.gradcheck(attention, (double(2, 8, 3, 3),))


def test_gradcheck_of_a_whole_convolution() -> None:
    for resample in ("same", "down", "up"):
        conv = Conv(2, 3, 3, resample=resample).double()
        x = double(1, 2, 4, 4)

        def run(x: torch.Tensor, weight: torch.Tensor, conv: Conv = conv) -> torch.Tensor:
            return torch.func.functional_call(conv, {"weight": weight}, (x,))

        assert torch.autograd.gradcheck(run, (x, conv.weight.detach().clone().requires_grad_()))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("resample", ["same", "down", "up"])
def test_a_joined_convolution_is_the_plain_pair(
    kernel: int, resample: str, channels_last: bool
) -> None:
    conv = Conv(5, 7, kernel, resample=resample).double()
    if channels_last:
        conv = conv.to(memory_format=torch.channels_last)
    torch.nn.init.normal_(conv.bias)
    x = double(2, 5, 6, 6)
    weight = conv.weight / conv.sigma()
    wide = F.interpolate(x, scale_factor=2.0) if resample == "up" else x
    plain = F.conv2d(wide, weight, conv.bias, padding=kernel // 2)
    plain = F.avg_pool2d(plain, 2) if resample == "down" else plain
    torch.testing.assert_close(conv(x), plain, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(
        torch.autograd.grad(conv(x).pow(3).sum(), (x, conv.weight)),
        torch.autograd.grad(plain.pow(3).sum(), (x, conv.weight)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "layer",
    [
        InstanceNorm(8),
        *(Conv(8, 8, kernel, resample=r) for kernel in (1, 3) for r in ("same", "down", "up")),
        SelfAttention(8),
        Block(8, 8, resample="down"),
        Block(8, 8, resample="up", norm="instance"),
    ],
    ids=lambda layer: f"{type(layer).__name__}-{getattr(layer, 'resample', '')}",
)
@pytest.mark.parametrize("batch", [1, 2])
def test_pictures_and_gradients_stay_channels_last(layer: torch.nn.Module, batch: int) -> None:
    """One plain tensor among them and every later operation of the pass walks in strides."""
    layer = copy.deepcopy(layer).to(memory_format=torch.channels_last)
    x = torch.randn(batch, 8, 16, 16).contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    (grad,) = torch.autograd.grad(y, x, torch.randn_like(y))  # .backward() reorders
    assert grad.is_contiguous(memory_format=torch.channels_last)


def test_power_iteration_finds_the_norm_and_runs_only_when_told() -> None:
    conv = Conv(6, 9, 3)
    before = copy.deepcopy(conv.state_dict())
    x = torch.randn(2, 6, 5, 5)
    first = conv(x)
    conv.train()
    assert torch.equal(conv(x), first)
    assert torch.equal(conv.eval()(x), first)
    assert all(torch.equal(v, before[k]) for k, v in conv.state_dict().items())
    for _ in range(100):
        layers.update_spectral_norm(conv)
    exact = torch.linalg.matrix_norm(conv.weight.flatten(1), 2)
    torch.testing.assert_close(conv.sigma(), exact)
    torch.testing.assert_close(
        torch.linalg.matrix_norm(conv.normalised().flatten(1), 2), torch.tensor(1.0)
    )


def test_shared_weights_are_made_once_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    block = Block(4, 8, resample="down")
    made = []
    prepare = Conv._prepare
    monkeypatch.setattr(Conv, "_prepare", lambda self: made.append(self) or prepare(self))
    x = torch.randn(1, 4, 8, 8)
    with layers.shared_weights(block):
        a, b = block(x), block(x)
        (a + b).sum().backward()  # two forwards before one backward
    assert len(made) == 3
    assert torch.equal(a, b)
    shared = [p.grad.clone() for p in block.parameters()]
    block.zero_grad()
    (block(x) + block(x)).sum().backward()
    assert len(made) == 9
    for p, grad in zip(block.parameters(), shared, strict=True):
        torch.testing.assert_close(p.grad, grad)
    with pytest.raises(ZeroDivisionError), layers.shared_weights(block):
        block(x)
        raise ZeroDivisionError
    assert all(m._normalised is None and not m._sharing for m in layers._spectral(block))


def test_norms_use_eps_1e_4_and_population_statistics() -> None:
    x = torch.randn(2, 3, 4, 4) * 3 + 1
    norm = InstanceNorm(3)
    torch.testing.assert_close(norm(x), F.instance_norm(x, eps=1e-4))
    flat = norm(torch.full((1, 3, 4, 4), 7.0))
    assert torch.equal(flat, torch.zeros_like(flat))


def test_statistics_stay_in_float32_under_bf16() -> None:
    x = (torch.randn(1, 2, 64, 64) * 0.5 + 100).bfloat16()
    ours = InstanceNorm(2)(x)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(
        ours.float(), F.instance_norm(x.float(), eps=1e-4), rtol=1e-2, atol=1e-2
    )


def test_adain_is_bias_then_weight() -> None:
    x = torch.randn(1, 2, 4, 4)
    psi = torch.tensor([[5.0, 6.0, 2.0, 3.0]])
    out = AdaIN(2)(x, psi)
    torch.testing.assert_close(out.mean((2, 3)), psi[:, :2])
    torch.testing.assert_close(out.std((2, 3), correction=0), psi[:, 2:], rtol=1e-3, atol=1e-3)


def test_the_second_adain_of_a_block_uses_its_own_statistics() -> None:
    block = Block(3, 3, norm="adaptive")
    psi = torch.cat((torch.zeros(1, 3), torch.ones(1, 3)), 1)
    seen = []
    block.conv2.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    x = torch.randn(1, 3, 8, 8) * 20 + 50
    block(x, (psi, psi))
    between = block.conv1(torch.relu(block.norm1(x, psi)))
    torch.testing.assert_close(seen[0], torch.relu(F.instance_norm(between, eps=1e-4)))
    other = torch.cat((torch.full((1, 3), 2.0), torch.ones(1, 3)), 1)
    assert not torch.equal(block(x, (psi, psi)), block(x, (psi, other)))


def test_block_biases_norms_and_skip_follow_the_table() -> None:
    plain = Block(4, 8, resample="down", first=True)
    assert plain.norm1 is plain.norm2 is None
    assert plain.conv1.bias is not None and plain.conv2.bias is not None
    normed = Block(4, 8, resample="up", norm="adaptive")
    assert normed.conv1.bias is None and normed.conv2.bias is None
    assert normed.skip is not None and normed.skip.bias is not None
    assert Block(8, 8, norm="adaptive").skip is None
    assert Block(8, 8, resample="down").skip is not None
    x = -torch.rand(1, 4, 8, 8)  # a pre-activation would leave nothing of it
    given = x.clone()
    before = Block(4, 8, resample="down")
    assert not torch.equal(plain(x), plain(torch.zeros_like(x)))
    torch.testing.assert_close(before(x) - before.skip(x), before(0 * x) - before.skip(0 * x))
    assert torch.equal(x, given)  # nothing in place on the input


def test_attention_starts_as_the_identity() -> None:
    x = torch.randn(2, 16, 4, 4)
    attention = SelfAttention(16)
    assert torch.equal(attention(x), x)
    with torch.no_grad():
        attention.gain.fill_(1)
    q, k, v = (m(x).flatten(2) for m in (attention.query, attention.key, attention.value))
    weights = torch.softmax(q.transpose(1, 2) @ k, dim=-1)  # scale 1: no division by sqrt(d)
    expected = x + (v @ weights.transpose(1, 2)).view_as(x)
    torch.testing.assert_close(attention(x), expected, rtol=1e-4, atol=1e-5)


def test_linear_stays_in_float32_under_autocast() -> None:
    linear = Linear(4, 6)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(torch.randn(2, 4).bfloat16()).dtype == torch.float32
