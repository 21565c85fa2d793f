"""What is damaged, missing or full: told in one line, and nothing good is lost."""

from __future__ import annotations

import errno
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny_run import STEPS, Killed, damage_a_picture, losses, params_of, run_of, trained_events
from tiny_shards import MakeShards, Shards

from pipelines.errors import StopStage, UserError
from pipelines.schemas import INDEX
from training import tensor_file, trained
from training.events import Started, Stopped
from training.meta import MetaLearner, Reducer
from training.meta_train import prepare


def test_a_damaged_newest_checkpoint_is_passed_over(shards: Shards) -> None:
    run = run_of(shards)
    expected = losses(trained_events(run))
    newest = Path(run.folder, "checkpoints", f"step-{STEPS:09d}.safetensors")
    newest.write_bytes(newest.read_bytes()[:-100])
    events = trained_events(run)
    assert isinstance(events[0], Started) and events[0].step == 9
    assert len(events[0].notes) == 1 and newest.name in events[0].notes[0]
    assert losses(events) == {10: expected[10]}


def test_when_all_checkpoints_are_damaged_it_stops(shards: Shards) -> None:
    run = run_of(shards)
    trained_events(run)
    for checkpoint in Path(run.folder, "checkpoints").iterdir():
        checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    [stopped] = trained_events(run)
    assert isinstance(stopped, Stopped) and stopped.mistake
    assert f"checkpoint there is damaged, the newest of step {STEPS}" in stopped.why


def test_a_disk_that_does_not_answer_is_no_damage(
    shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(shards)
    trained_events(run)

    def stale(*_: object, **__: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(tensor_file, "safe_open", stale)
    [stopped] = trained_events(run)
    assert isinstance(stopped, Stopped) and "Stale file handle" in stopped.why
    monkeypatch.undo()
    started = trained_events(run)[0]
    assert isinstance(started, Started) and started.step == STEPS


def test_a_full_quota_ends_the_run_as_a_full_disk_does(
    shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise tensor_file.SafetensorError("I/O error: Disk quota exceeded (os error 122)")

    monkeypatch.setattr(tensor_file, "save_file", full)
    stopped = trained_events(run_of(shards))[-1]
    assert isinstance(stopped, Stopped) and not stopped.mistake
    assert "no checkpoint could be saved (Disk quota exceeded)" in stopped.why


def test_what_a_killed_worker_left_half_written_goes(shards: Shards) -> None:
    run = run_of(shards)
    folder = Path(run.folder, "checkpoints")
    folder.mkdir(parents=True)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = folder / f".tmp-{socket.gethostname()}-{gone.pid}-0123abcd.safetensors"
    left.touch()
    trained_events(run)
    assert not left.exists()


def test_where_the_machine_is_not_fit_nothing_begins(shards: Shards) -> None:
    def check() -> None:
        raise UserError("another folder")

    assert trained_events(run_of(shards), check=check) == [Stopped("another folder", True)]


@pytest.mark.parametrize("changes", [{}, {"loader": "stream"}], ids=["mmap", "stream"])
def test_a_damaged_picture_ends_the_run_and_is_named(
    make_shards: MakeShards, changes: dict[str, Any]
) -> None:
    shards = make_shards()
    tar = damage_a_picture(shards)
    stopped = trained_events(run_of(shards, **changes))[-1]
    assert isinstance(stopped, Stopped) and stopped.mistake
    assert tar in stopped.why and stopped.why.endswith("is no whole JPEG: make its shard anew")


@pytest.mark.parametrize("changes", [{}, {"loader": "stream"}], ids=["mmap", "stream"])
def test_in_a_loader_s_process_in_the_same_words(
    make_shards: MakeShards, changes: dict[str, Any]
) -> None:
    shards = make_shards()
    tar = damage_a_picture(shards)
    run = run_of(shards, **changes)
    here, there = (trained_events(replace(run, loader_workers=n))[-1] for n in (0, 1))
    assert isinstance(there, Stopped) and there == here
    assert re.match(rf"\S*{re.escape(tar)}", there.why), "begins with what is damaged"


def test_held_out_tars_that_are_missing_are_told(make_shards: MakeShards) -> None:
    shards = make_shards()
    rows = pq.read_table(shards.index).to_pylist()
    held_out = [
        row | {"split": "val", "shard": row["shard"].replace("train", "val")} for row in rows
    ]
    pq.write_table(pa.Table.from_pylist(rows + held_out, schema=INDEX), shards.index)
    stopped = trained_events(run_of(shards))[-1]
    assert isinstance(stopped, Stopped) and "is missing, as the index says" in stopped.why


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda s: s.tar(0).unlink(), "is missing, as the index says"),
        (lambda s: s.tar(0).write_bytes(b"x"), "has 1 bytes, not"),
        (lambda s: s.index.unlink(), "no such file; `dvc repro shard`"),
    ],
)
def test_what_shards_lack_is_one_line(
    shards: Shards, break_it: Callable[[Shards], None], words: str
) -> None:
    run = run_of(shards)
    break_it(shards)
    [stopped] = trained_events(run)
    assert isinstance(stopped, Stopped) and stopped.mistake and words in stopped.why


