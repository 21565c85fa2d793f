"""The vocabulary of statuses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines import statuses
from pipelines.params import MANIFESTS
from pipelines.statuses import FAILURES, STATUS, TRANSIENT, Status, parse_statuses


def test_every_status_says_its_stage_meaning_and_remedy() -> None:
    assert list(STATUS) == list(Status)
    for status, info in STATUS.items():
        assert re.fullmatch(r"[a-z_]+", status)
        assert all(text.endswith(".") for text in (info.meaning, info.remedy))
        stages = set(info.stage.split(", "))
        assert stages <= {*MANIFESTS, "every stage"}


def test_remedies_name_keys_of_params_yaml_that_exist() -> None:
    from pipelines.params import Params

    for info in STATUS.values():
        for section, key in re.findall(r"`([a-z]+)\.([a-z_]+)`", info.meaning + info.remedy):
            if f"{section}.{key}" != "params.yaml":
                assert key in Params.model_fields[section].annotation.model_fields


def test_remedies_name_retries_that_parse() -> None:
    for info in STATUS.values():
        for words in re.findall(r"--retry ([a-z_,]+)", info.remedy):
            assert parse_statuses(words.split(","))


def test_what_a_person_wanted_is_no_failure() -> None:
    assert set(Status) - {Status.OK, Status.FILTERED, Status.EXCLUDED} == FAILURES
    assert TRANSIENT < FAILURES


def test_words_for_statuses() -> None:
    assert parse_statuses([]) == frozenset()
    assert parse_statuses(["transient"]) == TRANSIENT
    assert parse_statuses(["failed"]) == FAILURES
    assert parse_statuses(["removed", "private"]) == {Status.REMOVED, Status.PRIVATE}
    assert parse_statuses(["transient", "removed"]) == TRANSIENT | {Status.REMOVED}


@pytest.mark.parametrize("word", ["ok", "OK", "remove", "", "everything"])
def test_an_unknown_status_is_answered_with_the_known_ones(word: str) -> None:
    with pytest.raises(ValueError, match=r"use transient, failed or any of: .*geo_blocked"):
        parse_statuses([word])


def test_the_command_writes_the_readme_s_table_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("a\n<!-- statuses: x -->\nold\n<!-- end -->\nb\n")
    monkeypatch.setattr(statuses, "README", readme)
    before = readme.read_text()
    with pytest.raises(SystemExit, match="0"):
        statuses.main(["--help"])
    assert "table of statuses of README.md" in capsys.readouterr().out.replace("\n", " ")
    assert readme.read_text() == before
    assert statuses.main([]) == 0
    assert capsys.readouterr().out == "wrote README.md\n"
    assert readme.read_text() == before.replace("old", statuses.readme_table())
