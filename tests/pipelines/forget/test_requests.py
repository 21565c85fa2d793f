"""The request: lines of takedowns.csv, and lists of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.errors import UserError
from pipelines.forget import requests
from pipelines.forget.requests import Request
from pipelines.takedowns import read_takedowns


def test_lines_are_added_and_all_others_kept(tmp_path: Path) -> None:
    path = tmp_path / "takedowns.csv"
    before = '\ufeffid, kind,reason,who,date\r\nid00009,person,"asked, twice",me,2020-01-01'
    path.write_bytes(before.encode())
    new = requests.request("video", "-QLb_x", "2026-11-23", "asked")
    again = requests.request("person", "id00009", "2026-11-23", "")
    assert requests.add(str(path), [new, again, new]) == [new]
    assert path.read_bytes() == (before + "\n-QLb_x,video,asked,,2026-11-23\n").encode()
    assert requests.add(str(path), [new]) == []
    assert [(r.kind, r.id, r.line) for r in requests.read(str(path))] == [
        ("person", "id00009", 2),
        ("video", "-QLb_x", 3),
    ]
    assert ("video", "-QLb_x") in read_takedowns(str(path)).lines
    assert [p.name for p in tmp_path.iterdir()] == ["takedowns.csv"]


@pytest.mark.parametrize(
    "reason",
    ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", 'a,"b"\nperson,id1', "\x00x\u2028y", "\r\t=1"],
)
def test_a_reason_is_one_plain_cell(tmp_path: Path, reason: str) -> None:
    path = str(tmp_path / "takedowns.csv")
    requests.add(path, [requests.request("person", "id1", "2026-11-23", reason)])
    text = Path(path).read_text()
    assert len(text.splitlines()) == 2
    assert text.splitlines()[1].split(",", 3)[3].strip('"')[0] not in "=+-@"
    assert requests.read(path) == [Request("person", "id1", 2)]


@pytest.mark.parametrize(
    ("kind", "name", "date", "words"),
    [
        ("persn", "id1", "2026-11-23", "did you mean 'person'"),
        ("video", "https://youtu.be/x", "2026-11-23", "not a link"),
        ("person", "../x", "2026-11-23", "letters"),
        ("person", "", "2026-11-23", "letters"),
        ("person", "id1", "23.11.2026", "YYYY-MM-DD"),
        (
            "clip",
            "id99006",
            "2026-11-23",
            "clip 'id99006': expected person_video_utterance; did you mean --person id99006",
        ),
        ("clip", "-abcdefghij", "2026-11-23", "did you mean --video -abcdefghij"),
        ("clip", "id1/00001", "2026-11-23", "person_video_utterance"),
        ("clip", "id1__", "2026-11-23", "person_video_utterance"),
    ],
)
def test_what_the_catalog_would_not_understand(kind: str, name: str, date: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        requests.request(kind, name, date, "")


def test_a_list(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("kind,id\n\nperson, id1\nclip,id2/v/00001,2020-02-02,why\n")
    found = requests.read_list(str(path), "2026-11-23", "all")
    assert found == [
        Request("person", "id1", 0, "2026-11-23", "all"),
        Request("clip", "id2_v_00001", 0, "2020-02-02", "why"),
    ]
    for text, words in (("person,a b\n", ":1: "), ("\n", "names nothing"), ('video,"x\n', ":2: ")):
        path.write_text(text)
        with pytest.raises(UserError, match=words):
            requests.read_list(str(path), "2026-11-23", "")
    with pytest.raises(UserError, match="no such file"):
        requests.read_list(str(tmp_path / "none"), "2026-11-23", "")
    with pytest.raises(UserError, match=f"--list {tmp_path}: is a folder"):
        requests.read_list(str(tmp_path), "2026-11-23", "")


@pytest.mark.parametrize("name", ["id1_-a_b--_00001", "id1/_a/00001", "a_b_c"])
def test_a_clip_is_named_by_its_whole_key(name: str) -> None:
    assert requests.request("clip", name, "2026-11-23", "").id == name.replace("/", "_")
