"""One person is taken out of a rebuild under git and DVC, with a cache and a remote.

Exactly the tars that held them change, the counts follow, the proof is clean after the commands
that `forget` names, and neither the id nor a byte of a frame is left anywhere.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from rig import REPO, Rig
from test_dvc import Repository

from pipelines.sample.corpus import Corpus

PATHS = {name: name for name in ("data", "work", "metrics", "models", "results")}
PATHS |= {"cards": "dataset_cards"}
WINDOW = 48
"""Bytes out of the middle of a picture that stand for it: no two pictures share them."""


def rows(rig: Rig) -> list[dict[str, Any]]:
    return pq.read_table(rig.data / "index.parquet").to_pylist()


def tars(rig: Rig) -> dict[str, bytes]:
    found = sorted(rig.data.glob("shards/*/*.tar"))
    return {path.name: path.read_bytes() for path in found}


def frames_of(rig: Rig, person: str) -> list[bytes]:
    """A stretch out of each of a person's pictures."""
    pieces = []
    for row in rows(rig):
        if row["person"] == person:
            tar = rig.data / "shards" / row["split"] / f"{row['shard']}.tar"
            data = tar.read_bytes()
            for at, size in zip(row["frame_offsets"], row["frame_sizes"], strict=True):
                middle = at + size // 2
                pieces.append(data[middle : middle + WINDOW])
    return pieces


def everything(*roots: Path) -> Iterator[Path]:
    for root in roots:
        for top, _, names in os.walk(root):
            yield from (Path(top, name) for name in names)


def holding(needles: list[bytes], *roots: Path) -> set[str]:
    """Files whose bytes hold any of the needles, found in the plainest way."""
    found = set()
    for path in everything(*roots):
        if path.is_file() and path.stat().st_size:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
                if any(data.find(needle) >= 0 for needle in needles):
                    found.add(str(path))
    return found


def take_out(repository: Repository, remote: Path, person: str, last: str) -> None:
    """The whole way of docs/takedown.md, with what it promises checked at each step."""
    rig, folder = repository.rig, repository.rig.folder
    names = [person.encode(), *{r["video"].encode() for r in rows(rig) if r["person"] == person}]
    held_by = {f"{row['shard']}.tar" for row in rows(rig) if row["person"] == person}
    before, index, frames = tars(rig), rows(rig), frames_of(rig, person)
    excluded = sum(r["person"] == person for r in rig.rows("catalog"))
    assert frames
    assert held_by < before.keys(), "a tar without them is needed to show anything"
    assert holding(frames, rig.data) >= {
        str(p) for p in rig.data.rglob("*.tar") if p.name in held_by
    }

    forgot = rig.run("forget", "--person", person, "--reason", "asked").check()
    assert f"dvc gc --workspace --cloud --remote {remote.name}" in forgot.out
    found = rig.run("forget", "--check")
    assert found.code == 1
    for area in ("data/index.parquet", ".dvc/cache/", str(remote), *held_by):
        assert area in found.out, area
    repository.dvc("repro", last)
    after = tars(rig)
    assert {name for name in before if after.get(name) != before[name]} == held_by
    assert after.keys() <= before.keys()
    assert rig.run("forget", "--check").code == 1, "the cache still holds the old tars"
    repository.dvc("gc", "--workspace", "--force")
    still = rig.run("forget", "--check")
    assert still.code == 1
    assert all(str(remote) in line for line in still.out.splitlines() if "dvc gc" in line)
    repository.dvc("push")
    repository.dvc("gc", "--workspace", "--cloud", "--remote", remote.name, "--force")
    clean = rig.run("forget", "--check").check()
    assert "nothing remains" in clean.out

    # The plainest search, which shares no line with the tool's own.
    left = holding(names, folder, remote)
    assert {Path(p).relative_to(folder).parts[0] for p in left} == {"takedowns.csv", "metadata"}
    assert holding(frames, folder, remote) == set()
    for manifest in folder.glob("data/*.parquet"):
        text = str(pq.read_table(manifest).to_pydict()).encode()
        assert not any(name in text for name in names), manifest
    assert rows(rig) and len(rows(rig)) == len(index) - sum(r["person"] == person for r in index)
    rig.run("verify").check()
    assert sum(r["status"] == "excluded" for r in rig.rows("catalog")) == excluded
    if last == "card":
        card = json.loads((folder / "metrics" / "card.json").read_text())
        assert card["clips"] == len(rows(rig))
        assert card["excluded"] == excluded
    assert repository.ran(repository.dvc("repro", last)) == []


def under_dvc(rig: Rig) -> Repository:
    """With the sections that dvc.yaml wants of stages that do not run here."""
    rig.params = yaml.safe_load((REPO / "params.yaml").read_text()) | rig.params
    rig.save()
    return Repository(rig)


def with_remote(repository: Repository) -> Path:
    """A remote named by a relative address, as people write them, holding everything."""
    folder = repository.rig.folder
    remote = folder.parent / f"{folder.name}-store"
    repository.dvc("remote", "add", "--default", "--local", remote.name, f"../{remote.name}")
    repository.dvc("push")
    assert remote.is_dir()
    return remote


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_person_of_the_sample(
    make_rig: Callable[..., Rig], tiny_corpus: Corpus, tmp_path: Path
) -> None:
    folder = tmp_path / "project"
    shutil.copytree(tiny_corpus.metadata, folder / "metadata")
    rig = make_rig(folder, paths=PATHS, shard={"clips": 2, "frames": 4})
    rig.change("catalog", metadata="metadata", takedowns="takedowns.csv")
    repository = under_dvc(rig)
    shutil.rmtree(folder / "pipelines" / "sample")  # it is what gives these people their names
    repository.dvc("repro", "shard")
    by_person: dict[str, set[str]] = {}
    for row in rows(rig):
        by_person.setdefault(row["person"], set()).add(row["shard"])
    person = min(by_person, key=lambda name: (len(by_person[name]), name))
    take_out(repository, with_remote(repository), person, "shard")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_person_of_the_real_corpus(corpus: Path, tmp_path: Path) -> None:
    """Fifty people; the one whose video begins with a dash."""
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copytree(corpus / "metadata" / "voxceleb2", folder / "metadata")
    source = {"name": "voxceleb2", "reader": "voxceleb2", "people": "vox2_meta.csv"}
    catalog = {"metadata": "metadata", "takedowns": "takedowns.csv", "sources": [source]}
    options = {"direct_running_mode": "multi_processing", "direct_num_workers": 2}
    params = {
        "name": "corpus",
        "paths": PATHS,
        "catalog": catalog,
        "download": {"mirror": str(corpus / "videos")},
        "crop": {"policy": "clip"},
        "landmarks": {"backend": "mediapipe"},
        "shard": {"clips": 16},
        "card": {"title": "Corpus", "licence": "other", "description": "For tests."},
        "beam": {"runner": "FnApiRunner", "options": options},
    }
    repository = under_dvc(Rig(folder, params))
    for target in ("crop", "landmarks", "card"):  # each within a command's time on a busy machine
        repository.dvc("repro", target)
    (dashed,) = corpus.glob("metadata/voxceleb2/txt/*/-*")
    take_out(repository, with_remote(repository), dashed.parent.name, "card")
