"""The content loss that a trained model is fine-tuned with: that of its training."""

from __future__ import annotations

from pydantic import ValidationError

from pipelines.errors import UserError
from pipelines.params.training import Backbone
from training import setting
from training.losses import ContentLoss
from training.trained import Trained


def loss_of(model: Trained) -> ContentLoss:
    """The backbones that the model's setting names, loaded.

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
    return setting.content_loss(content, "the model's setting")
