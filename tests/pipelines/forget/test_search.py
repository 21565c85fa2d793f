"""The search for names in any bytes."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.forget.search import _CHUNK, Names


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 300), st.integers(0, 300), st.sampled_from(["id00017", "-QLbWKz", "abcdef"]))
def test_every_place_is_searched(before: int, after: int, name: str) -> None:
    names = Names({"id00017": "a", "-QLbWKz": "b", "abcdef": "c", "zz": "short"})
    noise = random.Random(before).randbytes
    data = noise(before) + name.encode() + noise(after)
    assert names.find(data) == {"id00017": "a", "-QLbWKz": "b", "abcdef": "c"}[name]
    assert names.find(noise(before) + name[:-1].encode() + b"." + noise(after)) is None


@pytest.mark.parametrize("shift", range(-9, 3))
def test_the_edge_of_a_chunk(shift: int) -> None:
    data = bytearray(2 * _CHUNK)
    data[_CHUNK + shift : _CHUNK + shift + 7] = b"id00017"
    assert Names({"id00017": "x"}).find(bytes(data)) == "x"


def test_a_longer_name_of_someone_who_stays_is_no_find() -> None:
    names = Names({"anna-lee": "x"}, {"anna-lee-2", "the-anna-lee", "bob"})
    assert names.find(b"one anna-lee-2 and the-anna-lee") is None
    assert names.find(b"anna-lee-2 and anna-lee-3") == "x"
    assert names.find(b"anna-lee-2 anna-lee") == "x"


def test_short_names_are_left_to_tables() -> None:
    assert Names({"_x": "x", "abcde": "y"}).find(b" _x abcde ") is None
