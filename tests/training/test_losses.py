from __future__ import annotations

import pytest
import torch
from torch import nn

from training import losses
from training.losses import ContentLoss
from training.networks import Discriminator, NetworkConfig


def test_hinge_is_two_for_ignorance_and_zero_for_certainty() -> None:
    zero, two = torch.zeros(4), torch.full((4,), 2.0)
    assert losses.hinge(zero, zero) == 2
    assert losses.hinge(two, -two) == 0  # a sigmoid before it could never get below 1
    assert losses.hinge(-two, two) == 6


def test_adversarial_is_minus_the_score() -> None:
    assert losses.adversarial(torch.tensor([1.0, 5.0])) == -3


def test_content_sums_and_feature_matching_averages_over_layers() -> None:
    fake = [torch.zeros(2, 3), torch.zeros(5)]
    real = [torch.full((2, 3), 2.0), torch.full((5,), 4.0)]
    assert losses.content(fake, real) == 6
    assert losses.feature_matching(fake, real) == 3


def test_match_moves_e_hat_alone() -> None:
    e_hat = torch.tensor([[1.0, 2.0]], requires_grad=True)
    rows = torch.tensor([[0.0, 5.0]], requires_grad=True)
    loss = losses.match(e_hat, rows)
    loss.backward()
    assert loss == 2
    assert e_hat.grad is not None
    assert rows.grad is None


def test_means_of_bf16_are_taken_in_float32() -> None:
    a = torch.zeros(100_000, dtype=torch.bfloat16)
    loss = losses.l1(a, a + 1)
    assert loss.dtype == torch.float32
    assert loss == 1


def test_content_weights_of_both_versions() -> None:
    assert losses.CONTENT_WEIGHTS["v1"] == {"vgg19": 1e-2, "vggface": 2e-3}
    assert losses.CONTENT_WEIGHTS["v2"] == {"vgg19": 1.5e-1, "vggface": 2.5e-2}


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.graphs: list[bool] = []

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        self.graphs.append(torch.is_grad_enabled())
        return [x * self.weight]


def test_content_loss_is_weighted_frozen_and_spares_the_real_branch() -> None:
    backbones = Twice(), Twice()
    loss = ContentLoss((backbones[0], 0.5), (backbones[1], 3.0))
    assert not any(p.requires_grad for p in loss.parameters())
    fake = torch.zeros(1, 3, 2, 2, requires_grad=True)
    value = loss(fake, torch.ones(1, 3, 2, 2))
    value.backward()
    assert value == 7
    assert fake.grad is not None
    assert backbones[0].graphs == [False, True]
    assert backbones[0].weight.grad is None


def test_frozen_gives_the_flags_back_even_after_an_error(tiny: NetworkConfig) -> None:
    discriminator = Discriminator(tiny)
    discriminator.b.requires_grad_(False)
    with pytest.raises(ZeroDivisionError), losses.frozen(discriminator):
        assert not any(p.requires_grad for p in discriminator.parameters())
        raise ZeroDivisionError
    assert not discriminator.b.requires_grad
    assert all(p.requires_grad for n, p in discriminator.named_parameters() if n != "b")


def test_a_joint_backward_would_cancel_and_ours_does_not(tiny: NetworkConfig) -> None:
    """With the terms summed, what E,G gain from -D(x-hat) D's hinge takes away: exactly 0."""
    discriminator = Discriminator(tiny)
    x, y = torch.randn(2, 2, 3, 32, 32)
    rows = torch.zeros(2, tiny.embedding)
    fake = torch.randn(2, 3, 32, 32, requires_grad=True)
    score, _ = discriminator(fake, y, rows)
    joint = losses.adversarial(score) + losses.hinge(torch.zeros(2), score)
    (cancelled,) = torch.autograd.grad(joint, fake)
    assert not cancelled.any()

    with losses.frozen(discriminator):
        terms = losses.generator_losses(discriminator, ContentLoss(), fake, x, y, rows)
    (ours,) = torch.autograd.grad(terms["adversarial"], fake)
    assert ours.abs().max() > 0
    loss, *_ = losses.discriminator_loss(discriminator, fake, x, y, rows)
    assert torch.autograd.grad(loss, fake, allow_unused=True) == (None,)
