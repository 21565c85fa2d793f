"""Pictures of people that training and evaluation leave, in which no id stands.

A run's grids show people of the dataset as they are, and TensorBoard has the same pictures; an
evaluation has a figure and the user study's page; the caches of shards and of an unfinished
evaluation hold frames; the report shows all of them.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from pipelines import storage
from pipelines.forget.models import Sight
from pipelines.forget.whose import label
from pipelines.lineage import made
from pipelines.params import Params
from pipelines.work_folder import files_below

PICTURES = ("grids", "tensorboard")
EVALUATED = ("grid.png", "user_study.html")
CACHES = ("shard_cache", "evaluate")
"""Of the work folder: made again where they are needed."""
Pictures = tuple[str, tuple[str, str] | None, list[str]]
"""Whose they are in words, the digest and split of the dataset, and the URLs of those there are."""


def shown(params: Params, sight: Sight) -> Iterator[tuple[str, str]]:
    """Files and folders of pictures of datasets that held someone forgotten, or may have; why."""
    if not sight.requests:
        return
    for what, dataset, pictures in chain(_of_runs(params), _of_evaluations(params)):
        if dataset is None:
            why = f"pictures of {what} that does not tell its dataset"
        else:
            held, unsure = sight.saw(*dataset)
            if not held and not unsure:
                continue
            names = ", ".join(map(label, held or unsure))
            why = f"pictures of {what} whose dataset {'held' if held else 'may have held'} {names}"
        yield from ((url, why) for url in pictures)


def report(params: Params) -> str:
    """URL of the page that `python -m pipelines.report` writes where no -o says another."""
    return storage.join(params.paths.results, "report.html")


def purge(params: Params, sight: Sight) -> Counter[str]:
    """Delete these pictures, the caches and the report; how many files of what."""
    gone: Counter[str] = Counter()
    for url, _ in shown(params, sight):
        gone["pictures of training and evaluation"] += _delete(url)
    for name in CACHES:
        if (folder := _here(params) / name).is_dir():
            gone["cached files"] += _delete(str(folder))
    if storage.exists(url := report(params)):
        storage.remove(url)
        gone["report"] += 1
    return gone


def _delete(url: str) -> int:
    """How many files it was."""
    path = storage.local_path(url) if storage.is_local(url) else None
    if path is None or not path.is_dir():
        storage.remove(url)
        return 1
    files = sum(1 for file in path.rglob("*") if not file.is_dir())
    shutil.rmtree(path)
    return files


def _of_runs(params: Params) -> Iterator[Pictures]:
    for run in _runs(params):
        digest = _dataset(run)
        # Of any split: grids show held-out people too.
        dataset = (digest, "") if digest else None
        there = [str(run / name) for name in PICTURES if (run / name).exists()]
        yield "a run", dataset, there


def _of_evaluations(params: Params) -> Iterator[Pictures]:
    folders: dict[str, list[str]] = {}
    for url in files_below(params.paths.results):
        if url.rpartition("/")[2] in EVALUATED:
            folders.setdefault(url.rpartition("/")[0], []).append(url)
    for folder, pictures in sorted(folders.items()):
        try:
            told = made.read_evaluation(storage.read_bytes(storage.join(folder, made.EVALUATION)))
            dataset = made.dataset_of(told)
        except (FileNotFoundError, *made.DAMAGED):
            dataset = None
        yield "an evaluation", dataset, pictures


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
