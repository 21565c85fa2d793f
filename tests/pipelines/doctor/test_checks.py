"""Running the checks: none takes the doctor down."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.doctor import checks
from pipelines.doctor.__main__ import main
from pipelines.doctor.verdict import Verdicts, ok
from pipelines.errors import UserError
from pipelines.params import Params

MakeParams = Callable[..., Params]


def test_no_check_takes_the_doctor_down(make_params: MakeParams) -> None:
    def dies(params: Params) -> Verdicts:
        yield ok("before", "fine")
        raise ZeroDivisionError("at https://me:secret@host/x")

    def leaves(params: Params) -> Verdicts:
        sys.exit(3)
        yield

    def hangs(params: Params) -> Verdicts:
        time.sleep(30)
        yield ok("late", "never said")

    def mistaken(params: Params) -> Verdicts:
        yield ok("free", "75 GB")
        raise UserError("sample/metadata: no such folder")

    def unplugged(params: Params) -> Verdicts:
        raise OSError(5, "Unable to locate credentials", "s3://bucket/index.parquet")
        yield

    def works(params: Params) -> Verdicts:
        yield ok("works", "fine")

    chosen = [checks.Check("dies", dies), checks.Check("leaves", leaves)]
    chosen += [checks.Check("mistaken", mistaken)]
    chosen += [checks.Check("hangs", hangs, 0.1), checks.Check("unplugged", unplugged)]
    chosen += [checks.Check("works", works)]
    found = list(checks.run(make_params(), tuple(chosen)))
    assert [(v.name, v.level) for v in found] == [
        ("before", "ok"),
        ("dies", "fail"),
        ("leaves", "fail"),
        ("free", "ok"),
        ("mistaken", "fail"),
        ("hangs", "fail"),
        ("unplugged", "fail"),
        ("works", "ok"),
    ]
    assert "ZeroDivisionError" in found[1].words
    assert "secret" not in found[1].line()
    assert "no such folder" in found[4].words and "report" not in found[4].line()
    assert "0.1 s" in found[5].words
    assert "s3://bucket/index.parquet: Unable to locate credentials" in found[6].line()
    assert "report" not in found[6].line()


def test_every_check_runs_here(
    make_params: MakeParams,
    params_file: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    exit_codes: list[int],
) -> None:
    """The whole command: annotations are missing, the rest is well or can be lived with."""
    params = make_params(
        landmarks={"backend": "mediapipe"}, download={"url": "http://x/{video_id}"}
    )
    assert main(["--params", params_file(params)]) == 1
    said = capsys.readouterr().out.splitlines()
    failed = {line.split("  ")[1].strip() for line in said if line.startswith("fail")}
    assert failed <= {"annotations", "space", "weights"}
    assert "annotations" in failed
    assert all(line.split(" ")[0] in ("ok", "warn", "fail") for line in said[:-1])
    assert said[-1].startswith("doctor: ")
    assert not list(tmp_path.glob("work/*")), "a check leaves nothing behind"
