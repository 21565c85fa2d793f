"""What training leaves for adaptation, evaluation and animation: model and person files.

A *model* holds E and G (their averages, where the setting has any) and D, without W and the
optimizers. A *person* holds just what was adapted: psi' and, after fine-tuning, G without its
projection. Both carry facts that lead back to what they were made from (`training.lineage`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipelines import storage
from pipelines.errors import UserError
from training import tensor_file
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


def save_model(url: str, learner: MetaLearner, facts: Mapping[str, Any]) -> None:
    """Write the networks of a learner, atomically."""
    parts = (learner.ema_embedder, learner.ema_generator, learner.discriminator)
    states = {name: part.state_dict() for name, part in zip(PARTS, parts, strict=True)}
    tensors, skeleton = tensor_file.flatten(states)
    facts = {**facts, "networks": asdict(learner.networks), "skeleton": skeleton}
    with storage.atomic(url) as path:
        tensor_file.write(path, MODEL, tensors, facts)


def load_model(path: str | Path, device: torch.device | str = "cpu") -> Trained:
    """Read a model file. Raises UserError where it is none, is damaged or does not fit."""
    path = Path(path)
    tensors, facts = tensor_file.read(path, MODEL)
    state = tensor_file.unflatten(tensors, facts.pop("skeleton"))
    networks = NetworkConfig(**facts["networks"])
    built = Embedder(networks), Generator(networks), Discriminator(networks)
    parts: dict[str, nn.Module] = dict(zip(PARTS, built, strict=True))
    for name, module in parts.items():
        try:
            module.load_state_dict(state[name])
        except (RuntimeError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{path}: its {name} is of another version ({reason})") from error
        module.to(device).eval().requires_grad_(False)
    return Trained(*built, networks, facts, storage.sha256(path))


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
    if facts["model"]["sha256"] != model.sha256:
        raise UserError(
            f"{path} was adapted from the model with sha256 {facts['model']['sha256'][:16]}, "
            f"not from this one ({model.sha256[:16]}); name that model or adapt anew"
        )
    state = tensor_file.unflatten(tensors, facts.pop("skeleton"))
    return Person.from_state_dict(state, model.generator), facts
