"""Which clips go into which tar: the manifests' join, in portions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines import manifest, shard_plan
from pipelines.errors import StopStage
from pipelines.params import Params
from pipelines.schemas import CATALOG

Row = dict[str, Any]
Finished = Callable[..., Params]
pytestmark = pytest.mark.usefixtures("without_beam")


def naive_plan(params: Params) -> list[Row]:
    """What the plan must be, by looking clips up by key."""
    by_stage = {
        stage: {row["key"]: row for row in manifest.read(params.paths.manifest(stage)).to_pylist()}
        for stage in ("catalog", "crop", "landmarks")
    }
    rows = []
    for key, found in by_stage["landmarks"].items():
        if found["status"] == "ok":
            row = {name: by_stage["catalog"][key][name] for name in CATALOG.names[:5]}
            row |= {name: by_stage["catalog"][key][name] for name in shard_plan.CATALOG_FACTS}
            row |= {name: by_stage["crop"][key][name] for name in shard_plan.CROP_FACTS}
            rows.append(row | {name: found[name] for name in shard_plan.LANDMARK_FACTS})
    return sorted(rows, key=lambda row: (row["shard"], row["key"]))


@pytest.mark.parametrize("portion", [1, 3, 4, 1000])
@pytest.mark.parametrize("group", [1, 2, 5, 2048])
def test_the_plan_is_the_join_of_the_manifests(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, portion: int, group: int
) -> None:
    monkeypatch.setattr(shard_plan, "PASS_ROWS", portion)
    monkeypatch.setattr(shard_plan, "ROW_GROUP", group)
    monkeypatch.setattr(manifest, "ROW_GROUP", group)
    params = finished([3, 2, 4, 1, 5])
    shards = shard_plan.write_plan(params, str(tmp_path / "plan.parquet"))
    rows = manifest.read(str(tmp_path / "plan.parquet")).to_pylist()
    assert repr(rows) == repr(naive_plan(params))
    assert [start for _, start, _, _ in shards] == [0, *[stop for _, _, stop, _ in shards][:-1]]
    assert all({row["shard"] for row in rows[a:b]} == {name} for name, a, b, _ in shards)


@pytest.mark.parametrize("stage", ["crop", "landmarks"])
@pytest.mark.parametrize("change", ["less", "more", "swapped"])
def test_manifests_of_different_runs_are_not_joined(
    finished: Finished, tmp_path: Path, stage: str, change: str
) -> None:
    params = finished()
    url = params.paths.manifest(stage)
    table = manifest.read(url)
    order = list(range(len(table)))
    order = {"less": order[:-1], "more": [*order, 0], "swapped": [1, 0, *order[2:]]}[change]
    with manifest.ManifestWriter(url, table.schema) as writer:
        writer.write(table.take(order))
    with pytest.raises(StopStage, match="the manifests do not belong together"):
        shard_plan.write_plan(params, str(tmp_path / "plan.parquet"))


def test_a_clip_of_another_source_is_another(finished: Finished, tmp_path: Path) -> None:
    params = finished()
    url = params.paths.manifest("landmarks")
    table = manifest.read(url)
    rows = [row | {"source": "wox"} for row in table.to_pylist()]
    with manifest.ManifestWriter(url, table.schema) as writer:
        writer.write(pa.Table.from_pylist(rows, schema=table.schema))
    with pytest.raises(StopStage, match="the manifests do not belong together"):
        shard_plan.write_plan(params, str(tmp_path / "plan.parquet"))
