from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipelines import storage
from training.checkpoint import Checkpoints


def state(step: int) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((4,), float(step))}


@pytest.fixture(params=["local", "object store"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else f"memory://{tmp_path}"


def test_the_newest_are_kept_and_the_newest_whole_one_is_read(run: str, tmp_path: Path) -> None:
    checkpoints = Checkpoints(run, keep=3)
    assert checkpoints.newest(tmp_path, pytest.fail) is None
    for step in (10, 20, 30, 40):
        checkpoints.save(step, state(step), {"name": "x"})
    assert checkpoints.steps() == [40, 30, 20]
    newest = checkpoints.newest(tmp_path, pytest.fail)
    assert newest and newest.step == 40 and newest.facts["name"] == "x"
    assert torch.equal(newest.state["weight"], state(40)["weight"])

    url = storage.join(checkpoints.folder, "step-000000040.safetensors")
    storage.write_bytes(url, storage.read_bytes(url)[:-3])
    said: list[str] = []
    older = checkpoints.newest(tmp_path, said.append)
    assert older and older.step == 30 and torch.equal(older.state["weight"], state(30)["weight"])
    assert len(said) == 1 and "step-000000040" in said[0] and "passed over" in said[0]


def test_going_on_from_an_older_one_keeps_what_is_newer_until_it_is_passed(tmp_path: Path) -> None:
    """The damaged newest must not push out the good one that training goes on from."""
    checkpoints = Checkpoints(str(tmp_path), keep=2)
    for step in (10, 20, 40):
        checkpoints.save(step, state(step), {})
    checkpoints.save(30, state(30), {})
    assert checkpoints.steps() == [40, 30, 20]
    checkpoints.save(40, state(40), {})
    assert checkpoints.steps() == [40, 30]


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path), keep=2)
    note = tmp_path / "checkpoints" / "step-1.txt"
    note.parent.mkdir()
    note.write_text("mine")
    for step in range(5):
        checkpoints.save(step, state(step), {})
    assert checkpoints.steps() == [4, 3] and note.read_text() == "mine"
