"""Exponential moving averages of networks: what is shown and kept of E and G."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


def average_of(module: Any, decay: float | None) -> Any:
    """A frozen copy that will follow the module; the module itself where no average is wanted."""
    return module if decay is None else copy.deepcopy(module).requires_grad_(False).eval()


def follow(average: nn.Module, module: nn.Module, decay: float | None) -> None:
    """Exponential moving average of the parameters; singular vectors are copied."""
    if decay is None:
        return
    with torch.no_grad():
        torch._foreach_lerp_(
            list(average.parameters()), list(module.parameters()), weight=1 - decay
        )
        torch._foreach_copy_(list(average.buffers()), list(module.buffers()))
