"""What a finished rebuild no longer needs: shards that were fetched from a store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from pipelines import prune, storage
from pipelines.params import Params


def test_only_shards_of_this_state_of_the_dataset_are_kept(
    make_params: Callable[..., Params], tmp_path: Path
) -> None:
    root = f"memory://{tmp_path.name}"
    params = make_params(paths={"data": root})
    index = tmp_path / "index.parquet"
    with prune.manifest.ManifestWriter(
        str(index), pa.schema([("shard_sha256", pa.string())])
    ) as writer:
        writer.write(pa.table({"shard_sha256": ["aa", "bb"]}))
    storage.write_bytes(params.paths.manifest("shard"), index.read_bytes())
    now = storage.sha256(index)[:16]
    cache = Path(params.paths.work, "shard_cache")
    kept = [f"{now}/index.parquet", f"{now}/shards/train/one.tar", "tars/aa.tar", "tars/bb.lock"]
    stale = ["0" * 16 + "/index.parquet", "0" * 16 + "/shards/train/one.tar", "tars/cc.tar"]
    for name in (*kept, *stale):
        storage.write_bytes(str(cache / name), b"fetched")
    found = sorted(prune._stale_tars(params))
    assert found == sorted(str(cache / name) for name in stale)
    here = make_params(paths={"data": str(tmp_path / "data")})
    assert len(list(prune._stale_tars(here))) == len(kept) + len(stale), "a local dataset is read"
