"""Manifests: rows by number and in runs, and bytes that depend on the rows alone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import manifest, storage
from pipelines.errors import UserError
from pipelines.manifest import ManifestReader, ManifestWriter, read

SCHEMA = pa.schema(
    [
        pa.field("a", pa.string(), False),
        pa.field("b", pa.string(), False),
        pa.field("n", pa.int32()),
        pa.field("boxes", pa.list_(pa.list_(pa.float32(), 2))),
    ]
)
Rows = list[dict[str, Any]]


def made(keys: list[tuple[str, str]]) -> Rows:
    return [
        {"a": a, "b": b, "n": n, "boxes": [[n, 0.5]] * (n % 3) if n % 4 else None}
        for n, (a, b) in enumerate(keys)
    ]


def write(url: str, rows: Rows, cuts: list[int] | None = None) -> str:
    """Write rows in portions that end at `cuts`."""
    edges = [0, *sorted(cuts or []), len(rows)]
    with ManifestWriter(url, SCHEMA) as writer:
        for start, stop in pairwise(edges):
            writer.write(pa.Table.from_pylist(rows[start:stop], schema=SCHEMA))
    assert writer.rows == len(rows)
    return url


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "ROW_GROUP", 3)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    return lambda name: str(tmp_path_factory.getbasetemp() / "manifests" / name)


keys = st.lists(st.tuples(st.sampled_from("xy"), st.sampled_from("pqr")), max_size=40)
in_runs = st.lists(st.tuples(st.sampled_from("xy"), st.sampled_from("pq"), st.integers(1, 9))).map(
    lambda runs: [(a, b) for a, b, n in runs for _ in range(n)][:40]
)
quick = settings(max_examples=40, deadline=None)


@quick
@given(keys | in_runs, st.sampled_from([["a"], ["b"], ["a", "b"]]), st.integers(1, 7))
def test_groups_are_the_runs_of_equal_neighbours(
    url: Callable[[str], str], keys: list[tuple[str, str]], columns: list[str], size: int
) -> None:
    rows = made(keys)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "ROW_GROUP", size)
        reader = ManifestReader(write(url("groups.parquet"), rows))
        found = [(start, table.to_pylist()) for start, table in reader.groups(columns)]
    expected = []
    for _, run in groupby(rows, key=lambda row: tuple(row[column] for column in columns)):
        part = list(run)
        expected.append((part[0]["n"], part))
    assert found == expected


@quick
@given(keys, st.data())
def test_rows_by_number(
    url: Callable[[str], str], keys: list[tuple[str, str]], data: st.DataObject
) -> None:
    rows = made(keys)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "ROW_GROUP", 3)
        reader = ManifestReader(write(url("rows.parquet"), rows))
        assert len(reader) == len(rows)
        for _ in range(5):
            start = data.draw(st.integers(0, len(rows)))
            stop = data.draw(st.integers(start, len(rows)))
            assert reader.rows(start, stop).to_pylist() == rows[start:stop]


@quick
@given(keys, st.lists(st.integers(0, 40), max_size=8))
def test_bytes_do_not_tell_in_which_portions_the_rows_came(
    url: Callable[[str], str], keys: list[tuple[str, str]], cuts: list[int]
) -> None:
    rows = made(keys)
    cuts = [cut for cut in cuts if cut <= len(rows)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "ROW_GROUP", 7)
        whole = storage.read_bytes(write(url("whole.parquet"), rows))
        parts = storage.read_bytes(write(url("parts.parquet"), rows, cuts))
    assert whole == parts


def test_only_the_columns_asked_for_are_read(tmp_path: Path, small_groups: None) -> None:
    path = write(str(tmp_path / "a.parquet"), made([("x", "p")] * 8))
    reader = ManifestReader(path, ["b", "n"])
    assert reader.rows(2, 5).to_pylist() == [{"b": "p", "n": n} for n in (2, 3, 4)]
    assert reader.empty().column_names == ["b", "n"]
    assert [batch.schema.names for batch in reader.batches(["n"])] == [["n"]] * 3
    assert [len(table) for _, table in reader.groups(["b"])] == [8]


def test_a_manifest_without_rows_is_read_as_such(tmp_path: Path) -> None:
    path = write(str(tmp_path / "a.parquet"), [])
    reader = ManifestReader(path)
    assert len(reader) == 0
    assert list(reader.groups(["a"])) == []
    assert read(path).schema.equals(SCHEMA)
    assert reader.rows(0, 0).num_rows == 0


def test_a_block_that_raises_leaves_no_file(tmp_path: Path) -> None:
    old = write(str(tmp_path / "a.parquet"), made([("x", "p")]))
    before = storage.read_bytes(old)
    with pytest.raises(RuntimeError), ManifestWriter(old, SCHEMA) as writer:
        writer.write(pa.Table.from_pylist(made([("y", "q")]), schema=SCHEMA))
        raise RuntimeError
    with pytest.raises(RuntimeError), ManifestWriter(str(tmp_path / "b.parquet"), SCHEMA):
        raise RuntimeError
    assert storage.read_bytes(old) == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_rows_that_do_not_fit_the_schema_are_refused(tmp_path: Path) -> None:
    bad = pa.table({"a": ["x"], "b": ["p"], "n": ["five"], "boxes": [None]})
    with (
        pytest.raises(pa.ArrowInvalid),
        ManifestWriter(str(tmp_path / "a.parquet"), SCHEMA) as writer,
    ):
        writer.write(bad)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_or_broken_manifest_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.parquet is missing: run the stage that writes it"):
        ManifestReader(str(tmp_path / "a.parquet"))
    with pytest.raises(UserError, match="is missing"):
        ManifestReader("memory://nowhere/a.parquet")
    for rubbish in (b"", b"PAR1", b"rubbish" * 100):
        (tmp_path / "b.parquet").write_bytes(rubbish)
        with pytest.raises(UserError, match="not a readable manifest"):
            ManifestReader(str(tmp_path / "b.parquet"))


def test_manifests_live_in_object_stores_too() -> None:
    rows = made([("x", "p"), ("x", "q")])
    path = write("memory://bucket/a.parquet", rows)
    assert read(path).to_pylist() == rows
    storage.remove(path)


@given(st.data())
def test_a_flipped_bit_is_no_other_row(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Pages have checksums; what the footer tells is held against nothing."""
    path = tmp_path_factory.mktemp("flip") / "m.parquet"
    rows = pa.table({"key": [f"key-{n}" for n in range(300)], "at": [n * n for n in range(300)]})
    with ManifestWriter(str(path), rows.schema) as writer:
        writer.write(rows)
    whole = path.read_bytes()
    pages = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    at, bit = data.draw(st.integers(4, pages - 1)), data.draw(st.integers(0, 7))
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
    try:
        assert read(str(path)).equals(rows)  # bits of a page's header that nobody reads
    except UserError as error:
        assert f"{path} is not a readable manifest" in str(error)


def test_what_arrow_does_not_know_is_one_line(tmp_path: Path) -> None:
    """Whatever error it makes of it."""
    path = tmp_path / "m.parquet"
    with ManifestWriter(str(path), pa.schema([("name", pa.string())])) as writer:
        writer.write(pa.table({"name": ["a"]}))
    path.write_bytes(path.read_bytes().replace(b"name", b"n\xff\xfee"))
    with pytest.raises(UserError, match="not a readable manifest"):
        read(str(path))
