"""A setting of params.yaml as what the model is built of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from pipelines.errors import StopStage
from pipelines.params.training import Backbone, Setting
from training import perceptual
from training.losses import ContentLoss
from training.meta import MetaConfig
from training.networks import NetworkConfig

T = TypeVar("T")


def networks(setting: Setting) -> NetworkConfig:
    """Sizes of E, G and D."""
    return NetworkConfig(**setting.networks.model_dump())


def meta(setting: Setting) -> MetaConfig:
    """How a step is made."""
    return MetaConfig(**setting.meta.model_dump())


def pinned(setting: Setting, name: str = "NAME") -> Setting:
    """The setting with the whole sha256 of each content backbone's file, as it is here.

    So a run is named by the weights that it learns from, other nodes must have the same ones, and
    the model tells which they were. Raises StopStage where a file cannot be had.
    """
    whose = f"settings.{name}"
    content = {
        part: backbone.model_copy(
            update={"sha256": _available(perceptual.digest, part, backbone, whose)}
        )
        for part, backbone in setting.content.items()
    }
    return setting.model_copy(update={"content": content})


def content_loss(
    content: Mapping[Any, Backbone | Mapping[str, Any]], whose: str = "settings.NAME"
) -> ContentLoss:
    """Backbones by name with their weights, loaded. Raises StopStage where one cannot be had."""
    parts = []
    for name, given in content.items():
        backbone = given if isinstance(given, Backbone) else Backbone.model_validate(given)
        load = partial(perceptual.load, average_pool=backbone.average_pool)
        parts.append((_available(load, name, backbone, whose), backbone.weight))
    return ContentLoss(*parts)


def _available(
    get: Callable[[str, perceptual.Weights | None], T], name: str, of: Backbone, whose: str
) -> T:
    """What `get` makes of a backbone's weights. Raises StopStage where they cannot be had."""
    weights = perceptual.Weights(of.url, of.sha256, of.rgb) if of.url else None
    try:
        return get(name, weights)
    except perceptual.BackboneUnavailable as error:
        raise StopStage(f"{whose}: content.{error}") from None
