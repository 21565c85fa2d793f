"""Columns go into text and come back as they were."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.report.table import BASE, LEVELS, Names, Numbers, as_json, digits, pack, rows_of


def in_page(text: str) -> str:
    return f'<script type="application/json" id="rows" data-section="clips">{text}</script>'


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=8), max_size=40))
def test_names_come_back(words):
    column = Names("status", "Status", words)
    page = in_page(pack([column], len(words), len(words)))
    assert page.count("<") == 2, "only the element's own"
    assert [row["status"] for row in rows_of(page)] == words


def test_many_names_take_more_digits():
    words = [f"v{n}" for n in range(BASE * BASE + 1)]
    packed = Names("video", "Video", words).packed()
    assert packed["width"] == 3 and len(packed["packed"]) == 3 * len(words)
    page = in_page(pack([Names("video", "Video", words)], len(words), len(words)))
    assert [row["video"] for row in rows_of(page)] == words


def test_one_name_takes_no_digits():
    packed = Names("source", "Source", ["vox"] * 1000).packed()
    assert packed["packed"] == "" and packed["values"] == ["vox"]


def test_digits_need_no_escape_anywhere():
    text = digits(np.arange(BASE), 1)
    assert len(set(text)) == BASE
    assert json.dumps(text) == f'"{text}"' and not set(text) & set("<\"\\'") - {"'"}


def test_keys_leave_out_what_is_empty():
    columns = [
        Names("person", "", ["id1", ""]),
        Names("video", "", ["v1", ""]),
        Names("utterance", "", ["00001", "txt/x.txt:3"]),
    ]
    page = in_page(pack(columns, 2, 2))
    assert [row["key"] for row in rows_of(page)] == ["id1_v1_00001", "txt/x.txt:3"]


@pytest.mark.parametrize(
    ("value", "steps"), [(np.nan, 0), (-1.0, 1), (-180.0, 1), (0.0, 1), (0.5, 2), (1e9, LEVELS)]
)
def test_numbers_are_steps_above_the_lowest(value, steps):
    column = Numbers("sharpness", "Sharpness", np.array([value]), 0.0, 0.5, 1).packed()
    assert column["packed"] == digits(np.array([steps]), 2)


def test_other_pages_have_no_rows():
    assert list(rows_of("<p>nothing</p>")) == []


def test_json_never_ends_its_element():
    assert as_json({"a": "</script><!--"}) == '{"a":"\\u003c/script>\\u003c!--"}'
