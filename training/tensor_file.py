"""One file of tensors and the facts about them: checkpoints, models and adapted people.

The format is safetensors (github.com/huggingface/safetensors): a JSON header and raw numbers, so
that reading a stranger's file runs no code. The header's metadata holds, under one key, the file's
kind, a sha256 over the numbers, the facts as JSON and a sha256 over these: a truncated or altered
file is never taken for a whole one. One key, because the library writes several in an order drawn
anew each time, and the same content shall be the same bytes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipelines.errors import UserError

FORMAT = "likeness-1"
KEY = "likeness"
SEPARATOR = "/"


class DamagedFile(UserError):
    """Not a file of ours, or no longer as it was written: one line that names it."""


def write(path: Path, kind: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write to `path`, which the caller publishes atomically (`pipelines.storage.atomic`).

    facts: plain values that JSON keeps. Raises OSError where the disk does not take it.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    said = {
        "format": FORMAT,
        "kind": kind,
        "sha256": _digest(plain),
        "facts": dict(facts),
        "facts_sha256": _digest_of_facts(facts),
    }
    metadata = {KEY: json.dumps(said)}
    try:
        path.touch()
        mode = path.stat().st_mode  # this user's files have it; save_file's are stricter
        save_file(plain, path, metadata)
        path.chmod(mode)
    except SafetensorError as error:  # which tells the system's error in its words alone
        number = re.search(r"os error (\d+)", str(error))
        reason = os.strerror(int(number[1])) if number else f"cannot be written: {error}"
        raise OSError(int(number[1]) if number else errno.EIO, reason, path.name) from error


def read(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors on the CPU, and facts. Raises DamagedFile, OSError where it cannot be read now."""
    try:
        with safe_open(path, framework="pt") as file:
            said = _checked(path, file.metadata(), kind)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error
    if _digest(tensors) != said["sha256"]:
        raise DamagedFile(f"{path}: its numbers are not the ones that were written; get it anew")
    return tensors, said["facts"]


def read_facts(path: Path, kinds: Iterable[str]) -> tuple[str, dict[str, Any]]:
    """The kind and the facts alone, without reading the numbers. Raises as `read`."""
    try:
        with safe_open(path, framework="pt") as file:
            said = _checked(path, file.metadata(), *kinds)
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error
    return said["kind"], said["facts"]


def _unreadable(path: Path, error: Exception) -> UserError:
    if not path.exists():
        return UserError(f"{path}: no such file")
    if path.is_dir():
        return UserError(f"{path} is a folder; name a file in it")
    if isinstance(error, OSError):  # the disk's trouble, and of today: the file may well be whole
        raise error
    reason = str(error).splitlines()[0]
    return DamagedFile(f"{path}: damaged, cut short or no file of ours ({reason}); get it anew")


def _checked(path: Path, metadata: dict[str, str] | None, *kinds: str) -> dict[str, Any]:
    """What the file says of itself: format, kind, sha256 and facts."""
    try:
        said = json.loads((metadata or {}).get(KEY, "null"))
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise DamagedFile(f"{path}: not written by Likeness, or by another version of it")
    if not isinstance(said.get("facts"), dict) or not {"kind", "sha256"} <= said.keys():
        raise DamagedFile(f"{path}: it tells too little about itself; get it anew")
    if said.get("facts_sha256") not in (None, _digest_of_facts(said["facts"])):  # None: of old
        raise DamagedFile(f"{path}: its facts are not the ones that were written; get it anew")
    if said["kind"] not in kinds:
        raise UserError(f"{path} is a {said['kind']}, not a {' or a '.join(kinds)}")
    return said


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and numbers, in the order of names."""
    hasher = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        hasher.update(memoryview(tensor.reshape(-1).view(torch.uint8).numpy()))
    return hasher.hexdigest()


def _digest_of_facts(facts: Mapping[str, Any]) -> str:
    """sha256 over the facts as they are once JSON has kept them."""
    kept = json.loads(json.dumps(facts))
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def flatten(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], Any]:
    """A nested state dict as tensors by path, and as a skeleton that JSON keeps.

    In the skeleton a tensor is {"tensor": path}, a dict {"dict": [[key, value], ...]}, since
    optimizers have whole numbers as keys, a list or tuple {"list": [...]}.
    """
    tensors: dict[str, Tensor] = {}

    def walk(value: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            tensors[path] = value
            return {"tensor": path}
        if isinstance(value, Mapping):
            return {"dict": [[k, walk(v, f"{path}{SEPARATOR}{k}")] for k, v in value.items()]}
        if isinstance(value, list | tuple):
            return {"list": [walk(v, f"{path}{SEPARATOR}{i}") for i, v in enumerate(value)]}
        if value is not None and not isinstance(value, bool | int | float | str):
            raise TypeError(f"{path}: a {type(value).__name__} is no plain value")
        return value

    return tensors, walk(state, "")


def unflatten(tensors: Mapping[str, Tensor], skeleton: Any) -> Any:
    """What `flatten` took apart. Raises DamagedFile for anything else."""
    if not isinstance(skeleton, dict):
        return skeleton
    try:
        if "tensor" in skeleton:
            return tensors[skeleton["tensor"]]
        if "dict" in skeleton:
            return {key: unflatten(tensors, value) for key, value in skeleton["dict"]}
        return [unflatten(tensors, value) for value in skeleton["list"]]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise DamagedFile("what the file says of its own structure cannot be true") from error
