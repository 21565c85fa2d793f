"""Takedowns: taken out, counted, and not named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from eight_people import strings_of

from pipelines.errors import UserError
from pipelines.takedowns import read_takedowns


@pytest.mark.parametrize(
    ("line", "count", "names"),
    [
        ("person,id00001,2026-01-01,asked", 4, ["id00001", "a-01", "b-01"]),
        ("video,a-01,,", 2, ["a-01"]),
        ("clip,id00001_a-01_00002,,", 1, ["id00001_a-01_00002"]),
        ("clip,id00001/a-01/00002,,", 1, ["id00001_a-01_00002"]),
        (' Person , id00001 ,,"why, indeed"', 4, ["id00001"]),
    ],
)
def test_what_was_taken_out_is_counted_but_not_named(
    tree: Path, build: Callable[..., Any], line: str, count: int, names: list[str]
) -> None:
    rows = build(line)
    assert len(rows) == 32
    gone = [row for row in rows if row["status"] == "excluded"]
    assert len(gone) == len({row["key"] for row in gone}) == count
    text = strings_of(rows)
    assert not [name for name in names if name in text]
    for row in gone:
        told = {name for name, value in row.items() if value not in (None, "", False)}
        assert told == {"key", "source", "person", "video", "utterance", "status"}


def test_a_damaged_annotation_of_someone_taken_out_is_not_named_either(
    tree: Path, build: Callable[..., Any]
) -> None:
    (tree / "id00001" / "a-01" / "00001.txt").write_text("rubbish")
    (tree / "id00002" / "a-02" / "00001.txt").write_text("rubbish")
    rows = build("person,id00001,,", "clip,id00002_a-02_00001,,")
    assert "id00001" not in strings_of(rows)
    assert "id00002/a-02/00001" not in strings_of(rows)
    assert Counter(row["status"] for row in rows) == {"ok": 27, "excluded": 5}


def test_a_name_that_only_begins_alike_is_still_told(tree: Path, build: Callable[..., Any]) -> None:
    (tree / "id00001" / "a-01" / "00001.txt").write_text("rubbish")
    (bad,) = [row for row in build("person,id0000,,", "video,a-0,,") if row["status"] != "ok"]
    assert bad["status"] == "bad_annotation"
    assert "id00001/a-01/00001.txt" in bad["detail"]


@pytest.mark.parametrize(
    ("text", "number", "words"),
    [
        (b"", 1, "expected the header kind,id,date,reason"),
        (b"person,id1\n", 1, "expected the header"),
        (b"kind,id\npersn,id1\n", 2, "found 'persn', 'id1'; did you mean 'person'?"),
        (b"kind,id\nperson,id1\n\nvideo,\n", 4, "found 'video', ''"),
        (b"kind,id\nperson\n", 2, "found 'person', ''"),
        (b"kind,id\nvideo,https://youtu.be/abc\n", 2, "found 'video', 'https://youtu.be/abc'"),
        (b"kind,id\nperson,id 1\n", 2, "found 'person', 'id 1'"),
        (b'kind,id,date,reason\nperson,id1,,"open\nperson,id2,,\n', 2, "not a row of CSV"),
        (b"kind,id\nperson,id1\nperson,id\xff\n", 3, "not UTF-8 text"),
        (b"# people\nkind,id\n", 1, "expected the header"),
    ],
)
def test_a_takedown_that_cannot_be_read_stops_with_its_line(
    tmp_path: Path, text: bytes, number: int, words: str
) -> None:
    path = tmp_path / "takedowns.csv"
    path.write_bytes(text)
    with pytest.raises(UserError) as caught:
        read_takedowns(str(path))
    assert str(caught.value).startswith(f"{path}:{number}: ")
    assert words in str(caught.value)


def test_takedowns_in_the_forms_that_spreadsheets_write(tmp_path: Path) -> None:
    path = tmp_path / "takedowns.csv"
    path.write_bytes(
        '\ufeffkind,id,date,reason\r\nperson,id1,,"a, b"\r\n\r\nCLIP,p/v/u,,\r\n'.encode()
    )
    found = read_takedowns(str(path))
    assert set(found.lines) == {("person", "id1"), ("clip", "p_v_u")}


def test_a_missing_takedown_list_stops(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing; make it with the header line"):
        read_takedowns(str(tmp_path / "none.csv"))


def test_a_line_that_takes_nothing_out_is_told_without_its_name(
    tree: Path, build: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    build("person,id00002", "clip,id99006", "", "video,elsewhere9999")
    said = capsys.readouterr().err
    assert "takedowns.csv: lines 3, 5 take out nothing" in said and "kind and id right?" in said
    assert "id99006" not in said and "elsewhere" not in said
    # An id may be a person's and a video's: each line is its own.
    build("person,id00002", "video,id00002")
    assert "takedowns.csv: line 3 take out nothing" in capsys.readouterr().err
    build("person,id00002")
    assert "take out nothing" not in capsys.readouterr().err