def test_k_larger_than_a_video_has_frames(shards: Shards) -> None:
    [stopped] = trained_events(run_of(shards, k=9, few_frames="error"))
    assert isinstance(stopped, Stopped) and "take a smaller K" in stopped.why
    [stopped] = trained_events(run_of(shards, k=50))
    assert isinstance(stopped, Stopped) and "has the 51 frames of K = 50" in stopped.why


def test_a_damaged_index_stops_before_ray_starts(shards: Shards) -> None:
    params = params_of(shards)
    Path(shards.index).write_bytes(Path(shards.index).read_bytes()[:-50])
    with pytest.raises(UserError, match=r"index.parquet is not a readable manifest .*rerun"):
        prepare(params)


def test_a_diverging_run_stops_and_says_what_to_do(shards: Shards) -> None:
    events = trained_events(run_of(shards, content={"pixels": {"weight": 1e39}}))
    assert isinstance(events[-1], Stopped) and not events[-1].mistake
    assert "lower the learning rates" in events[-1].why


def test_a_full_disk_while_saving_keeps_the_checkpoints_before(
    shards: Shards, tmp_path: Path
) -> None:
    """A real one: a small file system that takes one checkpoint and not the second."""
    folder = tmp_path / "small"
    folder.mkdir()
    run = replace(run_of(shards), folder=str(folder))
    expected = losses(trained_events(replace(run, folder=str(tmp_path / "undisturbed"))))
    size = Path(tmp_path, "undisturbed", "checkpoints", "step-000000010.safetensors").stat().st_size
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size * 5 // 4 // 1024}k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a small disk here")
    try:
        events = trained_events(run)
        assert isinstance(events[-1], Stopped) and not events[-1].mistake
        assert "no checkpoint could be saved" in events[-1].why and "make room" in events[-1].why
        assert [p.name for p in Path(folder, "checkpoints").iterdir()] == [
            "step-000000003.safetensors"
        ]
        more = ["mount", "-o", f"remount,size={size * 9 // 1024}k", str(folder)]
        subprocess.run(more, check=True)
        events = trained_events(run)
        assert losses(events) == {n: v for n, v in expected.items() if n > 3}
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_gpu_stops_and_says_what_to_do(
    shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(learner: MetaLearner, batch: object) -> dict[str, float]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nSee more")

    monkeypatch.setattr(MetaLearner, "step", step)
    stopped = trained_events(run_of(shards))[-1]
    assert isinstance(stopped, Stopped)
    assert stopped.why.startswith("CUDA out of memory. Tried to allocate 2 GiB. Raise meta.accum")
    assert "\n" not in stopped.why


def test_one_of_several_gpus_that_is_full_ends_its_worker(
    shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may not speak: the others stand in the exchange of gradients."""

    class Apart(Reducer):
        said: ClassVar[list[float]] = []

        def mean_(self, tensors: Sequence[torch.Tensor]) -> None:
            self.said.extend(tensor.sum().item() for tensor in tensors)

    def step(learner: MetaLearner, batch: object) -> dict[str, float]:
        Apart.said.clear()
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nSee more")

    monkeypatch.setattr(MetaLearner, "step", step)
    with pytest.raises(StopStage, match=r"Tried to allocate 2 GiB\. Raise meta\.accumulate"):
        trained_events(run_of(shards), world=2, rank=1, reducer=Apart())
    assert Apart.said == []


@pytest.mark.parametrize("full", [True, False])
def test_a_model_that_could_not_be_saved_is_never_taken_for_the_older_one(
    shards: Shards, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    """The last checkpoint is there, the model beside it is that of fewer epochs."""
    run = run_of(shards, epochs=2)
    trained_events(run)
    longer = run_of(shards, epochs=4)
    assert longer.model == run.model

    def fails(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device") if full else Killed

    with monkeypatch.context() as patch:
        patch.setattr(trained, "save_model", fails)
        if full:
            stopped = trained_events(longer)[-1]
            assert isinstance(stopped, Stopped) and not stopped.mistake
            assert f"{run.model}: no model could be saved (No space left" in stopped.why
        else:
            with pytest.raises(Killed):
                trained_events(longer)
    assert trained.load_model(run.model).facts["step"] == 5
    events = trained_events(longer)
    assert isinstance(events[0], Started) and events[0].step == 10, "nothing is left to train"
    assert trained.load_model(run.model).facts["step"] == 10


def test_a_damaged_model_is_made_again_and_a_new_name_reaches_it(shards: Shards) -> None:
    run = run_of(shards)
    trained_events(run)
    whole = Path(run.model).read_bytes()
    Path(run.model).write_bytes(whole[:1000])
    trained_events(run)
    assert Path(run.model).read_bytes() == whole
    renamed = run_of(shards, about="another name")
    trained_events(renamed)
    assert trained.load_model(renamed.model).facts["setting"]["about"] == "another name"
