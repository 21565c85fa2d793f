from __future__ import annotations

import pytest
import torch
from torch import nn

from training import layers
from training.layers import AdaIN, SpectralNorm
from training.networks import Discriminator, Embedder, Generator, NetworkConfig


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts_of_the_paper() -> None:
    generator = Generator()
    assert count(Embedder()) == 14_907_265
    assert count(generator) == 38_073_925
    assert count(Discriminator()) == 19_627_394
    assert generator.projection.weight.shape == (13_056, 512)
    assert sum(generator.psi_sizes) == 13_056


def test_parameter_counts_without_attention() -> None:
    config = NetworkConfig(attention=False)
    assert count(Embedder(config)) == 14_825_024
    assert count(Generator(config)) == 37_909_443
    assert count(Discriminator(config)) == 19_545_153


def test_every_conv_and_linear_is_spectral_normed_and_w0_is_not(tiny: NetworkConfig) -> None:
    for module in (Embedder(tiny), Generator(tiny), Discriminator(tiny)):
        inside = [m for m in module.modules() if not list(m.children()) and list(m.parameters())]
        weighted = [m for m in inside if m.weight.dim() > 1]
        assert weighted
        assert all(isinstance(m, SpectralNorm) for m in weighted)
        assert not any(isinstance(m, nn.Sigmoid) for m in module.modules())
    assert type(Discriminator(tiny).w0) is nn.Parameter


@pytest.mark.parametrize(
    "config",
    [
        NetworkConfig(64, 4, 16),
        NetworkConfig(64, 4, 16, generator_levels=3, residual_blocks=2),
        NetworkConfig(128, 4, 16),
        NetworkConfig(16, 4, 16, attention=False, generator_levels=2),
    ],
)
def test_other_sizes(config: NetworkConfig) -> None:
    size = config.image_size
    x = torch.rand(2, 3, size, size) * 2 - 1
    e_hat = Embedder(config).embed(x[:, None], x[:, None])
    assert e_hat.shape == (2, config.embedding)
    fake = Generator(config)(x, e_hat)
    assert fake.shape == x.shape
    assert fake.abs().max() <= 1
    score, features = Discriminator(config)(fake, x, e_hat)
    assert score.shape == (2,)
    assert len(features) == config.levels + 1
    assert features[-1].shape[-1] == 4


def test_where_attention_sits_at_the_papers_size() -> None:
    config = NetworkConfig(256, 8, 16)
    sides = {}

    def watch(name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda m, i, o: sides.update({name: o.shape[-1]}))

    embedder, generator, discriminator = Embedder(config), Generator(config), Discriminator(config)
    watch("E", embedder.attention)
    watch("D", discriminator.attention)
    watch("G down", generator.down_attention)
    watch("G up", generator.up_attention)
    watch("G middle", generator.middle[0])
    x = torch.zeros(1, 3, 256, 256)
    with torch.no_grad():
        e_hat = embedder(x, x)
        generator(x, e_hat)
        discriminator(x, x, e_hat)
    assert sides == {"E": 32, "D": 32, "G down": 32, "G up": 64, "G middle": 16}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"image_size": 100}, "power of two"),
        ({"image_size": 16, "generator_levels": 3}, "attention needs image_size"),
        ({"generator_levels": 2}, "generator_levels >= 3"),
        ({"generator_levels": 8}, "too many"),
        ({"min_channels": 1, "max_channels": 4}, "8 channels"),
        ({"min_channels": 64, "max_channels": 32}, "min_channels <= max_channels"),
    ],
)
def test_impossible_configs_are_refused(settings: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        NetworkConfig(**settings)


def test_e_hat_does_not_depend_on_the_order_of_frames(tiny: NetworkConfig) -> None:
    embedder = Embedder(tiny).double()
    x, y = torch.randn(2, 2, 5, 3, 32, 32, dtype=torch.float64)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(
        embedder.embed(x[:, order], y[:, order]), embedder.embed(x, y), rtol=1e-12, atol=1e-12
    )


def test_e_hat_is_the_mean_and_episodes_do_not_mix(tiny: NetworkConfig) -> None:
    embedder = Embedder(tiny)
    x, y = torch.randn(2, 2, 3, 3, 32, 32)
    e_hat = embedder.embed(x, y)
    for b in range(2):
        torch.testing.assert_close(e_hat[b], embedder(x[b], y[b]).mean(0))


def test_psi_feeds_every_adain_in_order(tiny: NetworkConfig) -> None:
    generator = Generator(tiny)
    assert len(generator.psi_sizes) == 2 * (len(generator.middle) + len(generator.up)) + 1
    given: list[torch.Tensor] = []
    for module in generator.modules():
        if isinstance(module, AdaIN):
            module.register_forward_pre_hook(lambda m, inputs: given.append(inputs[1]))
    psi = torch.randn(1, sum(generator.psi_sizes))
    generator.render(torch.zeros(2, 3, 32, 32), psi)
    assert torch.equal(torch.cat(given, 1), psi)


def test_forward_is_render_of_the_projection(tiny: NetworkConfig) -> None:
    generator = Generator(tiny)
    y, e_hat = torch.randn(2, 3, 32, 32), torch.randn(2, tiny.embedding)
    assert torch.equal(generator(y, e_hat), generator.render(y, generator.projection(e_hat)))


def test_eval_repeats_bit_for_bit_and_equals_training_mode(tiny: NetworkConfig) -> None:
    generator = Generator(tiny)
    y, e_hat = torch.randn(1, 3, 32, 32), torch.randn(1, tiny.embedding)
    trained = generator(y, e_hat)
    generator.eval()
    assert torch.equal(generator(y, e_hat), trained)
    with layers.shared_weights(generator):
        assert torch.equal(generator(y, e_hat), trained)
        assert torch.equal(generator(y, e_hat), trained)


def test_the_score_is_a_projection(tiny: NetworkConfig) -> None:
    discriminator = Discriminator(tiny)
    x, y = torch.randn(2, 2, 3, 32, 32)
    rows = torch.randn(2, tiny.embedding)
    with torch.no_grad():
        discriminator.b.fill_(0.25)
        score, features = discriminator(x, y, rows)
        v = torch.relu(features[-1]).sum((2, 3))
    expected = (v * (rows + discriminator.w0)).sum(1) + 0.25
    torch.testing.assert_close(score, expected)
    high, _ = discriminator(x, y, 1e4 * rows)
    assert high.abs().max() > 10  # bounded by nothing: there is no sigmoid


@pytest.mark.parametrize("channels_last", [False, True])
def test_memory_layout_changes_nothing_but_rounding(
    tiny: NetworkConfig, channels_last: bool
) -> None:
    generator = Generator(tiny)
    y, e_hat = torch.randn(2, 3, 32, 32), torch.randn(2, tiny.embedding)
    expected = generator(y, e_hat)
    generator.to(memory_format=torch.channels_last)
    torch.testing.assert_close(generator(y, e_hat), expected, rtol=1e-4, atol=1e-5)
    layers.update_spectral_norm(generator)  # the singular vectors still fit
    for layer in layers._spectral(generator):
        matrix = layers.as_matrix(layer.weight)
        assert layer.sigma() <= torch.linalg.matrix_norm(matrix, 2) * 1.0001
        assert layer.sigma() > 0.5 * torch.linalg.matrix_norm(matrix, 2)
