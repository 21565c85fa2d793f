"""The training runs that used a dataset: what became of them, their losses, their pictures.

A run belongs to the dataset when its model, or its newest checkpoint while it is under way,
names the digest of the dataset's index. The losses are in the run's history.jsonl; where the
work folder is gone, in what DVC keeps below metrics/training. Read without torch.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from PIL import Image

from pipelines import storage
from pipelines.errors import UserError
from pipelines.lineage import made
from pipelines.params import Params
from pipelines.report.curves import Points, curve_svg

if TYPE_CHECKING:
    from markupsafe import Markup

MOST = 3
"""Runs that are shown, so that the page can still be mailed."""
WIDEST, HIGHEST = 900, 1400
"""Pixels of a grid."""
Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Grid:
    """The newest grid, made small."""

    data_uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Run:
    """One training run."""

    name: str
    setting: str
    about: str
    step: int
    total: int | None
    finished: bool
    origin: str
    """Where this was read, as a sentence without its full stop."""
    curves: list[tuple[str, Markup]]
    grid: Grid | None


@dataclass
class Training:
    """All runs that used the dataset, and what a reader should know."""

    runs: list[Run] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_training(params: Params, digest: str) -> Training:
    """The runs whose facts name this index; those of the chosen setting first."""
    training = Training()
    found: dict[str, Run] = {}
    for url, read in ((params.paths.work, _runs), (params.paths.models, _models)):
        if not storage.is_local(url):
            training.notes.append(f"{url} is not on this machine; what is there is not shown.")
            continue
        for run in read(params, digest):
            found.setdefault(run.name, run)
    runs = sorted(found.values(), key=lambda run: (run.setting != params.setting, run.name))
    training.runs = runs[:MOST]
    if runs[MOST:]:
        training.notes.append("Not shown: " + ", ".join(run.name for run in runs[MOST:]) + ".")
    return training


def _runs(params: Params, digest: str) -> Iterator[Run]:
    """Runs in the work folder, under way or done."""
    runs = storage.local_path(params.paths.work) / "runs"
    for folder in sorted(runs.iterdir()) if runs.is_dir() else ():
        model = folder / "model.safetensors"
        saved = sorted((folder / "checkpoints").glob("step-*.safetensors"), reverse=True)
        facts = next((f for path in (model, *saved) if (f := _facts(path))), None)
        if facts is None or not _used(facts, digest):
            continue
        losses = _history(folder / "history.jsonl")
        newest = max((points[-1][0] for points in losses.values()), default=0)
        done = model.exists()
        step = int(facts.get("step") or 0) if done else newest
        grid = _grid(folder / "grids" / "newest.png")
        yield _run(folder.name, facts, step, done, "Read from the run's own folder", losses, grid)


def _models(params: Params, digest: str) -> Iterator[Run]:
    """Trained models without their run's folder; the curves are those that DVC keeps."""
    folder = storage.local_path(params.paths.models)
    for path in sorted(folder.glob("*.safetensors")):
        facts = _facts(path)
        if facts is None or facts.get("kind") != "model" or not _used(facts, digest):
            continue
        losses = _plots(params)
        step = int(facts.get("step") or 0)
        # DVC keeps the curves of the latest run alone: they are this model's if they end with it.
        if path.stem != params.setting or all(p[-1][0] != step for p in losses.values()):
            losses = {}
        name = str(facts.get("run") or path.stem)
        yield _run(name, facts, step, True, f"Read from {path.name}", losses, None)


def _facts(path: Path) -> Facts | None:
    """What a file of tensors says of its making; None where it is missing or damaged."""
    try:
        return made.read(path).facts
    except (UserError, OSError):
        return None


def _used(facts: Facts, digest: str) -> bool:
    dataset = made.dataset_of(facts)
    return dataset is not None and dataset[0] == digest


def _run(
    name: str,
    facts: Facts,
    step: int,
    finished: bool,
    origin: str,
    losses: Mapping[str, Points],
    grid: Grid | None,
) -> Run:
    from markupsafe import Markup

    setting = facts.get("setting")
    setting = setting if isinstance(setting, Mapping) else {}
    dataset = facts.get("dataset")
    videos = dataset.get("videos") if isinstance(dataset, Mapping) else None
    counts = [n for n in (setting.get("epochs"), videos, setting.get("batch")) if _positive(n)]
    return Run(
        name=name,
        setting=str(facts.get("setting_name") or "unknown"),
        about=str(setting.get("about") or ""),
        step=step,
        total=math.ceil(counts[0] * counts[1] / counts[2]) if len(counts) == 3 else None,
        finished=finished,
        origin=origin,
        # The drawings hold numbers, and names that they escape.
        curves=[
            (loss.replace("_", " ").capitalize(), Markup(curve_svg(loss, points)))
            for loss, points in losses.items()
        ],
        grid=grid,
    )


def _positive(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and value > 0


# --- files -----------------------------------------------------------------------------------


def _history(path: Path) -> dict[str, Points]:
    """Losses by name from a run's own history; an unfinished or damaged line is passed over."""
    losses: dict[str, Points] = defaultdict(list)
    if not path.is_file():
        return losses
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                told = json.loads(line)
            except ValueError:
                continue
            if isinstance(told, dict) and isinstance(told.get("step"), int):
                for name, value in told.items():
                    _add(losses, name, told["step"], value)
    return losses


def _plots(params: Params) -> dict[str, Points]:
    """Losses by name from DVCLive's tables."""
    folder = storage.join(params.paths.metrics, "training/plots/metrics")
    losses: dict[str, Points] = defaultdict(list)
    for name in storage.names(folder):
        if name.endswith(".tsv"):
            text = storage.read_bytes(storage.join(folder, name)).decode("utf-8", "replace")
            loss = name.removesuffix(".tsv")
            for row in csv.DictReader(io.StringIO(text), delimiter="\t"):
                try:
                    _add(losses, loss, int(row["step"]), float(row[loss]))
                except (KeyError, TypeError, ValueError):
                    continue
    return losses


def _add(losses: dict[str, Points], name: str, step: int, value: object) -> None:
    if name != "step" and isinstance(value, int | float) and math.isfinite(value):
        losses[name].append((step, float(value)))


def _grid(path: Path) -> Grid | None:
    """A run's newest pictures as a small JPEG; None while there are none."""
    try:
        picture = Image.open(path, formats=["PNG"]).convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    picture.thumbnail((WIDEST, HIGHEST), Image.Resampling.LANCZOS)
    sink = io.BytesIO()
    picture.save(sink, "JPEG", quality=85, optimize=True)
    data = base64.b64encode(sink.getvalue()).decode()
    return Grid("data:image/jpeg;base64," + data, *picture.size)
