"""Progress: counts from several processes, a stderr without chatter, and plain summaries."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from pipelines import progress
from pipelines.progress import Reporter, stop_reason
from pipelines.statuses import Status
from pipelines.summary import Summary

CHATTER = [
    "INFO:apache_beam.runners.worker: started",
    "WARNING:apache_beam.options.pipeline_options: unparseable args",
    "WARNING:root:apitools not installed",
    "W0000 00:00:1700000000.1 gl_context.cc:1] quiet",
    "I1123 01:02:03.4 thread pool",
    "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.",
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "x.py:1: UserWarning: SymbolDatabase.GetPrototype() is deprecated. Please use",
    "  warnings.warn('SymbolDatabase.GetPrototype() is deprecated. Please '",
]
WORTH = [
    "Traceback (most recent call last):",
    "ValueError: INFO: inside",
    "WARNING:pipelines.crop: odd",
    "ERROR:apache_beam: failed",
    "Killed",
]


def test_counts_add_up_over_processes_and_half_lines_wait(tmp_path: Path) -> None:
    counts = progress._Counts(tmp_path)
    assert counts.update() == 0
    Reporter(str(tmp_path)).item(Counter({Status.OK: 3, Status.REMOVED: 1}))
    (tmp_path / "7.log").write_text("ok=2\nnetwo")
    assert counts.update() == 6
    assert counts.update() == 6
    with (tmp_path / "7.log").open("a") as file:
        file.write("rk=1\n\nok=1\n")
    assert counts.update() == 8
    assert counts.statuses == {"ok": 6, "removed": 1, "network": 1}
    assert counts.words() == "ok 6 removed 1 network 1"


def test_a_remote_worker_reports_nowhere() -> None:
    reporter = Reporter(None)
    reporter.item(Counter(ok=1))
    reporter.stop("why")
    assert stop_reason(None) is None


def test_the_reason_to_stop_reaches_the_driver(tmp_path: Path) -> None:
    assert stop_reason(str(tmp_path)) is None
    Reporter(str(tmp_path)).stop("the disk is full")
    assert stop_reason(str(tmp_path)) == "the disk is full"


def test_chatter_is_dropped_and_the_rest_passes(capfd: pytest.CaptureFixture[str]) -> None:
    with progress.watch("crop", "clips", 1, local=True):
        for line in (*CHATTER, *WORTH):
            os.write(2, f"{line}\n".encode())
        subprocess.run(
            [sys.executable, "-c", "import os; os.write(2, b'INFO:child\\nfrom a child\\n')"],
            check=True,
        )
        os.write(2, b"no newline at the end")
    os.write(2, b"\nINFO:after\n")
    assert capfd.readouterr().err.splitlines() == [
        *WORTH,
        "from a child",
        "no newline at the end",
        "INFO:after",
    ]


def test_after_a_stop_was_told_tracebacks_are_dropped(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_HELD", 0.05)
    with progress.watch("crop", "clips", 1, local=True) as folder:
        os.write(2, b"before\n")
        time.sleep(0.2)
        Reporter(folder).stop("full")
        os.write(2, b"Traceback (most recent call last):\n")
    assert capfd.readouterr().err == "before\n"


def test_the_folder_of_reports_goes_even_when_the_run_fails() -> None:
    with pytest.raises(RuntimeError), progress.watch("crop", "clips", 1, local=True) as folder:
        assert folder is not None
        raise RuntimeError
    assert not Path(str(folder)).exists()
    with progress.watch("crop", "clips", 1, local=False) as nowhere:
        assert nowhere is None


def test_a_child_that_outlives_the_run_writes_into_no_file_of_ours(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    join = threading.Thread.join
    monkeypatch.setattr(threading.Thread, "join", lambda self, timeout=None: join(self, 0.1))
    monkeypatch.setattr(progress, "_HELD", 0.05)
    with progress.watch("crop", "clips", 1, local=True):
        child = subprocess.Popen(
            [sys.executable, "-c", "import os; input(); os.write(2, b'late words\\n')"],
            stdin=subprocess.PIPE,
        )
    files = [(tmp_path / str(n)).open("wb") for n in range(20)]  # take the numbers set free
    child.communicate(b"\n")
    time.sleep(0.2)
    for file in files:
        file.close()
    assert all((tmp_path / str(n)).read_bytes() == b"" for n in range(20))
    assert capfd.readouterr().err == "late words\n"


def test_lines_without_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_EVERY", 0.02)
    Reporter(str(tmp_path)).item(Counter(ok=2, removed=1))
    ended, sink = threading.Event(), io.StringIO()
    threading.Timer(0.1, ended.set).start()
    counts = progress._Counts(tmp_path)
    progress._print_lines(Console(file=sink), "crop", "clips", 6, counts, ended)
    line = sink.getvalue().splitlines()[0]
    assert line.startswith("crop: 3/6 clips, ")
    assert line.endswith(" s left (ok 2 removed 1)")


def test_a_bar_on_a_terminal(tmp_path: Path) -> None:
    Reporter(str(tmp_path)).item(Counter(ok=2))
    ended, sink = threading.Event(), io.StringIO()
    ended.set()
    console = Console(file=sink, force_terminal=True, width=120)
    progress._draw_bar(console, "crop", "clips", 2, progress._Counts(tmp_path), ended)
    assert "2/2" in sink.getvalue()
    assert "ok 2" in sink.getvalue()


def test_work_in_process_is_silent_without_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with progress.simple("verify", "clips", 3) as tick:
        tick(3)
    assert capfd.readouterr().err == ""


def test_the_summary_puts_ok_first_and_tells_what_to_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    statuses = Counter({"removed": 5, "ok": 2, "throttled": 3})
    progress.show_summary(
        Summary("download", "videos", statuses, rows=10, items=10, done_before=4, seconds=1.5)
    )
    out = capsys.readouterr().out
    assert out.startswith("download: 10 videos in 1.5 s")
    places = [out.index(word) for word in ("ok ", "removed", "throttled")]
    assert places == sorted(places)
    assert "50.0%" in out
    assert "mirror" in out
    assert "4 of 10 items were already done and kept." in out


def test_complaints_are_a_line_a_problem(capsys: pytest.CaptureFixture[str]) -> None:
    progress.complain("one\ntwo")
    assert capsys.readouterr().err == "likeness: one\nlikeness: two\n"


def test_without_a_terminal_long_work_says_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with progress.simple("follow", "frames", 500) as advance:
        advance(250)
        assert capsys.readouterr().err == ""
        monkeypatch.setattr(progress, "SIMPLE_EVERY", 0.0)
        advance(10)
    assert re.fullmatch(r"follow: 260/500 frames, [0-9.]+/s\n", capsys.readouterr().err)
