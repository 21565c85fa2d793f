"""`--retry`: what is done again, and what nothing would come of."""

from __future__ import annotations

from collections import Counter

import pytest
from toy_folder import Toy

from pipelines import engine
from pipelines.summary import Summary, exit_status


def test_retry_redoes_the_statuses_asked_for_and_deferred_always(
    toy: Toy, without_beam: list[list[str]]
) -> None:
    statuses = ("ok", "removed", "network", "throttled", "deferred", "excluded")
    toy.plan(**{status: status for status in statuses})
    toy.main()
    toy.calls()
    for words, redone in [
        ([], ["deferred"]),
        (["--retry", "removed"], ["removed", "deferred"]),
        (["--retry", "removed,excluded"], ["removed", "deferred", "excluded"]),
        (["--retry", "removed", "--retry", "network"], ["removed", "network", "deferred"]),
        (["--retry", "transient"], ["network", "throttled", "deferred"]),
        (["--retry", "failed"], ["removed", "network", "throttled", "deferred"]),
    ]:
        toy.main(*words)
        assert toy.calls() == redone
    toy.plan(**dict.fromkeys(statuses, "ok"))
    toy.main("--retry", "failed")
    assert Counter(status for _, status in toy.rows()) == {"ok": 5, "excluded": 1}


def test_an_unknown_status_to_retry_is_one_line(
    toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.plan(a="ok")
    assert toy.main("--retry", "remved") == 2
    assert capsys.readouterr().err.startswith("likeness: --retry: unknown status 'remved'; use ")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("", "name statuses, transient or failed"),
        (",", "name statuses, transient or failed"),
        ("too_small", "download never gives too_small; pipelines.crop does"),
        ("removed,no_face", "download never gives no_face; pipelines.landmarks does"),
    ],
)
def test_a_retry_that_would_do_nothing_is_one_line(
    toy: Toy,
    without_beam: list[list[str]],
    capsys: pytest.CaptureFixture[str],
    words: str,
    line: str,
) -> None:
    toy.plan(a="removed")
    assert toy.main("--retry", words) == 2
    assert capsys.readouterr().err == f"likeness: --retry: {line}\n"
    assert without_beam == []


def test_statuses_of_every_stage_and_groups_are_retried_by_all() -> None:
    for stage in ("download", "crop", "landmarks", "shard"):
        engine.check_given(stage, ["internal_error,transient", "failed"])
    with pytest.raises(engine.UserError, match="crop never gives excluded; "):
        engine.check_given("crop", ["excluded"])


def test_the_catalog_is_told_of_its_own_key_and_of_no_retry() -> None:
    for stage, there, absent in (
        ("catalog", "catalog.max_bad allows (10%)", "--retry"),
        ("crop", "crop.max_failed allows (10%)", "max_bad"),
    ):
        summary = Summary(stage, "clips", Counter(ok=1, bad_annotation=1), rows=2)
        code, why = exit_status(summary, 0.1)
        assert code == 3
        assert there in why and absent not in why
    assert "use --retry" in why


def test_a_stage_with_deferred_videos_is_not_done() -> None:
    """Or DVC would keep it as it is, and `dvc repro` never ask for them."""
    summary = Summary("download", "videos", Counter(ok=9, deferred=1), rows=10)
    code, why = exit_status(summary, 0.5)
    assert code == 3 and "1 of 10 videos were not asked for" in why
    assert exit_status(summary, 1.0) == (0, "")
