"""The command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from leaver import HEADER, LEAVER, OWN

from pipelines.forget.__main__ import joined, main
from pipelines.params import Params


def test_an_id_may_look_like_an_option(params: Params, params_file: Callable[..., str]) -> None:
    assert joined(["--video", "-x", "--clip", "--check", "--check"]) == [
        "--video=-x",
        "--clip=--check",
        "--check",
    ]
    assert main(["--params", params_file(params), "--video", OWN, "--person", "_x"]) == 0
    lines = Path(params.catalog.takedowns).read_text().splitlines()[1:]
    assert [line.split(",")[:2] for line in lines] == [["person", "_x"], ["video", OWN]]


@pytest.mark.parametrize(
    "words", [[], ["--check", "--again"], ["--person", "id1", "--check"], ["--video", "a/b"]]
)
def test_a_wrong_call_changes_nothing(
    params: Params, params_file: Callable[..., str], words: list[str]
) -> None:
    assert main(["--params", params_file(params), *words]) == 2
    assert Path(params.catalog.takedowns).read_text() == HEADER


def test_an_unknown_id_is_said_plainly(
    params: Params, params_file: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--params", params_file(params), "--person", "id99999"]) == 0
    assert "no annotation knows this person" in capsys.readouterr().err
    assert main(["--params", params_file(params), "--person", LEAVER]) == 0
    assert capsys.readouterr().err == ""


def test_nothing_to_look_for(params: Params, params_file: Callable[..., str]) -> None:
    assert main(["--params", params_file(params), "--check"]) == 0
