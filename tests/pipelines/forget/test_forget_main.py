"""The command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from leaver import HEADER, LEAVER, OWN

from pipelines.command import joined
from pipelines.forget.__main__ import main, parser
from pipelines.params import Params


def test_an_id_may_look_like_an_option(params: Params, params_file: Callable[..., str]) -> None:
    words = ["--video", "-x", "--clip", "--aB3", "--check"]
    assert joined(parser(), words) == ["--video=-x", "--clip=--aB3", "--check"]
    # An option that was forgotten an id for is no id: it would be taken out without a word.
    for word in ("--check", "--"):
        assert joined(parser(), ["--person", word]) == ["--person", word]
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


@pytest.mark.parametrize("words", [["--person", "id00001"], ["--again"], ["--check"]])
def test_a_broken_dvc_repository_stops_it_before_anything_is_written(
    params: Params,
    params_file: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
) -> None:
    """As a download of the project has it: DVC's folder, and no git."""
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("")
    Path(params.catalog.takedowns).write_text(f"{HEADER}person,{LEAVER},,\n")
    before = Path(params.catalog.takedowns).read_text()
    assert main(["--params", params_file(params), *words]) == 2
    assert "DVC cannot open the repository" in capsys.readouterr().err
    assert Path(params.catalog.takedowns).read_text() == before
    assert not (tmp_path / "forgotten.json").exists()
