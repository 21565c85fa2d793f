"""Shards of an object store on local disk."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tiny_shards import Shards

from pipelines import storage
from training import shard_cache


def test_workers_that_start_at_once_fetch_every_tar_once(
    shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = f"memory://{tmp_path.name}"
    tars = sorted((shards.folder / "train").glob("*.tar"))
    digests = {path.stem: storage.sha256(path) for path in tars}
    shards.edit(lambda row: row.update(shard_sha256=digests[row["shard"]]))
    storage.write_bytes(f"{root}/index.parquet", shards.index.read_bytes())
    for path in tars:
        storage.write_bytes(f"{root}/shards/train/{path.name}", path.read_bytes())

    fetched: list[str] = []
    fetch = shard_cache._fetch

    def slowly(url: str, target: Path, sha256: str) -> None:
        fetched.append(url)
        time.sleep(0.2)
        fetch(url, target, sha256)

    monkeypatch.setattr(shard_cache, "_fetch", slowly)
    digest = storage.sha256(shards.index)
    cache = str(tmp_path / "cache")

    def localize(_: int) -> tuple[str, str]:
        return shard_cache.localize(
            f"{root}/index.parquet", f"{root}/shards", digest, ["train"], cache
        )

    localize(0)  # the index, and all tars
    every = sorted(url for url in fetched if url.endswith(".tar"))
    assert len(every) == len(tars) > 1
    for stored in Path(cache, "tars").glob("*.tar"):
        stored.unlink()
    for path in Path(cache).rglob("shards/train/*.tar"):
        path.unlink()
    fetched.clear()
    with ThreadPoolExecutor(4) as pool:
        places = set(pool.map(localize, range(4)))
    assert sorted(fetched) == every
    ((_, folder),) = places
    for path in tars:
        assert Path(folder, "train", path.name).read_bytes() == path.read_bytes()
