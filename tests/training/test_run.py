"""A run's name: what decides the result, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_run import params_of, run_of
from tiny_shards import Shards

from training import run as run_module
from training.run import Run, plan


def test_whatever_decides_the_result_makes_another_run(shards: Shards) -> None:
    other = params_of(shards)
    names = {
        run_of(shards).name,
        run_of(shards, seed=1).name,
        run_of(shards, meta={"lr_generator": 1e-3}).name,
        plan(other, other.settings[other.setting], "0" * 64).name,
    }
    assert len(names) == 4
    adapt = {"iterations": 7}
    assert run_of(shards, about="called otherwise", adapt=adapt).name == run_of(shards).name
    assert run_of(shards, adapt=adapt).facts == run_of(shards).facts
    assert run_of(shards, meta={"accumulate": 2}).name == run_of(shards, meta={}).name


def test_other_code_makes_another_run(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    before = run_of(shards).name
    seen: list[Path] = []
    monkeypatch.setattr(run_module, "source_digest", lambda files: seen.extend(files) or "other")
    assert run_of(shards).name != before
    assert {"meta.py", "losses.py", "episodes.py"} < {path.name for path in seen}


def test_an_address_decides_nothing_and_its_secrets_are_told_to_nobody(shards: Shards) -> None:
    def run(url: str) -> Run:
        return run_of(shards, content={"vgg19": {"weight": 1, "url": url, "sha256": "ab" * 32}})

    signed = run("https://me:hunter2@store.org/w/vgg19.pth?X-Amz-Signature=5ec2e7")
    assert signed.name == run("weights/vgg19.pth").name
    told = json.dumps(signed.facts)
    assert "https://store.org/w/vgg19.pth" in told
    assert "hunter2" not in told and "5ec2e7" not in told
