"""Published weights into networks that carry the same names."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.perceptual import BackboneUnavailable, Weights, default_cache, fetch


def fill(network: nn.Module, name: str, weights: Weights) -> None:
    """Load every parameter and buffer by its name; what else the file holds is ignored.

    Raises BackboneUnavailable where the file cannot be had, is another one or does not fit.
    """
    path = fetch(name, weights, default_cache())
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BackboneUnavailable(f"{name}: {path} is no weights file ({reason})") from error
    wanted = {k: v for k, v in network.state_dict().items() if not k.endswith("_tracked")}
    for key, tensor in wanted.items():
        given = state.get(key) if isinstance(state, dict) else None
        if not isinstance(given, Tensor) or given.shape != tensor.shape:
            raise BackboneUnavailable(f"{name}: {path} does not fit: no {key} in it of its shape")
    network.load_state_dict({key: state[key] for key in wanted}, strict=False)
