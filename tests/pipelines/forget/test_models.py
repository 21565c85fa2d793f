"""What was made of the forgotten."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from leaver import safetensors

from pipelines.forget.ledger import Held, Ledger, person
from pipelines.forget.models import Sight, told
from pipelines.forget.requests import Request
from pipelines.lineage import made

FIRST, SECOND = Request("person", "id1", 2), Request("person", "id2", 3)
OLD, NEW = "aa" * 32, "bb" * 32


def sight(current: str | None = None, **second: Any) -> Sight:
    """The first was in train of OLD; what is known of the second is given."""
    first = Held({(OLD, "train")}, files={(9, "f1")})
    book = Ledger({FIRST.digest: first, SECOND.digest: Held(**second)})
    return Sight([FIRST, SECOND], book, current)


def words(path: Path, facts: Any, known: Sight | None = None) -> str:
    return "; ".join(told(safetensors(path, facts), known or sight(without={OLD})))


def trained_on(digest: str, split: str = "train") -> dict[str, Any]:
    return {"dataset": {"index_sha256": digest, "split": split}}


def test_what_a_model_was_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    assert words(path, trained_on(OLD)) == "trained on data of the person of line 2"
    person = {"model": {"facts": trained_on(OLD)}, "parents": [{}]}
    assert words(path, person) == "trained on data of the person of line 2"
    assert words(path, {}) == "does not say what it was trained on"
    for junk in (b"", b"\xff" * 40, struct.pack("<Q", 4) + b"{}", struct.pack("<Q", 2) + b"[]"):
        path.write_bytes(junk)
        assert list(told(path, sight())) == ["does not say what it was made from"]
    assert list(told(tmp_path / "picture.png", sight())) == []


def test_who_was_in_another_split_was_not_learned_from(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    assert words(path, trained_on(OLD, "val")) == ""
    assert "of line 2" in words(path, trained_on(OLD, "")), "a model of before names no split"


def test_a_later_takedown_of_a_dataset_that_is_gone_is_not_taken_for_innocent(
    tmp_path: Path,
) -> None:
    """The ledger knows of the first, and the second may have been in the same dataset."""
    path = tmp_path / "m.safetensors"
    first, second = words(path, trained_on(OLD), sight()).split("; ")
    assert first == "trained on data of the person of line 2"
    assert "whether it held the person of line 3 cannot be told" in second
    assert "line 2, the person of line 3" in words(path, trained_on(NEW))
    assert words(path, trained_on(NEW), sight(current=NEW)) == ""


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ("train", "line 2, the person of line 3"),
        ("test", "trained on data of the person of line 2"),
    ],
)
def test_a_later_takedown_is_told_by_who_was_in_that_dataset(
    tmp_path: Path, split: str, said: str
) -> None:
    known = sight()
    known.book.people[OLD] = {person("id1"): "train", person("id2"): split}
    assert words(tmp_path / "m.safetensors", trained_on(OLD), known).endswith(said)


@pytest.mark.parametrize("kind", ["frames", "driver", "portrait"])
def test_who_was_given_a_file_of_theirs(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "six.safetensors"
    facts = {"model": {"facts": trained_on(NEW)}, kind: [{"name": "x.mp4", "sha256": "f1"}]}
    known = sight(current=NEW)
    assert words(path, facts, known) == "was given a file of the person of line 2"
    video = tmp_path / "out.mp4"
    sidecar = video.with_name(video.name + made.SIDECAR)
    sidecar.write_text(json.dumps({"format": made.SIDECAR_FORMAT, "facts": facts}))
    assert list(told(sidecar, known)) == ["was given a file of the person of line 2"]
    facts["model"] = {"facts": trained_on(OLD)}
    sidecar.write_text(json.dumps({"format": made.SIDECAR_FORMAT, "facts": facts}))
    assert "made by a network trained on data of" in list(told(sidecar, known))[1]
