"""What a person sees of a run, and that nothing trains on unseen."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import StopStage
from training.events import Event, Saved, Started, Stepped

pytest.importorskip("dvclive", reason="the extra `train`")

from training.board import Board, read_history

STEPS = 12


def told(steps: int = STEPS) -> list[Event]:
    names = ("content", "generator", "discriminator")
    stepped = [Stepped(n, dict.fromkeys(names, 10.0 - n)) for n in range(1, steps + 1)]
    return [Started(0, STEPS, videos=5, batch=4), *stepped, Saved(steps)]


def nothing(folder: Path) -> None:
    """No repository at all."""


def empty_git(folder: Path) -> None:
    """Where everybody starts: `git init`, `dvc init`, and no commit yet."""
    pytest.importorskip("dvc.cli")
    subprocess.run(["git", "init", "--quiet"], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], check=True)


@pytest.mark.parametrize("place", [nothing, empty_git])
def test_curves_are_kept_wherever_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Callable[[Path], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    place(tmp_path)
    board = Board(Path("run"), Path("metrics/training"), "pixels")
    for event in told():
        board(event)
    board.close()
    assert board.step == STEPS and not board.stopped
    assert [line["step"] for line in read_history(Path("run/history.jsonl"))] == list(range(1, 13))
    metrics = json.loads(Path("metrics/training/metrics.json").read_text())
    # Five videos by four are two steps an epoch: one step's loss is mostly its batch's.
    assert (
        metrics["content"] == 10.0 - (2 * STEPS - 1) / 2
        and metrics["content_backbones"] == "pixels"
    )
    assert Path("metrics/training/plots/metrics/content.tsv").is_file()
    assert list(Path("run/tensorboard").iterdir())


def test_a_damaged_history_does_not_keep_a_run_from_going_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    first = Board(Path("run"), Path("metrics/training"), "pixels")
    for event in told():
        first(event)
    first.close()
    history = Path("run/history.jsonl")
    lines = history.read_bytes().splitlines(keepends=True)
    lines[3] = b"\xff\0" + lines[3][2:]
    lines[4] = b"7\n"
    history.write_bytes(b"".join(lines) + b"\0" * 64)
    again = Board(Path("run"), Path("metrics/training"), "pixels")
    kept = tuple(Stepped(n, {"content": 1.0}) for n in (9, 10))
    again(Started(10, STEPS, videos=5, batch=4, history=kept))
    again.close()
    left = {line["step"]: line["content"] for line in read_history(history)}
    assert sorted(left) == [1, 2, 3, 6, 7, 8, 9, 10], "what came after step 10 is undone"
    assert left[8] == 2.0 and left[9] == left[10] == 1.0
    assert "2 damaged lines" in capsys.readouterr().err


def test_a_full_disk_is_one_line_that_names_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A real one, shared by history, TensorBoard and whatever filled it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a small disk here")
    try:
        board = Board(folder / "run", Path("metrics/training"), "pixels")
        started, *steps = told(4000)
        board(started)
        with pytest.raises(StopStage, match=r"small/run: .*No space left.*checkpoints are kept"):
            for event in steps:
                board(event)
        with suppress(StopStage):
            board.close()
        assert "Traceback" not in capfd.readouterr().err
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class Queue:
    """Events that wait, as Ray's queue of the workers gives them."""

    def __init__(self, events: list[Event]) -> None:
        self.events, self.gone = events, False

    def qsize(self) -> int:
        return len(self.events)

    def get_nowait_batch(self, count: int) -> list[Event]:
        taken, self.events = self.events[:count], self.events[count:]
        return taken

    def shutdown(self, force: bool = False) -> None:
        self.gone = True


def test_all_events_are_shown_and_then_it_ends() -> None:
    pytest.importorskip("ray", reason="the extra `train`")
    from training.cluster import Listener

    shown: list[Event] = []
    queue: Any = Queue(told())
    listener = Listener(queue, shown.append, lambda: None)
    listener.start()
    listener.close()
    assert not listener.is_alive() and listener.error is None and not queue.gone
    assert shown == told()


def test_what_cannot_be_shown_ends_the_workers_and_is_told() -> None:
    """Else a full disk of the driver, or a fault in what draws, would leave a run unseen."""
    pytest.importorskip("ray", reason="the extra `train`")
    from training.cluster import Listener

    full = OSError(28, "No space left on device", "history.jsonl")

    def show(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 3:
            raise full

    queue: Any = Queue(told())
    stopped: list[bool] = []
    listener = Listener(queue, show, lambda: stopped.append(True))
    listener.start()
    listener.close()
    assert listener.error is full and stopped == [True] and not listener.is_alive()
