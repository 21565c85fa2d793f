"""The stages under DVC: a real repository with the tiny corpus, a cache and a remote."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rig import REPO, STAGES, Rig, Run, stamps

from pipelines.sample.corpus import Corpus

pytest.importorskip("dvc")
LAST = "card" if (REPO / "pipelines" / "card.py").exists() else "shard"


class Repository:
    """A rig that is a git and DVC repository."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        for name in ("pipelines", "training", "dvc.yaml", ".dvcignore", ".gitignore"):
            source = REPO / name
            if source.is_dir():
                # As a fresh checkout: what Python compiles later must not look like a change.
                fresh = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, rig.folder / name, ignore=fresh)
            else:
                shutil.copy(source, rig.folder)
        (rig.folder / ".dvc").mkdir()
        shutil.copy(REPO / ".dvc" / "config", rig.folder / ".dvc")
        self.command("git", "init", "--quiet").check()

    def command(self, *words: str) -> Run:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        kept = {"PATH": path, "GIT_CONFIG_GLOBAL": os.devnull, "DVC_NO_ANALYTICS": "1"}
        kept |= {"PYTHONPATH": str(self.rig.folder)}
        env = self.rig.environment() | kept
        process = subprocess.Popen(
            words,
            cwd=self.rig.folder,
            env={k: v for k, v in env.items() if k != "PYTHONDONTWRITEBYTECODE"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return self.rig.finish(process, timeout=240)

    def dvc(self, *words: str) -> str:
        return self.command(sys.executable, "-m", "dvc", *words).check().out

    def ran(self, output: str) -> list[str]:
        """The stages that a `dvc repro` ran."""
        return [line.split("'")[1] for line in output.splitlines() if "Running stage" in line]


@pytest.fixture(scope="module")
def repository(
    make_rig: Callable[..., Rig], tiny_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> Repository:
    folder = tmp_path_factory.mktemp("dvc")
    shutil.copytree(tiny_corpus.metadata, folder / "metadata")
    paths = {"data": "data", "work": "work", "metrics": "metrics", "cards": "dataset_cards"}
    rig = make_rig(folder, paths=paths)
    rig.change("catalog", metadata="metadata", takedowns="takedowns.csv")
    rig.change("landmarks", min_sharpness=1.0)
    return Repository(rig)


def test_repro(repository: Repository, undisturbed: Rig) -> None:
    """The whole way, then nothing, then only what a threshold decides."""
    rig = repository.rig
    stages = [*STAGES, "card"] if LAST == "card" else list(STAGES)
    assert repository.ran(repository.dvc("repro", LAST)) == stages
    assert rig.hashes("catalog", "download", "crop") == undisturbed.hashes(
        "catalog", "download", "crop"
    )
    assert list(rig.folder.glob("pipelines/sources/__pycache__"))
    assert repository.ran(repository.dvc("repro", LAST)) == []
    assert "up to date" in repository.dvc("status", *stages)
    # DVC knows the manifests and tars, and nothing of what is done per clip.
    tracked = repository.dvc("list", ".", "--dvc-only", "-R").split()
    known = {"data", "metrics", "models", "results"}
    assert {Path(name).parts[0] for name in tracked} <= known
    assert len(tracked) < 40

    points, crops = stamps(rig.work / "landmarks"), stamps(rig.work / "crops")
    tars = stamps(rig.data / "shards")
    assert points
    assert crops
    assert tars
    rig.change("landmarks", min_sharpness=2.0)
    again = repository.ran(repository.dvc("repro", LAST))
    assert again[0] == "landmarks"
    assert set(again) <= {"landmarks", "shard", "card"}
    assert stamps(rig.work / "landmarks") == points, "a threshold cost a detection"
    assert stamps(rig.work / "crops") == crops
    assert stamps(rig.data / "shards") == tars, "tars that are still right were written again"
    rig.run("verify").check()


def test_metrics_and_plots(repository: Repository) -> None:
    shown = repository.dvc("metrics", "show")
    for stage in STAGES:
        assert f"metrics/{stage}.json" in shown
    assert "Error" not in shown
    repository.dvc("plots", "show")
    assert (repository.rig.folder / "dvc_plots" / "index.html").is_file()


def test_push_and_pull(repository: Repository, undisturbed: Rig, tmp_path: Path) -> None:
    rig = repository.rig
    repository.dvc("remote", "add", "--default", "--local", "near", str(tmp_path / "remote"))
    repository.dvc("push")
    before = rig.hashes()
    shutil.rmtree(rig.data)
    shutil.rmtree(rig.folder / ".dvc" / "cache")
    repository.dvc("pull", "--allow-missing")  # nothing was trained yet
    assert rig.hashes() == before
    assert repository.ran(repository.dvc("repro", LAST)) == []


def test_a_killed_stage_goes_on_under_dvc(repository: Repository) -> None:
    """DVC deletes a stage's outs before it runs; what is done per item stays."""
    rig = repository.rig
    before, records = rig.hashes(), rig.records("crop")
    output = repository.dvc("repro", "--force", "--single-item", "crop")
    assert "4 of 4 items were already done" in output
    assert rig.records("crop") == records
    assert rig.hashes() == before


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_training_is_a_stage_and_settings_are_experiments(repository: Repository) -> None:
    pytest.importorskip("ray", reason="the extra `train`")
    rig = repository.rig
    rig.change("catalog", split={"val": 0.0})
    rig.params["settings"]["tiny"]["meta"] = {"lr_generator": 5e-5}
    rig.save()
    assert repository.ran(repository.dvc("repro", "meta_train"))[-1] == "meta_train"
    assert (rig.folder / "models" / "tiny.safetensors").is_file()
    assert repository.ran(repository.dvc("repro", "meta_train")) == []
    repository.command("git", "add", "--all", ".").check()
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    repository.command("git", *identity, "commit", "--quiet", "--message", "x").check()

    rate = "settings.tiny.meta.lr_generator"
    repository.dvc("exp", "run", "--name", "faster", "-S", f"{rate}=0.001", "meta_train")
    told = json.loads(repository.dvc("metrics", "diff", "HEAD", "--json"))
    content = told["metrics/training/metrics.json"]["content"]
    assert content["old"] > 0 and content["new"] > 0 and content["diff"] != 0
    assert len(list((rig.work / "runs").iterdir())) == 2
    assert "faster" in repository.dvc("exp", "show", "--csv")


@pytest.mark.parametrize("params", sorted((REPO / "params").glob("*.yaml")), ids=lambda p: p.stem)
def test_other_params_files_resolve(repository: Repository, params: Path, tmp_path: Path) -> None:
    shutil.copytree(repository.rig.folder / ".dvc", tmp_path / ".dvc", dirs_exist_ok=True)
    for name, source in (("dvc.yaml", REPO / "dvc.yaml"), ("params.yaml", params)):
        shutil.copy(source, tmp_path / name)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    listed = subprocess.run(
        [sys.executable, "-m", "dvc", "stage", "list", "--name-only"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert listed.returncode == 0, listed.stderr
    assert set(STAGES) <= set(listed.stdout.split())
