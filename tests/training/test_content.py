"""A model's own content loss, wherever its files are here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_model import write_model, write_squeezenet
from torch import nn

from pipelines import storage
from pipelines.errors import StopStage, UserError
from pipelines.params.training import Backbone, Setting
from training import content, perceptual
from training.perceptual import Weights
from training.trained import Trained, load_model


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIKENESS_CACHE", str(tmp_path / "cache"))
    folder = perceptual.default_cache()
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_squeezenet(tmp_path_factory.mktemp("weights") / "squeezenet.pth")


@pytest.fixture
def model(tmp_path: Path, weights: Path) -> Trained:
    """Of a cluster that is not here."""
    backbone = {"weight": 0.5, "url": "/cluster/weights/a.pth", "sha256": storage.sha256(weights)}
    facts = {"setting": {"content": {"squeezenet": backbone, "pixels": {"weight": 1.0}}}}
    return load_model(write_model(tmp_path / "far.safetensors", facts))


def naming(path: Path, **more: Any) -> Setting:
    return Setting(content={"squeezenet": Backbone(weight=9, url=str(path), **more)})


def test_a_setting_of_params_may_name_the_file(model: Trained, weights: Path) -> None:
    other = weights.with_name("other.pth")
    other.write_bytes(weights.read_bytes() + b"\0")
    plain = Setting(content={"pixels": Backbone(weight=1)})
    for settings in (
        [naming(weights)],
        [plain, naming(weights, sha256=storage.sha256(weights)[:8])],
        [naming(other), naming(other, sha256="0" * 64), naming(weights)],
    ):
        loss = content.loss_of(model, settings)
        assert isinstance(loss, nn.Module) and loss.weights == (0.5, 1.0), "the model's own weight"


def test_a_fetched_file_is_found_by_its_sha256(model: Trained, weights: Path, cache: Path) -> None:
    name = f"squeezenet-{storage.sha256(weights)[:8]}.pth"
    (cache / name).write_bytes(weights.read_bytes())
    assert content.loss_of(model).weights == (0.5, 1.0)
    (cache / name).write_bytes(weights.read_bytes() + b"\0")
    with pytest.raises(StopStage):
        content.loss_of(model)


def test_what_is_nowhere_is_named_with_where_to_put_it(
    model: Trained, weights: Path, cache: Path
) -> None:
    other = weights.with_name("other.pth")
    other.write_bytes(b"of another network")
    with pytest.raises(StopStage) as caught:
        content.loss_of(model, [naming(other)])
    assert str(caught.value) == (
        "the model's setting: content.squeezenet: no file with its sha256 "
        f"{storage.sha256(weights)} at /cluster/weights/a.pth, where settings name one or in "
        f"{cache}; name it: settings.<name>.content.squeezenet.url"
    )


def test_a_file_that_is_where_it_was_is_taken(model: Trained, weights: Path) -> None:
    model.content["squeezenet"]["url"] = str(weights)
    assert content.loss_of(model).weights == (0.5, 1.0)
    model.content["squeezenet"]["sha256"] = ""  # nothing to know it by: it alone
    assert content.loss_of(model).weights == (0.5, 1.0)
    model.content["squeezenet"]["url"] = "/cluster/weights/a.pth"
    with pytest.raises(StopStage, match="no weights at /cluster"):
        content.loss_of(model, [naming(weights)])


def test_places_begin_with_what_needs_no_fetching(tmp_path: Path) -> None:
    sha = "ab" * 32
    fetched = tmp_path / f"vgg19-{sha[:16]}.pth"
    for path in (fetched, tmp_path / "vgg19-cdcdcdcd.pth", tmp_path / f"vggface-{sha[:16]}.pth"):
        path.touch()
    wanted = Weights("https://far/a.pth", sha, rgb=True)
    others = [
        Weights("https://near/b.pth", sha[:8]),
        Weights("https://near/c.pth", "cd" * 8),
        Weights("d.pth"),
        Weights("d.pth", sha),
    ]
    urls = ["d.pth", str(fetched), "https://far/a.pth", "https://near/b.pth"]
    found = content.places("vgg19", wanted, others, tmp_path)
    assert found == [replace(wanted, url=url) for url in urls]
    local = replace(wanted, url="/here/a.pth")
    assert content.places("vgg19", local, (), tmp_path / "none") == [local]


def test_the_published_file_is_known_by_its_own_sha256(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that leaves vgg19's url out must not have another file's place fetched."""
    asked: list[Weights] = []

    def fetch(name: str, weights: Weights, cache: Path) -> Path:
        asked.append(weights)
        raise perceptual.BackboneUnavailable("nowhere")

    monkeypatch.setattr(perceptual, "fetch", fetch)
    published = perceptual.CAFFE_VGG19
    plain = Setting(content={"vgg19": Backbone(weight=1)})
    for sha, urls in (
        (published.sha256 + "0" * 56, ["a.pth", published.url]),
        ("1" * 64, ["a.pth"]),
    ):
        asked.clear()
        with pytest.raises(StopStage, match="no file with its sha256"):
            content._here("vgg19", Backbone(weight=1, url="a.pth", sha256=sha), [plain])
        assert asked == [Weights(url, sha) for url in urls]


def test_what_no_model_of_ours_says_is_one_line(model: Trained) -> None:
    for setting, words in (
        (None, "does not say what it was trained with"),
        ({"content": []}, "does not say what it was trained with"),
        ({"content": {"pixels": {"weight": "heavy"}}}, "content: Input should be"),
        ({"content": {"pixels": "heavy"}}, "no model of ours"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            content.loss_of(replace(model, facts={"setting": setting}))
        assert "\n" not in str(caught.value)
