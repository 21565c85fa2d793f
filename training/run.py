"""A training run as plain values, the same for the driver and for all workers.

The run's name holds a digest of what decides the result, so that the same command goes on with
the same run, in whatever DVC experiment, and a changed setting, dataset or algorithm begins
another.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from pipelines import storage
from pipelines.params import Params
from pipelines.params.training import Setting
from pipelines.version import code_version, source_digest
from pipelines.work_folder import shard_cache
from training.addresses import without_secrets

DECIDING = (
    *("addresses", "batches", "device", "ema", "episodes", "index", "jpeg"),
    *("kernels", "layers", "losses", "meta", "networks", "parallel"),
    *("perceptual", "pixels", "rasterize", "sampler", "setting", "stream"),
    *("table", "trainer"),
)
"""Modules that decide what is learned from a setting and a dataset."""

SPLIT = "train"


@dataclass(frozen=True, slots=True)
class Run:
    """What every worker is told; picklable, without a path of the driver alone."""

    name: str
    folder: str
    """URL of the run's folder, seen by all nodes: checkpoints and the finished model."""
    index: str
    shards: str
    cache: str
    """Local folder for shards of an object store."""
    setting: Setting
    facts: dict[str, Any]
    checkpoint_every: int
    keep: int
    grid_every: int
    loader_workers: int

    @property
    def index_sha256(self) -> str:
        """Digest of the dataset."""
        sha256: str = self.facts["dataset"]["index_sha256"]
        return sha256

    @property
    def model(self) -> str:
        """URL of the finished model."""
        return storage.join(self.folder, "model.safetensors")

    def total_steps(self, videos: int) -> int:
        """Steps in which each of the videos is shown `epochs` times."""
        return ceil(self.setting.epochs * videos / self.setting.batch)


def plan(params: Params, setting: Setting, index_sha256: str) -> Run:
    """The run that params ask for, with their setting pinned, on the dataset of that digest."""
    # `accumulate` changes no gradient but for rounding: who lacks memory raises it and goes on.
    deciding = setting.model_dump(mode="json", exclude={"epochs", "about", "adapt"})
    del deciding["meta"]["accumulate"]
    told = setting.model_dump(mode="json", exclude={"adapt"})
    for part, backbone in setting.content.items():
        if backbone.sha256:  # which decides; the address may change, or bear a signature
            del deciding["content"][part]["url"]
        told["content"][part]["url"] = without_secrets(backbone.url)
    code = source_digest(Path(__file__).with_name(f"{name}.py") for name in DECIDING)
    digest = storage.digest(code, index_sha256, json.dumps(deciding, sort_keys=True))
    name = f"{params.name}-{params.setting}-{digest[:12]}"
    index = params.paths.manifest("shard")
    facts = {
        "kind": "model",
        "name": params.name,
        "run": name,
        "setting_name": params.setting,
        "setting": told,
        "code": code_version(),
        "dataset": {"name": params.name, "index_sha256": index_sha256, "split": SPLIT},
        "parents": [{"kind": "index", "sha256": index_sha256, "path": index}],
    }
    return Run(
        name=name,
        folder=storage.join(params.paths.work, "runs", name),
        index=index,
        shards=storage.join(params.paths.data, "shards"),
        cache=shard_cache(params),
        setting=setting,
        facts=facts,
        checkpoint_every=params.ray.checkpoint_every,
        keep=params.ray.keep,
        grid_every=params.ray.grid_every,
        loader_workers=params.ray.loader_workers,
    )
