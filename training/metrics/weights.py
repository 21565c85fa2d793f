"""Published weights into networks that carry the same names."""

from __future__ import annotations

from torch import nn

from training.perceptual import BackboneUnavailable, Weights, default_cache, fetch, read


def fill(network: nn.Module, name: str, weights: Weights) -> None:
    """Load every parameter and buffer by its name; what else the file holds is ignored.

    Raises BackboneUnavailable where the file cannot be had, is another one or does not fit.
    """
    path = fetch(name, weights, default_cache())
    state = read(name, path)
    wanted = {k: v for k, v in network.state_dict().items() if not k.endswith("_tracked")}
    for key, tensor in wanted.items():
        given = state.get(key)
        if given is None or given.shape != tensor.shape:
            raise BackboneUnavailable(f"{name}: {path} does not fit: no {key} in it of its shape")
    network.load_state_dict({key: state[key] for key in wanted}, strict=False)
