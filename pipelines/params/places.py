"""A file where params.yaml means a folder, and a folder where it means a file.

Found when the params are read, by their key; later they are a `FileExistsError` in the middle of
a stage. What is not there yet may still become what is wanted, and is left to whoever needs it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from pipelines import storage
from pipelines.params.training import Perceptual, Weights

if TYPE_CHECKING:
    from pipelines.params import Params

TREES = frozenset({"voxceleb1", "voxceleb2", "mp4", "hdtf"})
"""Readers of a folder; the others read a file as well."""


def mirror_folder(mirror: str) -> Path:
    """The folder of a local mirror below which all its videos lie."""
    fixed, template, _ = mirror.partition("{video_id}")
    return storage.local_path(fixed + "x").parent if template else storage.local_path(mirror)


def misplaced(params: Params) -> Iterator[str]:
    """`key: path: what is wrong; the remedy` for every place that is not of the kind it must be."""
    root = Path(params.catalog.metadata)
    if why := _given_file(root):
        yield f"catalog.metadata: {why}"
    else:
        for source in params.catalog.sources:
            place = root / source.path
            if source.reader in TREES and (why := _given_file(place)):
                yield f"catalog.sources.{source.name}.path: {why}"
    for key, folder in params.paths:
        if _here(folder) and (why := _no_folder(storage.local_path(folder))):
            yield f"paths.{key}: {why}"
    mirror = params.download.mirror
    if _here(mirror) and (why := _given_file(mirror_folder(mirror))):
        yield f"download.mirror: {why}"
    for key, file in _files(params):
        if _here(file) and (why := _no_file(storage.local_path(file))):
            yield f"{key}: {why}"


def _here(url: str | None) -> TypeGuard[str]:
    """Whether it is a path on this machine, written out."""
    return url is not None and url != "" and storage.is_local(url) and "{env:" not in url


def _no_folder(path: Path) -> str:
    """Why no folder is or could be made at the path; empty when it could."""
    there = next((p for p in (path, *path.parents) if os.path.lexists(p)), path)
    if not os.path.lexists(there) or os.path.isdir(there):  # noqa: PTH112 - `is_dir` may raise
        return ""
    shown = f"{path}: {there}" if there != path else str(path)
    what = "a file" if os.path.exists(there) else "a link to nothing"  # noqa: PTH110
    return f"{shown} is {what}, not a folder; name a folder, or move that away"


def _given_file(path: Path) -> str:
    """Why a folder to be read is none; empty where nothing is: who trains needs no annotations."""
    return _no_folder(path) if os.path.exists(path) else ""  # noqa: PTH110


def _no_file(path: Path) -> str:
    """Why no file is or could be made at the path; empty when it could."""
    if not os.path.lexists(path):
        return _no_folder(path.parent)
    if os.path.isdir(path):  # noqa: PTH112
        return f"{path} is a folder, not a file; name the file, or move that away"
    return ""


def _files(params: Params) -> Iterator[tuple[str, str | None]]:
    yield "catalog.takedowns", params.catalog.takedowns
    for source in params.catalog.sources:
        people = source.people and storage.join(params.catalog.metadata, source.people)
        yield f"catalog.sources.{source.name}.people", people
    yield "download.cookies", params.download.cookies
    for name, setting in params.settings.items():
        for backbone, part in setting.content.items():
            yield f"settings.{name}.content.{backbone}.url", part.url
    own = params.evaluate
    yield "evaluate.frames", own.frames
    networks: list[tuple[str, Mapping[Any, Weights | None]]]
    networks = [("identity", own.identity), ("features", own.features), ("lpips", own.lpips)]
    for family, by_name in networks:
        for name, weights in by_name.items():
            if weights is not None:
                yield f"evaluate.{family}.{name}.url", weights.url
            if isinstance(weights, Perceptual) and weights.heads is not None:
                yield f"evaluate.{family}.{name}.heads.url", weights.heads.url
    yield "animate.certificate", params.animate.certificate
    yield "animate.key", params.animate.key
