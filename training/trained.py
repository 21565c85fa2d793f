"""What training leaves for adaptation, evaluation and animation: model and person files.

A *model* holds E and G (their averages, where the setting has any) and D, without W and the
optimizers. A *person* holds just what was adapted: psi' and, after fine-tuning, G without its
projection. Both carry facts that lead back to what they were made from (`pipelines.lineage`).
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipelines import storage
from pipelines.errors import UserError
from pipelines.params import Params
from training import tensor_file
from training.device import keep_freed
from training.finetune import Person
from training.meta import MetaLearner
from training.networks import Discriminator, Embedder, Generator, NetworkConfig

MODEL, PERSON = "model", "person"
PARTS = ("embedder", "generator", "discriminator")


@dataclass(frozen=True, slots=True)
class Trained:
    """The three networks in eval mode, and where they come from."""

    embedder: Embedder
    generator: Generator
    discriminator: Discriminator
    networks: NetworkConfig
    facts: dict[str, Any]
    sha256: str
    """Of the file."""

    @property
    def size(self) -> int:
        """S, pixels."""
        return self.networks.image_size

    @property
    def setting(self) -> dict[str, Any]:
        """What it was trained with; empty where its facts do not say."""
        return _section(self.facts, "setting")

    @property
    def setting_name(self) -> str:
        """Of that; empty where its facts do not say."""
        return str(self.facts.get("setting_name") or "")

    @property
    def content(self) -> dict[str, Any]:
        """The backbones of its content loss by name; empty where its facts name none."""
        return _section(self.setting, "content")

    @property
    def tunable(self) -> bool:
        """Whether it was trained to be fine-tuned, not to be used as it is."""
        return bool(_section(self.setting, "meta").get("variant", "ft") == "ft")


def _section(facts: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = facts.get(name)
    return found if isinstance(found, dict) else {}


def save_model(url: str, learner: MetaLearner, facts: Mapping[str, Any]) -> None:
    """Write the networks of a learner, atomically."""
    parts = (learner.ema_embedder, learner.ema_generator, learner.discriminator)
    states = {name: part.state_dict() for name, part in zip(PARTS, parts, strict=True)}
    tensors, skeleton = tensor_file.flatten(states)
    facts = {**facts, "networks": asdict(learner.networks), "skeleton": skeleton}
    with storage.atomic(url) as path:
        tensor_file.write(path, MODEL, tensors, facts)


def default_model(params: Params) -> str:
    """URL of the model that the setting's training leaves."""
    return storage.join(params.paths.models, f"{params.setting}.safetensors")


def device_named(name: str) -> torch.device:
    """Where a command computes, prepared for that. Raises UserError where there is no such one."""
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UserError(f"device {name}: give cpu, cuda or cuda:N")
    try:
        device = torch.device(name)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise UserError(f"device {name}: torch sees no GPU here; use cpu")
        torch.empty(1, device=device).cpu()  # a number that is too high, a backend not built in
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"device {name}: {str(error).splitlines()[0]}") from None
    if device.type == "cpu":
        keep_freed()
    return device


def find_model(params: Params, url: str | None, device: torch.device) -> Trained:
    """The model at a URL, or that of the setting. Raises UserError."""
    url = url or default_model(params)
    if storage.is_local(url) and storage.local_path(url).is_dir():
        raise UserError(f"{url} is a folder; name a model in it")
    if not storage.exists(url):
        raise UserError(
            f"{url}: no such model; run training.meta_train first, or name one: --model"
        )
    with (
        tempfile.TemporaryDirectory(prefix="likeness-") as scratch,
        storage.local_copy(url, Path(scratch)) as path,
    ):
        return load_model(path, device)


def load_model(path: str | Path, device: torch.device | str = "cpu") -> Trained:
    """Read a model file. Raises UserError where it is none, is damaged or does not fit."""
    path = Path(path)
    tensors, facts = tensor_file.read(path, MODEL)
    state = tensor_file.unflatten(tensors, facts.pop("skeleton", None))
    try:
        networks = NetworkConfig(**facts["networks"])
        with torch.device("meta"):  # what the file says of their size costs no memory yet
            planned: Sequence[nn.Module] = _networks(networks)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: it names no networks that there are ({error})") from error
    for name, module in zip(PARTS, planned, strict=True):
        expected, found = module.state_dict(), state.get(name) if isinstance(state, dict) else None
        found = found if isinstance(found, dict) else {}
        if odd := sorted(map(str, expected.keys() ^ found.keys())):
            raise UserError(f"{path}: its {name} is of another version ({odd[0]})")
        for key, tensor in expected.items():
            if not isinstance(found[key], torch.Tensor) or found[key].shape != tensor.shape:
                raise UserError(f"{path}: its {name} is of another version ({key})")
    built = _networks(networks)
    parts: Sequence[nn.Module] = built
    for name, module in zip(PARTS, parts, strict=True):
        module.load_state_dict(state[name])
        module.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
    return Trained(*built, networks, facts, storage.sha256(path))


def _networks(config: NetworkConfig) -> tuple[Embedder, Generator, Discriminator]:
    return Embedder(config), Generator(config), Discriminator(config)


def save_person(url: str, person: Person, model: Trained, facts: Mapping[str, Any]) -> None:
    """Write an adapted person; `model` is what it was adapted from."""
    tensors, skeleton = tensor_file.flatten(person.state_dict())
    own = {**facts, "model": {"sha256": model.sha256, "facts": model.facts}, "skeleton": skeleton}
    with storage.atomic(url) as path:
        tensor_file.write(path, PERSON, tensors, own)


def load_person(path: str | Path, model: Trained) -> tuple[Person, dict[str, Any]]:
    """Read a person adapted from this very model, and its facts. Raises UserError otherwise."""
    path = Path(path)
    tensors, facts = tensor_file.read(path, PERSON)
    try:
        parent = str(facts["model"]["sha256"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: it does not say from which model it was adapted") from error
    if parent != model.sha256:
        raise UserError(
            f"{path} was adapted from the model with sha256 {parent[:16]}, "
            f"not from this one ({model.sha256[:16]}); name that model (a run keeps its own, "
            "runs/<run>/model.safetensors in the work folder) or adapt anew"
        )
    state = tensor_file.unflatten(tensors, facts.pop("skeleton", None))
    try:
        return Person.from_state_dict(state, model.generator), facts
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: it does not fit its model ({reason})") from error
