"""What decides a result is what DVC watches and what names a run: read from the imports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

from training.run import DECIDING

ROOT = Path(__file__).resolve().parents[2]
SHOWS_OR_CARRIES = {
    *("board", "checkpoint", "cluster", "events", "finetune", "grid", "run", "sampler"),
    *("shard_cache", "table", "tensor_file", "trained"),
}
"""Modules of `training` that some stage imports and that decide nothing of what it measures."""


def imported(path: Path) -> set[Path]:
    """Files of this project that a module imports, early or late."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    places = [ROOT.joinpath(*name.split(".")) for name in names]
    files = {file for p in places for file in (p.with_suffix(".py"), p / "__init__.py")}
    return {file for file in files if file.is_file()}


def closure(module: str) -> set[str]:
    """All files of `training` behind a module."""
    seen: set[Path] = set()
    todo = {ROOT / "training" / f"{module}.py"}
    while todo:
        path = todo.pop()
        seen.add(path)
        todo |= imported(path) - seen
    return {str(p.relative_to(ROOT)) for p in seen if p.is_relative_to(ROOT / "training")}


@pytest.mark.parametrize("stage", ["meta_train", "evaluate"])
def test_dvc_watches_all_code_that_decides(stage: str) -> None:
    deps = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]["deps"]
    watched = [dep for dep in deps if "$" not in dep]
    assert [dep for dep in watched if not (ROOT / dep).exists()] == []
    idle = {f"training/{name}.py" for name in (*SHOWS_OR_CARRIES, "__init__")}
    unwatched = {
        file
        for file in closure(stage) - idle
        if not any(file == dep or file.startswith(f"{dep}/") for dep in watched)
    }
    assert unwatched == set()


def test_a_run_is_named_by_all_code_that_decides() -> None:
    files = {Path(file).stem for file in closure("trainer")}
    idle = SHOWS_OR_CARRIES - {"sampler", "table"}
    # Workers are told how to agree on gradients by `cluster`.
    assert (files - idle - {"__init__"}) | {"parallel"} == set(DECIDING)
