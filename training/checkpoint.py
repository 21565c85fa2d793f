"""Checkpoints of a run: atomic, a few newest kept, a damaged one passed over.

A checkpoint is one file, `checkpoints/step-<n>.safetensors` below the run's folder, local or in
an object store, and holds all that step n + 1 depends on: networks, W, optimizers, averages, RNG
and the sampler's place. It appears under its name only when it is whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines import storage
from pipelines.errors import UserError
from training import tensor_file

CHECKPOINT = "checkpoint"
_NAME = re.compile(r"step-(\d{9})\.safetensors")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A whole checkpoint: the nested state, and the facts of the run that left it."""

    step: int
    state: dict[str, Any]
    facts: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run. Only one process writes; all may read."""

    def __init__(self, run: str, keep: int) -> None:
        self.folder = storage.join(run, "checkpoints")
        self.keep = keep

    def save(self, step: int, state: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Write a checkpoint, then remove what is older than the `keep` newest.

        Raises OSError where the disk does not take it; the older ones are still there.
        """
        tensors, skeleton = tensor_file.flatten(state)
        facts = {**facts, "step": step, "skeleton": skeleton}
        with storage.atomic(self._url(step)) as path:
            tensor_file.write(path, CHECKPOINT, tensors, facts)
        for old in [s for s in self.steps() if s <= step][self.keep :]:
            storage.remove(self._url(old))

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, the newest first."""
        found = [_NAME.fullmatch(name) for name in storage.names(self.folder)]
        return sorted((int(match[1]) for match in found if match), reverse=True)

    def newest(self, scratch: Path, complain: Callable[[str], None]) -> Loaded | None:
        """The newest that is whole, None before the first; `complain` is told of damaged ones.

        Raises UserError where all are damaged, OSError where one cannot be read now.
        """
        steps = self.steps()
        for step in steps:
            try:
                with storage.local_copy(self._url(step), scratch) as path:
                    tensors, facts = tensor_file.read(path, CHECKPOINT)
            except tensor_file.DamagedFile as error:
                complain(f"{error}: passed over, the checkpoint before it is taken")
                continue
            return Loaded(step, tensor_file.unflatten(tensors, facts.pop("skeleton")), facts)
        if steps:
            raise UserError(
                f"{self.folder}: every checkpoint there is damaged, the newest of step {steps[0]}; "
                "put one back, or remove that folder to begin anew"
            )
        return None

    def _url(self, step: int) -> str:
        return storage.join(self.folder, f"step-{step:09d}.safetensors")
