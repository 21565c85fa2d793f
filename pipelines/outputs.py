"""Outputs that cannot be written, or would overwrite what is read: told before any work."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from pipelines import storage
from pipelines.errors import UserError


def check_file(option: str, output: str, inputs: Iterable[tuple[str, str | None]] = ()) -> None:
    """Raises UserError where `output` cannot become a file, or is one of the `inputs`.

    output: a path or URL; whether an object store can be written to is not tried.
    inputs: (option, path or URL) of what the command reads.
    """
    if output == "-":
        raise UserError(f"{option} -: give a file's name, nothing is written to the terminal")
    for name, given in inputs:
        if given and _same(output, given):
            raise UserError(f"{option} {output} is also {name}: give the output another name")
    if not storage.is_local(output):
        return
    path = storage.local_path(output)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(f"{option} {output} is no plain file: give the output another name")
    _check(f"{option} {output}", path.absolute().parent)


def check_folder(key: str, folder: str) -> None:
    """Raises UserError where a folder of params.yaml can be neither made nor written to."""
    if storage.is_local(folder):
        _check(f"{key}: {folder}", storage.local_path(folder).absolute())


def _same(one: str, other: str) -> bool:
    if not (storage.is_local(one) and storage.is_local(other)):
        return one == other
    try:
        return storage.local_path(one).samefile(storage.local_path(other))
    except OSError:
        return False


def _check(what: str, folder: Path) -> None:
    """Try to write in the folder, or in the nearest one above it that there is."""
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".likeness-"):
            pass
    except OSError as error:
        why = "is a file, not a folder" if there.is_file() else f"({error.strerror or error})"
        raise UserError(f"{what}: cannot be written: {there} {why}") from None
