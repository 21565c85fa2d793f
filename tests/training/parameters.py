"""Copies of networks' parameters and buffers, and whether two are the same."""

from __future__ import annotations

import torch
from torch import nn


def snapshot(*modules: nn.Module) -> list[torch.Tensor]:
    return [value.clone() for m in modules for value in m.state_dict().values()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
