"""What all commands share: how errors end them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
WORDS = "for number in range(100_000): print(number)"
BROKEN = "raise BrokenPipeError(32, 'Broken pipe')"


@pytest.mark.parametrize(
    ("body", "reader", "code", "said"),
    [
        (WORDS, "head -1", 141, ""),
        # Of a store or a worker, not of who reads: never a success.
        (BROKEN, "cat", 1, "likeness: a file: Broken pipe\n"),
    ],
)
def test_a_broken_pipe_is_a_failure_unless_it_is_the_reader_s(
    body: str, reader: str, code: int, said: str
) -> None:
    program = (
        "import sys\nfrom pipelines.command import guarded\n"
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
