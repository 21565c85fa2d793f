"""Forgetting under git and DVC, from the request to the proof."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from dvc.cli import main as dvc
from leaver import FRIEND, HEADER, LEAVER, OWN, annotate

from pipelines import card, catalog, crop, detectors, download, engine, landmarks, shard, storage
from pipelines.forget import check, requests
from pipelines.forget.__main__ import main
from pipelines.forget.whose import whose
from pipelines.params import Params
from pipelines.verify import verify

MakeParams = Callable[..., Params]


class Faces:
    """Stands in for a landmark model: a face in every frame, the same everywhere."""

    name = "mediapipe"

    def __call__(self, frames: Any, boxes: Any) -> detectors.Landmarks:
        points = np.tile(np.linspace(8, 24, 68, dtype=np.float32)[:, None], (len(frames), 1, 2))
        return detectors.Landmarks(points, np.ones(len(frames), np.float32))


@pytest.fixture
def project(
    params: Params,
    tmp_path: Path,
    make_params: MakeParams,
    make_video: Callable[..., Path],
    without_beam: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> Params:
    """A git and DVC repository with a cache and a remote, and noise for videos in a mirror."""
    pytest.importorskip("jinja2", reason="the extra `card`")
    root = tmp_path / "project"
    (tmp_path / "metadata").rename(tmp_path / "lists")
    for number in range(4):
        annotate(tmp_path / "lists", f"id0001{number}", f"longvideo{number}")
    for seed, path in enumerate(sorted({p.parent for p in (tmp_path / "lists").glob("*/*/*")})):
        make_video(tmp_path / "mirror" / f"{path.name}.mp4", frames=16, side=64, seed=seed)
    monkeypatch.setattr(detectors, "load", lambda *_: Faces())
    root.mkdir()
    monkeypatch.chdir(root)
    (root / "takedowns.csv").write_text(HEADER)
    (tmp_path / "lists").rename(root / "metadata")
    names = ("data", "work", "metrics", "cards")
    loose = {"min_sharpness": 0.0, "min_overlap": 0.0, "max_yaw": 180.0, "max_pitch": 180.0}
    made = make_params(
        paths={name: name for name in names},
        catalog={"metadata": "metadata", "takedowns": "takedowns.csv", "split": {"val": 0.0}},
        download={"mirror": str(tmp_path / "mirror")},
        crop={"size": 32, "min_face": 0, "min_frames": 1, "scene_threshold": 0.0},
        landmarks=loose | {"max_roll": 180.0, "backend": "mediapipe"},
        shard={"clips": 1, "frames": 3},
    )
    subprocess.run(["git", "init", "--quiet"], check=True)
    for words in (["init", "-q"], ["remote", "add", "-q", "--default", "far", "../store"]):
        assert dvc(words) == 0
    return made


def rebuild(params: Params) -> dict[str, str]:
    """Run every stage and hand the outs to DVC and its remote; sha256 of every tar."""
    catalog.build(params)
    for stage in (download, crop, landmarks, shard):
        engine.run(stage.prepare(params))
    card.build(params)
    manifests = sorted(str(path) for path in Path("data").glob("*.parquet"))
    assert dvc(["add", "-q", "data/shards", *manifests]) == 0
    assert dvc(["push", "-q"]) == 0
    subprocess.run(["git", "add", "."], check=True)
    name = ["-c", "user.name=x", "-c", "user.email=x@y"]
    subprocess.run(["git", *name, "commit", "--quiet", "-m", "rebuilt"], check=True)
    return {path.name: storage.sha256(path) for path in Path("data/shards").rglob("*.tar")}


def files_with(*needles: bytes) -> set[str]:
    """The plainest search of all: it shares nothing with the tool's."""
    every = [p for root in (Path(), Path("../store")) for p in root.rglob("*") if p.is_file()]
    found = {p for p in every if any(needle in p.read_bytes() for needle in needles)}
    return {p.parts[0] for p in found if ".git" not in p.parts}


def test_the_whole_way(
    project: Params, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under git and DVC: only their tars change, and in the end no byte of theirs is left."""
    before = rebuild(project)
    clips = pq.read_table("data/index.parquet").to_pylist()
    theirs = [clip for clip in clips if clip["person"] == LEAVER]
    held_by = {f"{clip['shard']}.tar" for clip in theirs}
    assert len(theirs) == 3
    assert held_by < before.keys()
    frames = []
    for clip in theirs:
        tar = Path("data/shards", clip["split"], f"{clip['shard']}.tar").read_bytes()
        for at, size in zip(clip["frame_offsets"], clip["frame_sizes"], strict=True):
            frames.append(tar[at + size // 2 :][:32])
    assert files_with(*frames) == {"data", ".dvc", ".."}

    Path("params.yaml").write_text(project.model_dump_json(exclude_none=True))
    assert main(["--person", LEAVER]) == 0
    assert "dvc gc --workspace --cloud --remote far" in capsys.readouterr().out
    after = rebuild(project)
    assert {name for name in before if after.get(name) != before[name]} == held_by
    inforce = requests.read("takedowns.csv")

    def remain() -> set[str]:
        found = check.check(project, Path(), inforce, whose(project, inforce)).findings
        return {f.remedy for f in found}

    gc = "run `dvc gc --workspace` once `dvc repro` has ended"
    assert remain() == {gc, "run `dvc gc --workspace --cloud --remote far`"}
    assert dvc(["gc", "-q", "-w", "-f"]) == 0
    assert remain() == {"run `dvc gc --workspace --cloud --remote far`"}
    with monkeypatch.context() as patch:  # a remote that is no folder is asked for old manifests
        patch.setattr(check.repository, "folder_of", lambda remote: None)
        assert remain() == {"run `dvc gc --workspace --cloud --remote far`"}
        assert dvc(["gc", "-q", "-w", "-f", "-c", "-r", "far"]) == 0
        assert remain() == set()
    capsys.readouterr()
    assert main(["--check"]) == 0
    said = capsys.readouterr().out
    assert "nothing remains" in said
    assert "git's history names them in" in said
    assert LEAVER not in said
    assert OWN not in said

    assert files_with(LEAVER.encode(), OWN.encode()) == {"takedowns.csv", "metadata"}
    assert files_with(*frames) == set()
    assert len(pq.read_table("data/index.parquet")) == len(clips) - 3
    numbers = json.loads(Path("metrics/card.json").read_text())
    assert numbers["clips"] == len(clips) - 3
    assert numbers["excluded"] == 3
    shared = next(clip for clip in clips if clip["person"] == FRIEND)
    assert f"{shared['shard']}.tar" in after
    assert verify(project)["clips"] == len(clips) - 3
