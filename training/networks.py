# mypy: allow-subclassing-any
"""The three networks of arXiv 1905.08233, exactly as in docs/model.md.

Shapes: B pictures of S x S, K source frames, N = the widest channel count = the size of e-hat
and of a row of W, P = entries of psi, L = levels of the discriminator.

At the paper's 256 pixels E and D halve six times to 4x4, and G four times to 16x16. At other
sizes E and D still halve down to 4x4 (so N channels need a size of at least 64), and G keeps
`generator_levels`. Attention keeps its place in the picture: where a side is S/8 on the way
down (32 at 256) and S/4 on G's way up (64 at 256).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from training.layers import AdaIN, Block, Conv, Linear, SelfAttention

COARSEST = 4
"""Side at which E and D sum over space."""

LARGEST, MOST_BLOCKS = 8192, 64
"""Of a side, of channels, and of blocks: no network is larger, but a stranger's file may say so."""

ROW_DEVIATION = 0.05
"""Of w0 and of W's rows at the start."""


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Size of all three networks; the defaults are the paper's."""

    image_size: int = 256
    min_channels: int = 64
    max_channels: int = 512
    attention: bool = True
    generator_levels: int = 4
    """How often G halves and doubles."""
    residual_blocks: int = 4
    """AdaIN blocks at G's coarsest level."""

    def __post_init__(self) -> None:
        """Refuse sizes that the networks cannot have."""
        if max(self.image_size, self.max_channels, self.generator_levels) > LARGEST:
            raise ValueError(f"image_size, channels and levels must be {LARGEST} or less")
        if not 0 <= self.residual_blocks <= MOST_BLOCKS:
            raise ValueError(f"residual_blocks must be within 0..{MOST_BLOCKS}")
        size, coarsest = self.image_size, self.image_size >> self.generator_levels
        if size < 8 or size & (size - 1):
            raise ValueError(f"image_size is {size}; it must be a power of two, 8 or more")
        if self.generator_levels < 1 or coarsest < 2:
            raise ValueError(f"generator_levels is {self.generator_levels}; too many for {size}")
        if self.min_channels < 1 or self.max_channels < self.min_channels:
            raise ValueError("channels must be 1 <= min_channels <= max_channels")
        if self.attention:
            if size < 32 or self.generator_levels < 3:
                raise ValueError("attention needs image_size >= 32 and generator_levels >= 3")
            if self.channels(3) < 8:
                raise ValueError("attention needs 8 channels where it sits; raise max_channels")

    def channels(self, level: int) -> int:
        """Channels after `level` halvings: doubled from the least at level 1 up to the most."""
        return min(self.max_channels, self.min_channels << (level - 1))

    @property
    def levels(self) -> int:
        """Halvings from the picture to 4x4."""
        return (self.image_size // COARSEST).bit_length() - 1

    @property
    def embedding(self) -> int:
        """N: the length of e-hat, of w0 and of each row of W."""
        return self.channels(self.levels)


def _down_path(config: NetworkConfig) -> list[Block]:
    """The down blocks of E and of D: picture and landmark picture together to 4x4."""
    widths = [6, *(config.channels(level + 1) for level in range(config.levels))]
    return [
        Block(inputs, outputs, resample="down", first=i == 0)
        for i, (inputs, outputs) in enumerate(pairwise(widths))
    ]


def _attention(config: NetworkConfig) -> nn.Module:
    return SelfAttention(config.channels(3)) if config.attention else nn.Identity()


def _sum_over_space(x: Tensor) -> Tensor:
    """ReLU, then the sum, in float32 or wider: (B, N, 4, 4) to (B, N)."""
    x = torch.relu(x)
    return x.sum((2, 3), dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)


class Embedder(nn.Module):
    """E(x, y): a picture and its landmark picture to an embedding."""

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config or NetworkConfig()
        self.blocks = nn.ModuleList(_down_path(self.config))
        self.attention = _attention(self.config)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(B, 3, S, S) twice to (B, N), one embedding for each picture."""
        h = torch.cat((x, y), dim=1)
        for level, block in enumerate(self.blocks, start=1):
            h = block(h)
            if level == 3:
                h = self.attention(h)
        return _sum_over_space(h)

    def embed(self, x_bk: Tensor, y_bk: Tensor) -> Tensor:
        """e-hat, the mean over K source frames: (B, K, 3, S, S) twice to (B, N), in one pass."""
        batch = x_bk.shape[0]
        return self(x_bk.flatten(0, 1), y_bk.flatten(0, 1)).unflatten(0, (batch, -1)).mean(1)


class Generator(nn.Module):
    """G(y, e-hat): a landmark picture to a picture of the person whose e-hat is given.

    `projection` is the paper's P: it makes psi, the [bias, weight] of every AdaIN, in the order
    residual blocks, up blocks, last norm. Its bias starts such that each AdaIN weight is near 1.
    """

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or NetworkConfig()
        down = [3, *(config.channels(level + 1) for level in range(config.generator_levels))]
        up = [down[-1], *reversed(down[1:])]
        self.down = nn.ModuleList(
            Block(inputs, outputs, resample="down", norm="instance", first=i == 0)
            for i, (inputs, outputs) in enumerate(pairwise(down))
        )
        self.down_attention = _attention(config)
        self.middle = nn.ModuleList(
            Block(down[-1], down[-1], norm="adaptive") for _ in range(config.residual_blocks)
        )
        self.up = nn.ModuleList(
            Block(inputs, outputs, resample="up", norm="adaptive")
            for inputs, outputs in pairwise(up)
        )
        self.up_attention = _attention(config)
        self.norm = AdaIN(up[-1])
        self.conv = Conv(up[-1], 3, 3)
        self.psi_sizes = [2 * m.channels for m in self.modules() if isinstance(m, AdaIN)]
        self.projection = Linear(config.embedding, sum(self.psi_sizes))
        with torch.no_grad():
            for bias_and_weight in self.projection.bias.split(self.psi_sizes):
                bias_and_weight[len(bias_and_weight) // 2 :] = 1

    def forward(self, y: Tensor, e_hat: Tensor) -> Tensor:
        """(B, 3, S, S) and (B, N) to (B, 3, S, S) in [-1, 1]."""
        return self.render(y, self.projection(e_hat))

    def render(self, y: Tensor, psi: Tensor) -> Tensor:
        """G with psi given, (B or 1, P): what few-shot adaptation stores and tunes."""
        parts = iter(psi.split(self.psi_sizes, dim=1))
        h = y
        for level, block in enumerate(self.down, start=1):
            h = block(h)
            if level == 3:
                h = self.down_attention(h)
        for block in self.middle:
            h = block(h, (next(parts), next(parts)))
        for level, block in zip(range(len(self.up) - 1, -1, -1), self.up, strict=True):
            h = block(h, (next(parts), next(parts)))
            if level == 2:
                h = self.up_attention(h)
        return torch.tanh(self.conv(torch.relu_(self.norm(h, next(parts)))).float())


class Discriminator(nn.Module):
    """D(x, y, i): how real, and how much like video i, a picture is; a bare score, no sigmoid.

    r = V^T (W_i + w0) + b, with V the summed features. The table W is the caller's: its rows are
    an argument. W and w0 are plain, since a norm on them would break W_i = e-hat (docs/model.md).
    """

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config or NetworkConfig()
        n = self.config.embedding
        self.blocks = nn.ModuleList([*_down_path(self.config), Block(n, n)])
        self.attention = _attention(self.config)
        self.w0 = nn.Parameter(torch.randn(n) * ROW_DEVIATION)
        self.b = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, y: Tensor, rows: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, S, S) twice and W's rows (B or 1, N) to scores (B,) and every block's output.

        The blocks' outputs, finest first, are what feature matching compares.
        """
        h = torch.cat((x, y), dim=1)
        features = []
        for level, block in enumerate(self.blocks, start=1):
            h = block(h)
            features.append(h)
            if level == 3:
                h = self.attention(h)
        return (_sum_over_space(h) * (rows + self.w0)).sum(1) + self.b, features
