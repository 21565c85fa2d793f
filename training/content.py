"""The content loss that a trained model is fine-tuned with: that of its training.

The model's facts name each backbone with the whole sha256 of its file, and where that was in
training. Elsewhere it may be in another place, which nobody can write into a model: so the very
file is looked for where the settings of this params.yaml name one, and among fetched weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from pydantic import ValidationError

from pipelines.errors import StopStage, UserError
from pipelines.params import Params
from pipelines.params.training import Backbone, Setting
from training import perceptual, setting
from training.losses import ContentLoss
from training.perceptual import Weights
from training.trained import Trained


def loss_of(model: Trained, settings: Iterable[Setting] = ()) -> ContentLoss:
    """The backbones that the model's setting names, loaded; `settings` may name their files.

    Raises UserError where it names none that there are, StopStage where one cannot be had.
    """
    try:
        content = {name: Backbone.model_validate(given) for name, given in model.content.items()}
    except ValidationError as error:
        raise UserError(
            f"the model's setting: content: {error.errors()[0]['msg']}: it is no model of ours"
        ) from None
    if not content:
        raise UserError("this model does not say what it was trained with: use --variant ff")
    known = tuple(settings)
    here = {name: _here(name, backbone, known) for name, backbone in content.items()}
    loss = setting.content_loss(here, "the model's setting")
    loss.to(memory_format=torch.channels_last)
    return loss


def settings_of(params: Params) -> list[Setting]:
    """All settings, the chosen one first."""
    names = sorted(params.settings, key=lambda name: name != params.setting)
    return [params.settings[name] for name in names]


def places(name: str, wanted: Weights, others: Iterable[Weights], cache: Path) -> list[Weights]:
    """Where a file of that sha256 may be: where it is said to be, where others are, in the cache.

    What needs no fetching comes first. Others that are known to be another file are left out.
    """
    same = [other.url for other in others if wanted.sha256.startswith(other.sha256)]
    fetched = sorted(map(str, cache.glob(f"{name}-{wanted.sha256[:8]}*")))
    urls = dict.fromkeys([wanted.url, *same, *fetched])
    return [replace(wanted, url=url) for url in sorted(urls, key=lambda url: "://" in url)]


def _here(name: str, backbone: Backbone, settings: Iterable[Setting]) -> Backbone:
    """The backbone with the place of its file on this machine. Raises StopStage."""
    wanted = _weights(name, backbone)
    if wanted is None or not backbone.sha256:  # no file, or none that could be told from others
        return backbone
    parts = (item for each in settings for item in each.content.items())
    others = (_weights(name, other) for part, other in parts if part == name)
    cache = perceptual.default_cache()
    for weights in places(name, wanted, filter(None, others), cache):
        try:
            path = perceptual.fetch(name, weights, cache)
        except (perceptual.BackboneUnavailable, OSError):  # a folder may be somebody else's
            continue
        return backbone.model_copy(update={"url": str(path)})
    raise StopStage(
        f"the model's setting: content.{name}: no file with its sha256 {backbone.sha256} at "
        f"{wanted.url}, where settings name one or in {cache}; name it: "
        f"settings.<name>.content.{name}.url"
    )


def _weights(name: str, backbone: Backbone) -> Weights | None:
    if backbone.url:
        return Weights(backbone.url, backbone.sha256, backbone.rgb)
    published = perceptual.PUBLISHED.get(name)
    return published and replace(published, sha256=backbone.sha256 or published.sha256)
