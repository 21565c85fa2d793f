"""A tree of annotations, and catalogs built of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from eight_people import PEOPLE, Row, annotate

from pipelines import catalog, manifest
from pipelines.params import Params
from pipelines.schemas import CATALOG

MakeParams = Callable[..., Params]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Eight people, two videos each, two clips a video."""
    root = tmp_path / "metadata"
    for person in PEOPLE:
        for video in ("a", "b"):
            for utterance in ("00001", "00002"):
                annotate(root, person, f"{video}-{person[-2:]}", utterance)
    return root


@pytest.fixture
def build(make_params: MakeParams, tmp_path: Path) -> Callable[..., list[Row]]:
    """Build a catalog; returns its rows. `takedowns`: lines below the header."""

    def run(*takedowns: str, **sections: Any) -> list[Row]:
        lines = ["kind,id,date,reason", *takedowns]
        (tmp_path / "takedowns.csv").write_text("\n".join(lines) + "\n")
        params = make_params(**sections)
        summary = catalog.build(params)
        table = manifest.read(params.paths.manifest("catalog"))
        assert table.schema.equals(CATALOG)
        assert summary.rows == len(table)
        assert summary.statuses == Counter(table["status"].to_pylist())
        return table.to_pylist()

    return run
