"""Indexes and tables that somebody else wrote, read by loader, stream and verify."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from forgery import Payload, rewrite

from pipelines import manifest, schemas, storage, verify
from pipelines.errors import UserError
from pipelines.manifest import ManifestReader
from pipelines.params import Params
from training import index, jpeg, shard_cache
from training.stream import EpisodeStream

Row = dict[str, Any]
BIG = 2**62


def test_loader_and_rebuild_agree_on_what_a_name_is() -> None:
    assert index.PLAIN_NAME == schemas.PLAIN_NAME
    assert jpeg.LARGEST == schemas.LARGEST_CROP


NAMES = ["../../secret", "/etc/passwd", "a/b", "", "x;touch pwned", "a b", "s3://b/x", "a\nb", "{}"]


@pytest.mark.parametrize("name", NAMES)
def test_a_shard_s_hostile_name_is_refused_by_the_loader(make_shards: Any, name: str) -> None:
    shards = make_shards()
    shards.edit(lambda row: row.update(shard=name))
    secret = shards.folder / "train" / f"{name}.tar"
    if "\0" not in name and secret.parent.is_dir():
        secret.write_bytes(shards.tar(1).read_bytes())
    with pytest.raises(ValueError, match="is no shard's name"):
        shards.open()


def test_a_shard_s_hostile_name_reaches_no_shell_of_a_stream(
    make_shards: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pipe:` is how webdataset reads an object store, and a shell runs it."""
    shards = make_shards()
    monkeypatch.chdir(tmp_path)
    shards.edit(lambda row: row.update(shard="x; touch pwned; echo "))
    pattern = f"pipe:cat {shards.folder}/{{}}"
    with pytest.raises(ValueError):
        next(iter(EpisodeStream(shards.index, pattern, "train", k=2, epochs=1)))
    assert not (tmp_path / "pwned").exists()


SPANS = [
    {"frame_offsets": [-512]},
    {"frame_offsets": [BIG]},
    {"frame_offsets": [2**63 - 1]},
    {"frame_sizes": [-1]},
    {"frame_sizes": [2**31 - 1]},
    {"frame_numbers": [-1]},
    {"frame_numbers": [2**31 - 1]},
    {"landmarks_offset": -512},
    {"landmarks_offset": 2**63 - 1},
    {"landmarks_size": -1},
    {"landmarks_size": 2**31 - 1},
    {"frames": -1},
    {"frames": 0},
    {"shard_bytes": -1},
    {"shard_bytes": BIG},
]


@pytest.mark.parametrize("change", SPANS, ids=str)
def test_spans_outside_the_tar_are_refused_by_the_loader(make_shards: Any, change: Row) -> None:
    shards = make_shards()

    def edit(row: Row) -> None:
        for name, value in change.items():
            if isinstance(value, list):  # the first frame's alone
                row[name] = value + row[name][1:]
            else:
                row[name] = value

    shards.edit(edit)
    with pytest.raises(ValueError, match=r"cannot be true|not \d+, as the index says|not -1"):
        shards.open()


@pytest.mark.parametrize("frames", [10**6, 2**31 - 1])
def test_more_landmarks_than_there_are_cost_no_memory(make_shards: Any, frames: int) -> None:
    shards = make_shards()
    shards.edit(lambda row: row.update(frames=frames))
    with pytest.raises(ValueError, match="is no array of"):
        shards.open()[0, 0]


def test_a_cache_of_remote_shards_writes_nowhere_else(
    make_shards: Any, tmp_path: Path, written: Any
) -> None:
    shards = make_shards()
    shards.edit(lambda row: row.update(shard="../../../escaped", shard_sha256="../../escaped"))
    store = fsspec.filesystem("memory")
    index = f"memory://{tmp_path.name}/index.parquet"
    store.pipe(f"/{tmp_path.name}/index.parquet", shards.index.read_bytes())
    digest = storage.sha256(shards.index)
    cache = tmp_path / "deep" / "er" / "cache"
    with written() as places, pytest.raises(UserError, match="which is no shard"):
        shard_cache.localize(index, f"memory://{tmp_path.name}", digest, ["train"], str(cache))
    assert all(p.is_relative_to(cache) or cache.is_relative_to(p) for p in places)


@pytest.mark.parametrize(
    "name", [n for n in NAMES if n] + ["../../../secret-train-0", "/tmp/secret-train-0", "x-y-z"]
)
def test_a_shard_s_hostile_name_is_refused_by_verify(told: Params, name: str) -> None:
    for stage in ("catalog", "shard"):  # the two agree: only the name itself can be judged
        rewrite(told, stage, lambda row: row.update(shard=name))
    with pytest.raises(UserError, match="is no shard's name"):
        verify.verify(told)


@pytest.mark.parametrize("change", SPANS, ids=str)
def test_spans_that_lie_are_a_lie_to_verify(told: Params, change: Row) -> None:
    def edit(row: Row) -> None:
        for name, value in change.items():
            row[name] = value + row[name][1:] if isinstance(value, list) else value

    rewrite(told, "shard", edit)
    with pytest.raises(verify.Lie):
        verify.verify(told)


# --- parquet ---------------------------------------------------------------------------------


def test_a_pickle_in_a_parquet_s_metadata_does_not_run(
    make_shards: Any, mark: Path, tmp_path: Path
) -> None:
    """`arrow.py_extension_type` made pyarrow unpickle (CVE-2023-47248)."""
    shards = make_shards()
    table = pq.read_table(shards.index)
    payload = pickle.dumps(Payload(mark))
    at = table.schema.get_field_index("key")
    hostile = pa.field(
        "key",
        pa.string(),
        metadata={
            b"ARROW:extension:name": b"arrow.py_extension_type",
            b"ARROW:extension:metadata": payload,
        },
    )
    schema = table.schema.set(at, hostile).with_metadata({b"pandas": payload, b"pickle": payload})
    pq.write_table(table.cast(schema), shards.index)
    assert len(shards.open()) == 5
    assert len(manifest.read(str(shards.index)))
    assert not mark.exists()


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + bytes(64) + b"PAR1", pickle.dumps([1])])
def test_a_damaged_manifest_is_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.parquet").write_bytes(data)
    with pytest.raises(UserError, match="not a readable manifest"):
        ManifestReader(str(tmp_path / "m.parquet"))
