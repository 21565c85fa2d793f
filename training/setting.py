"""A setting of params.yaml as what the model is built of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.errors import StopStage, UserError
from pipelines.params.training import Backbone, Setting
from training import perceptual
from training.losses import ContentLoss
from training.meta import MetaConfig
from training.networks import NetworkConfig


def networks(setting: Setting) -> NetworkConfig:
    """Raises UserError for sizes that the networks cannot have."""
    try:
        return NetworkConfig(**setting.networks.model_dump())
    except ValueError as error:
        raise UserError(f"settings: networks: {error}") from None


def meta(setting: Setting) -> MetaConfig:
    """Raises UserError for what cannot be trained."""
    try:
        return MetaConfig(**setting.meta.model_dump())
    except ValueError as error:
        raise UserError(f"settings: meta: {error}") from None


def content_loss(content: Mapping[Any, Backbone | Mapping[str, Any]]) -> ContentLoss:
    """Backbones by name with their weights, loaded. Raises StopStage where one cannot be had."""
    parts = []
    for name, given in content.items():
        backbone = given if isinstance(given, Backbone) else Backbone.model_validate(given)
        weights = perceptual.Weights(backbone.url, backbone.sha256, backbone.rgb)
        try:
            loaded = perceptual.load(
                name, weights if backbone.url else None, average_pool=backbone.average_pool
            )
        except perceptual.BackboneUnavailable as error:
            raise StopStage(str(error)) from None
        parts.append((loaded, backbone.weight))
    return ContentLoss(*parts)
