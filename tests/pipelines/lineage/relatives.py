"""What comes of a dataset: files that tell of it, its tables changed, and the command's answers."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines import storage
from pipelines.lineage import made
from pipelines.lineage.__main__ import main
from pipelines.params import Params

URL = "https://videos.example/{video_id}?v=1"


def model_facts(digest: str) -> dict[str, Any]:
    return {
        "kind": "model",
        "name": "tiny",
        "setting_name": "small",
        "setting": {"batch": 4},
        "step": 90,
        "epoch": 3,
        "code": "0.1.0+g1234",
        "dataset": {"name": "tiny", "index_sha256": digest, "split": "train", "videos": 2},
        "parents": [{"kind": "index", "sha256": digest, "path": "index.parquet"}],
    }


def write_tensors(path: Path, kind: str, facts: dict[str, Any]) -> str:
    """A file of ours; returns its digest."""
    pytest.importorskip("torch")
    import torch

    from training import tensor_file

    path.parent.mkdir(parents=True, exist_ok=True)
    tensor_file.write(path, kind, {"x": torch.arange(9.0)}, facts)
    return storage.sha256(path)


def write_video(path: Path, facts: dict[str, Any]) -> Path:
    """A video with a sidecar, as `training.marking` writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"pictures")
    told = {"format": made.SIDECAR_FORMAT, "files": {path.name: ""}, "facts": facts}
    path.with_name(path.name + made.SIDECAR).write_text(json.dumps(told))
    return path


def give_digests(project: Params, how: str = "crop") -> dict[str, str]:
    """Write a digest into every crop's row, as the stage does; returns them by key."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipelines.manifest import ManifestWriter

    url = project.paths.manifest("crop")
    rows, schema = pq.read_table(url).to_pylist(), pq.read_schema(url)
    for row in rows:
        row["sha256"] = storage.digest(how, row["key"])
    with ManifestWriter(url, schema) as writer:
        writer.write(pa.Table.from_pylist(rows, schema=schema))
    return {row["key"]: row["sha256"] for row in rows}


def add_source(project: Params, source: str) -> dict[str, str]:
    """The same clips a second time, as of another source; returns their crops' digests by key."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipelines.manifest import ManifestWriter

    for stage in ("catalog", "crop", "landmarks", "shard"):
        url = project.paths.manifest(stage)
        rows, schema = pq.read_table(url).to_pylist(), pq.read_schema(url)
        for row in list(rows):
            other = row | {"source": source}
            if stage == "catalog":
                other["url"] = f"https://{source}.example/{row['key']}"
            elif stage == "crop":
                other["sha256"] = storage.digest(source, row["key"])
            elif stage == "shard":
                other["shard"] = row["shard"].replace("vox", source)
                other["shard_sha256"] = storage.digest_bytes(other["shard"].encode())
            rows.append(other)
        with ManifestWriter(url, schema) as writer:
            writer.write(pa.Table.from_pylist(rows, schema=schema))
        if stage == "crop":
            made = {row["key"]: row["sha256"] for row in rows if row["source"] == source}
    return made


def forget_person(index: Path, person: str, to: Path | None = None) -> None:
    """An index as a rebuild without that person writes it."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(index)
    pq.write_table(table.filter(pc.not_equal(table["person"], person)), to or index)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def kinds(node: dict[str, Any]) -> Any:
    """The tree's kinds alone."""
    below = [kinds(one) for one in node.get("from", ())]
    return [node["kind"], *below] if below else node["kind"]
