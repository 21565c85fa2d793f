"""What all commands share: how errors end them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
WORDS = "for number in range(100_000): print(number)"
TABLES = "for number in range(20_000): progress.Page(width=80).print(number)"
BROKEN = "raise BrokenPipeError(32, 'Broken pipe')"


@pytest.mark.parametrize(
    ("body", "reader", "code", "said"),
    [
        (WORDS, "head -1", 141, ""),
        (TABLES, "head -1", 141, ""),
        # Of a store or a worker, not of who reads: never a success.
        (BROKEN, "cat", 1, "likeness: a file: Broken pipe\n"),
    ],
)
def test_a_broken_pipe_is_a_failure_unless_it_is_the_reader_s(
    body: str, reader: str, code: int, said: str
) -> None:
    program = (
        "import sys\nfrom pipelines import progress\nfrom pipelines.command import guarded\n"
        f"def command():\n    {body}\n    return 0\nsys.exit(guarded(command))"
    )
    line = f'{sys.executable} -c "$PROGRAM" | {reader}; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", line],
        env={"PROGRAM": program, "PYTHONPATH": str(REPO), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (code, said)


def signalled(*words: str, number: int, cwd: Path) -> tuple[int, str]:
    """Exit status and stderr of a Python program, signalled once it has printed `ready`."""
    process = subprocess.Popen(
        [sys.executable, *words],
        env={"PYTHONPATH": str(REPO), "PATH": "/usr/bin:/bin", "PYTHONUNBUFFERED": "1"},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


WAITS = """
import sys, tempfile, time
from pipelines.command import NOTHING_KEPT, guarded
def command():
    with tempfile.TemporaryDirectory(dir="."):
        print("ready"); time.sleep(60)
    return 0
sys.exit(guarded(command, NOTHING_KEPT))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_kill_clean_up_alike(tmp_path: Path, number: int, code: int) -> None:
    said = "likeness: interrupted; nothing was written\n"
    assert signalled("-c", WAITS, number=number, cwd=tmp_path) == (code, said)
    assert not list(tmp_path.iterdir())


def test_ctrl_c_while_libraries_are_imported_is_one_line(tmp_path: Path) -> None:
    for package in ("pipelines", "training"):
        module = tmp_path / package / "slow.py"
        module.parent.mkdir()
        real = (REPO / package / "__init__.py").read_text()
        (module.parent / "__init__.py").write_text(f"{real}\n__path__.append('{REPO / package}')\n")
        module.write_text("import time\nprint('ready')\ntime.sleep(60)\n")
        found = signalled("-m", f"{package}.slow", number=signal.SIGINT, cwd=tmp_path)
        assert found == (130, "likeness: interrupted\n")
