from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines import storage
from pipelines.errors import StopStage
from pipelines.params import Params
from pipelines.params.training import Adapt, Backbone, Evaluate, Meta, Networks, Setting
from training import perceptual
from training import setting as settings
from training.finetune import AdaptConfig
from training.meta import MetaConfig
from training.networks import NetworkConfig
from training.perceptual import NAMES

PIXELS = {"pixels": Backbone(weight=100.0)}


def test_params_have_the_defaults_of_what_they_configure() -> None:
    assert NetworkConfig(**Networks().model_dump()) == NetworkConfig()
    assert MetaConfig(**Meta().model_dump()) == MetaConfig()
    mine, theirs = Adapt().model_dump(), asdict(AdaptConfig())
    assert mine == {name: theirs[name] for name in mine}


def test_params_and_perceptual_name_weights_alike():
    given = Evaluate.model_validate(
        {"lpips": {"alex": {"url": "a.pth", "heads": {"url": "b.pth"}}}}
    )
    alex = given.lpips["alex"]
    assert alex and set(asdict(perceptual.Weights(""))) >= set(alex.model_dump()) - {"heads"}
    with pytest.raises(ValueError, match="name a url"):
        Evaluate.model_validate({"features": {"squeezenet": None}})


def test_every_backbone_can_be_named() -> None:
    for name in NAMES:
        assert Setting(content={name: Backbone(weight=1.0)}).content


def test_a_setting_becomes_a_loss_of_all_its_parts() -> None:
    content = PIXELS | {"random": Backbone(weight=0.5)}
    loss = settings.content_loss(content)
    assert loss.weights == (100.0, 0.5)
    a, b = torch.rand(2, 1, 3, 32, 32) * 2 - 1
    dumped = {name: part.model_dump(mode="json") for name, part in content.items()}
    assert torch.equal(loss(a, b), settings.content_loss(dumped)(a, b))


SIZES = {
    "image_size": (7, 8, 16, 32, 48, 64, 256, 2048, 8192, 16384),
    "min_channels": (0, 1, 2, 4, 16, 64, 8192, 8193),
    "max_channels": (0, 4, 7, 8, 64, 512, 8192, 8193),
    "attention": (False, True),
    "generator_levels": (0, 1, 2, 3, 4, 6, 12, 13),
    "residual_blocks": (-1, 0, 64, 65),
}


def test_params_refuse_the_networks_that_cannot_be() -> None:
    """The rules stand in params as well: whoever rebuilds a dataset has no torch."""

    def refuses(config: Callable[..., object], sizes: dict[str, Any]) -> bool:
        try:
            config(**sizes)
        except ValueError:
            return True
        return False

    for values in product(*SIZES.values()):
        sizes = dict(zip(SIZES, values, strict=True))
        assert refuses(Networks, sizes) == refuses(NetworkConfig, sizes), sizes


def test_a_pinned_setting_names_the_weights_that_are_there(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save({}, file)
    vgg19 = Backbone(weight=0.15, url=str(file), average_pool=True)
    pinned = settings.pinned(Setting(content=PIXELS | {"vgg19": vgg19}))
    assert pinned.content["vgg19"] == vgg19.model_copy(update={"sha256": storage.sha256(file)})
    assert pinned.content["pixels"] == PIXELS["pixels"]
    assert settings.pinned(pinned) == pinned
    torch.save({"of": "others"}, file)
    with pytest.raises(StopStage, match="get the file anew or correct the params"):
        settings.content_loss(pinned.content)


def test_missing_weights_stop_with_the_remedy() -> None:
    with pytest.raises(StopStage, match=r"^settings.big: content.vggface: no weights named"):
        settings.content_loss({"vggface": Backbone(weight=1.0)}, "settings.big")
    gone = Setting(content={"squeezenet": Backbone(weight=1.0, url="gone.npz")})
    with pytest.raises(StopStage, match=r"^settings.big: content.squeezenet: no weights at gone"):
        settings.pinned(gone, "big")


def test_a_setting_may_have_its_own_way_to_adapt() -> None:
    content = {"pixels": {"weight": 1.0}}
    made = {"content": content, "adapt": {"iterations": 7}}
    params = Params.model_validate(
        {
            "name": "x",
            "catalog": {"metadata": ".", "sources": [{"name": "a", "reader": "mp4"}]},
            "card": {"title": "t", "licence": "other", "description": "d"},
            "adapt": {"iterations": 9, "patience": 4},
            "setting": "own",
            "settings": {"own": made, "plain": {"content": content}},
        },
        strict=False,
    )
    own = params.adapting("own")
    assert (own.iterations, own.patience) == (7, 4), "the rest stands"
    assert params.adapting("plain").iterations == params.adapting("of elsewhere").iterations == 9
