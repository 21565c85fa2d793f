"""Pictures of people that training and evaluation leave in the work folder.

A run's grids show people of the dataset as they are, and TensorBoard has the same pictures; the
caches of shards and of an unfinished evaluation hold frames. No id stands in any of them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from pipelines import storage
from pipelines.forget.models import Sight
from pipelines.forget.whose import label
from pipelines.lineage import made
from pipelines.params import Params

PICTURES = ("grids", "tensorboard")
CACHES = ("shard_cache", "evaluate")
"""Of the work folder: made again where they are needed."""


def shown(params: Params, sight: Sight) -> Iterator[tuple[Path, str]]:
    """Folders with pictures of runs that held someone forgotten, or may have, and why."""
    for run in _runs(params):
        folders = [run / name for name in PICTURES if (run / name).is_dir()]
        if not folders or not sight.requests:
            continue
        dataset = _dataset(run)
        if dataset is None:
            why = "pictures of a run that does not tell its dataset"
        else:
            held, unsure = sight.saw(dataset, "")  # grids show held-out people too
            if not held and not unsure:
                continue
            names = ", ".join(map(label, held or unsure))
            why = f"pictures of a run whose dataset {'held' if held else 'may have held'} {names}"
        yield from ((folder, why) for folder in folders)


def purge(params: Params, sight: Sight) -> int:
    """Delete these pictures and the caches; how many folders."""
    doomed = [folder for folder, _ in shown(params, sight)]
    doomed += [folder for name in CACHES if (folder := _here(params) / name).is_dir()]
    for folder in doomed:
        shutil.rmtree(folder)
    return len(doomed)


def _here(params: Params) -> Path:
    """The work folder, or what stands for one in an object store."""
    work = params.paths.work
    return storage.local_path(work) if storage.is_local(work) else Path("work")


def _runs(params: Params) -> list[Path]:
    local = storage.is_local(params.paths.work)
    root = _here(params) / "runs" if local else Path("runs")
    return sorted(path for path in root.glob("*") if path.is_dir())


def _dataset(run: Path) -> str | None:
    """The digest of a run's dataset, by its newest whole checkpoint or its model."""
    for path in sorted(run.rglob(f"*{made.TENSORS}"), reverse=True):
        try:
            dataset = made.dataset_of(made.tensor_header(path)["facts"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
        if dataset:
            return dataset[0]
    return None
