"""Who is held out: as published, or drawn; and tables that cannot say it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipelines import splits
from pipelines.params.dataset import Split
from pipelines.splits import misfit, split_of


@given(st.text(), st.integers(), st.floats(0, 0.5), st.floats(0, 0.49))
def test_splits_grow_without_moving_people(person: str, seed: int, val: float, test: float) -> None:
    small = split_of(person, None, Split(seed=seed, val=val / 2, test=test))[0]
    large = split_of(person, None, Split(seed=seed, val=val, test=test))[0]
    assert small == large or (small, large) == ("train", "val")


TABLE = {f"id{n}": "test" if n % 10 == 0 else "train" for n in range(100)}
HELD_OUT = {person: split for person, split in TABLE.items() if split == "test"}
OTHERS = {f"x{n}" for n in range(30)}


@pytest.mark.parametrize("table", [TABLE, HELD_OUT, {"id7": "train", "id8": None}])
def test_a_table_of_these_people_serves_them(table: dict[str, str | None]) -> None:
    """Be the source a piece of the dataset, or the table one of the held-out alone."""
    for people in (TABLE.keys(), table.keys(), ["id7"] if "id7" in table else [], ()):
        assert misfit(table, people) == ""
    assert misfit(TABLE, ["id7", "x1"]) == ""


def test_a_table_that_does_not_serve_says_why() -> None:
    assert "no line of it" in misfit({})
    assert "column Set is missing" in misfit(dict.fromkeys(TABLE), TABLE)
    assert "knows 0 of the 30 people" in misfit(TABLE, OTHERS)
    assert "knows 1 of the 31 people" in misfit(TABLE, OTHERS | {"id7"})
    assert "knows 1 of the 31 people" in misfit(HELD_OUT, OTHERS | {"id0"})


ROOT = Path(splits.__file__).parents[1]
CARRY = {
    *("command", "errors", "manifest", "params", "progress", "schemas", "statuses", "storage"),
    "summary",
}
"""Modules that the catalog imports and that decide none of its rows."""


def test_dvc_watches_all_code_that_decides_the_catalog() -> None:
    deps = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["catalog"]["deps"]
    watched = {Path(dep).stem for dep in deps if dep.startswith("pipelines/")}
    tree = ast.parse((ROOT / "pipelines" / "catalog.py").read_text())
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pipelines"):
            whole = node.module == "pipelines"
            names = [a.name for a in node.names] if whole else [str(node.module).split(".")[1]]
            imported.update(names)
    assert imported - CARRY == watched - {"catalog"}
