"""The catalog: a row per annotation, people in one split, names that stay, and takedowns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import catalog, manifest, storage
from pipelines.catalog import bucket_of, filtered, read_takedowns, split_of, stable_fraction
from pipelines.errors import UserError
from pipelines.params import Params
from pipelines.params.dataset import Filters, Split
from pipelines.schemas import CATALOG
from pipelines.sources.base import Annotation

Row = dict[str, Any]
MakeParams = Callable[..., Params]
PEOPLE = [f"id{n:05d}" for n in range(8)]


def annotate(
    root: Path, person: str, video: str, utterance: str, frames: int = 3, fv: str = "20.5 (1)"
) -> Path:
    """Write a VoxCeleb2 utterance."""
    path = root / person / video / f"{utterance}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    header = f"Identity  : \t{person}\nReference : \t{video}\nOffset    : \t-2\n"
    header += f"FV Conf   : \t{fv}\nASD Conf  : \t4.5\n\nFRAME \tX \tY \tW \tH \n"
    body = "".join(f"{n:06d} \t0.{n % 9}1 \t0.2 \t0.3 \t0.4 \n" for n in range(7, 7 + frames))
    path.write_text(header + body)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Eight people, two videos each, two clips a video."""
    root = tmp_path / "metadata"
    for person in PEOPLE:
        for video in ("a", "b"):
            for utterance in ("00001", "00002"):
                annotate(root, person, f"{video}-{person[-2:]}", utterance)
    return root


@pytest.fixture
def build(make_params: MakeParams, tmp_path: Path) -> Callable[..., list[Row]]:
    """Build a catalog; returns its rows. `takedowns`: lines below the header."""

    def run(*takedowns: str, **sections: Any) -> list[Row]:
        lines = ["kind,id,date,reason", *takedowns]
        (tmp_path / "takedowns.csv").write_text("\n".join(lines) + "\n")
        params = make_params(**sections)
        summary = catalog.build(params)
        table = manifest.read(params.paths.manifest("catalog"))
        assert table.schema.equals(CATALOG)
        assert summary.rows == len(table)
        assert summary.statuses == Counter(table["status"].to_pylist())
        return table.to_pylist()

    return run


def places(rows: list[Row]) -> dict[str, tuple[str, str]]:
    return {row["key"]: (row["split"], row["shard"]) for row in rows if row["shard"]}


def test_a_row_per_clip_in_order_with_its_boxes(tree: Path, build: Callable[..., Any]) -> None:
    rows = build()
    assert len(rows) == 32
    order = [(row["source"], row["person"], row["video"], row["utterance"]) for row in rows]
    assert order == sorted(order)
    row = rows[0]
    assert row["key"] == "id00000_a-00_00001"
    assert (row["first_frame"], row["frames"], row["fps"], row["offset"]) == (7, 3, 25.0, -2)
    assert (row["status"], row["detail"], row["crop_ready"]) == ("ok", "", False)
    boxes = np.array(row["boxes"], np.float32)
    assert np.array_equal(boxes, np.float32([[f"0.{n % 9}1", 0.2, 0.3, 0.4] for n in (7, 8, 9)]))
    assert row["shard"].startswith(f"vox-{row['split']}-")


def test_the_same_input_gives_the_same_bytes(
    tree: Path, build: Callable[..., Any], make_params: MakeParams
) -> None:
    path = make_params().paths.manifest("catalog")
    build()
    first = storage.read_bytes(path)
    build()
    assert storage.read_bytes(path) == first


def test_boxes_of_many_lengths_and_none_go_round(tmp_path: Path) -> None:
    shapes = [None, 0, 1, 5, None, 2]
    values = [
        None if n is None else np.arange(n * 4, dtype=np.float32).reshape(n, 4) for n in shapes
    ]
    column = catalog._boxes(values)
    assert column.type == CATALOG.field("boxes").type
    assert column.to_pylist() == [None if v is None else v.tolist() for v in values]
    assert catalog._boxes([None, None]).to_pylist() == [None, None]
    column.validate(full=True)


# --- splits ------------------------------------------------------------------------------------


def test_all_clips_of_a_person_land_in_one_split(tree: Path, build: Callable[..., Any]) -> None:
    rows = build(catalog={"split": {"seed": 3, "val": 0.3, "test": 0.3}})
    splits = {person: {r["split"] for r in rows if r["person"] == person} for person in PEOPLE}
    assert all(len(found) == 1 for found in splits.values())
    assert set().union(*splits.values()) == {"train", "val", "test"}


def test_the_seed_decides_and_nothing_else(tree: Path, build: Callable[..., Any]) -> None:
    def drawn(seed: int) -> dict[str, str]:
        rows = build(catalog={"split": {"seed": seed, "val": 0.5}})
        return {row["person"]: row["split"] for row in rows}

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)


def test_the_publisher_s_test_people_stay_test_people(
    tmp_path: Path, build: Callable[..., Any]
) -> None:
    root = tmp_path / "metadata"
    for person in PEOPLE[:4]:
        annotate(root, person, "v", "00001")
    (root / "meta.csv").write_text(
        "VoxCeleb2 ID,VGGFace2 ID,Gender,Set\n"
        "id00000,n1,m,test\nid00001,n2,f,dev\nid00002,n3,f,test\nid00003,n4,f,dev\n"
    )
    source = {"name": "vox", "reader": "voxceleb2", "people": "meta.csv"}
    rows = build(catalog={"sources": [source], "split": {"val": 0.0}})
    assert [row["split"] for row in rows] == ["test", "train", "test", "train"]
    rows = build(catalog={"sources": [source], "split": {"val": 0.0, "use_published": False}})
    assert {row["split"] for row in rows} == {"train"}


@given(st.text(), st.integers(), st.floats(0, 0.5), st.floats(0, 0.49))
def test_splits_grow_without_moving_people(person: str, seed: int, val: float, test: float) -> None:
    small = split_of(person, None, Split(seed=seed, val=val / 2, test=test))
    large = split_of(person, None, Split(seed=seed, val=val, test=test))
    assert small == large or (small, large) == ("train", "val")


@given(st.text(), st.integers(1, 1000))
def test_buckets_are_within_range(video: str, buckets: int) -> None:
    assert 0 <= bucket_of(video, buckets) < buckets
    assert 0 <= stable_fraction("x", video) < 1


# --- shard names -------------------------------------------------------------------------------


def test_another_source_moves_no_clip(tree: Path, build: Callable[..., Any]) -> None:
    sources = [{"name": "vox", "reader": "voxceleb2", "path": "."}]
    before = places(build(catalog={"sources": sources}, shard={"clips": 4}))
    for name in ("aaa", "zzz"):
        for person in PEOPLE[:2]:
            annotate(tree.parent / "more", person, "v", "00001")
        more = {"name": name, "reader": "voxceleb2", "path": "../more"}
        rows = build(catalog={"sources": [*sources, more]}, shard={"clips": 4})
        assert {row["source"] for row in rows} == {"vox", name}
        assert before.items() <= places([r for r in rows if r["source"] == "vox"]).items()


def test_a_takedown_moves_no_other_clip(tree: Path, build: Callable[..., Any]) -> None:
    before = places(build(shard={"clips": 4}))
    assert len({shard for _, shard in before.values()}) > 3
    lines = ["person,id00001,,", "video,a-02,,", "clip,id00003_a-03_00001,,"]
    after = places(build(*lines, shard={"clips": 4}))
    gone = {
        key for key in before if key.startswith(("id00001", "id00002_a-02", "id00003_a-03_00001"))
    }
    assert after == {key: place for key, place in before.items() if key not in gone}


def test_a_video_s_clips_share_a_shard(tree: Path, build: Callable[..., Any]) -> None:
    found: dict[str, set[str]] = {}
    for row in build(shard={"clips": 2}):
        found.setdefault(row["video"], set()).add(row["shard"])
    assert all(len(shards) == 1 for shards in found.values())


# --- takedowns ---------------------------------------------------------------------------------


def strings_of(rows: list[Row]) -> str:
    return "\n".join(str(v) for row in rows for v in row.values() if isinstance(v, str))


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
    assert (found.persons, found.videos, found.clips) == ({"id1"}, set(), {"p_v_u"})


def test_a_missing_takedown_list_stops(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing; make it with the header line"):
        read_takedowns(str(tmp_path / "none.csv"))


# --- filters -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "limits", "words"),
    [
        ({"fv_conf": 1.0}, {"min_fv_conf": 2.0}, "fv_conf 1.0 below 2.0"),
        ({"fv_conf": 0.0}, {"min_fv_conf": 2.0}, "fv_conf 0.0 below 2.0"),
        ({"fv_conf": 2.0}, {"min_fv_conf": 2.0}, ""),
        ({}, {"min_fv_conf": 2.0, "min_asd_conf": 1.0, "max_offset": 0, "min_frames": 9}, ""),
        ({"asd_conf": 0.0}, {"min_asd_conf": 0.5}, "asd_conf 0.0 below 0.5"),
        ({"offset": -3}, {"max_offset": 2}, "offset -3 beyond 2"),
        ({"offset": 0}, {"max_offset": 0}, ""),
        ({"frames": 9}, {"min_frames": 10}, "9 frames, fewer than 10"),
        ({"frames": 11}, {"max_frames": 10}, "11 frames, more than 10"),
        ({"frames": 10}, {"min_frames": 10, "max_frames": 10}, ""),
    ],
)
def test_filters(facts: Row, limits: Row, words: str) -> None:
    assert filtered(Annotation("p", "v", "u", **facts), Filters(**limits)) == words


def test_a_filtered_clip_keeps_its_row_and_its_place(tree: Path, build: Callable[..., Any]) -> None:
    annotate(tree, "id00000", "a-00", "00001", fv="1.0 (1)")
    rows = build(catalog={"filters": {"min_fv_conf": 2.0}})
    assert (rows[0]["status"], rows[0]["detail"]) == ("filtered", "fv_conf 1.0 below 2.0")
    assert rows[0]["shard"]


# --- damage ------------------------------------------------------------------------------------


def test_a_damaged_annotation_is_a_row_that_names_file_and_line(
    tree: Path, build: Callable[..., Any]
) -> None:
    path = tree / "id00003" / "a-03" / "00001.txt"
    path.write_text(path.read_text() + "000010 0.1 0.2\n")
    rows = build()
    assert len(rows) == 32
    (bad,) = [row for row in rows if row["status"] == "bad_annotation"]
    assert bad["detail"].startswith("id00003/a-03/00001.txt:11: ")
    assert bad["key"] == "vox/id00003/a-03/00001.txt:11"
    assert (bad["person"], bad["split"], bad["shard"]) == ("", "", "")


def test_a_clip_annotated_twice_is_kept_once(
    tree: Path, build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = Annotation("p", "v", "u", first_frame=0, frames=1)
    monkeypatch.setitem(catalog.READERS, "voxceleb2", lambda path: iter([clip, clip]))
    rows = build()
    assert [row["status"] for row in rows] == ["ok", "bad_annotation"]
    assert rows[1]["detail"] == "p_v_u: the same clip is annotated twice"
    rows = build("clip,p_v_u,,")
    assert [row["status"] for row in rows] == ["excluded", "excluded"]
    assert "p_v_u" not in strings_of(rows)


def test_damaged_rows_of_the_table_of_people_are_told(
    tree: Path, build: Callable[..., Any]
) -> None:
    (tree / "meta.csv").write_text("VoxCeleb2 ID,VGGFace2 ID,Gender,Set\nid00000,n1,m,tset\n")
    rows = build(catalog={"sources": [{"name": "v", "reader": "voxceleb2", "people": "meta.csv"}]})
    assert rows[0]["detail"] == "meta.csv:2: set is 'tset', not dev or test"


@pytest.fixture
def command(make_params: MakeParams, params_file: Callable[[Params], str]) -> Callable[..., int]:
    """The stage's command line."""
    return lambda **sections: catalog.main(["--params", params_file(make_params(**sections))])


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"path": "nowhere"}, "catalog.sources.vox: "),
        ({"people": "nowhere.csv"}, "catalog.sources.vox: "),
        ({"reader": "vox_metadata"}, "catalog.sources.vox: "),
        ({"path": "empty"}, "catalog.sources.vox: "),
    ],
)
def test_a_source_that_cannot_be_read_is_one_line_and_exit_2(
    tree: Path,
    command: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    source: Row,
    words: str,
) -> None:
    (tree / "empty").mkdir()
    settings = {"name": "vox", "reader": "voxceleb2"} | source
    assert command(catalog={"sources": [settings]}) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"likeness: {words}{tree}")
    assert list((tmp_path / "data").iterdir()) == []
    assert list((tmp_path / "work" / "tmp").iterdir()) == []


def test_too_much_damage_is_exit_3_with_the_manifest_complete(
    tree: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for path in sorted(tree.rglob("*.txt"))[:4]:
        path.write_text("")
    assert command() == 3
    out, err = capsys.readouterr()
    assert "bad_annotation" in out
    assert "more than catalog.max_bad allows (10%)" in err
    assert len(manifest.read(str(tmp_path / "data" / "catalog.parquet"))) == 32
    assert command(catalog={"max_bad": 0.2}) == 0


def test_ready_crops_are_named_from_the_metadata_folder(
    tmp_path: Path, build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = tmp_path / "metadata" / "id1" / "v" / "00001.mp4"
    clip.parent.mkdir(parents=True)
    clip.touch()
    monkeypatch.chdir(tmp_path)
    for metadata in (str(tmp_path / "metadata"), "metadata"):
        (row,) = build(catalog={"metadata": metadata, "sources": [{"name": "m", "reader": "mp4"}]})
        assert row["media"] == "id1/v/00001.mp4"
        assert row["crop_ready"]


def test_more_rows_than_a_row_group(
    tree: Path, build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build()
    monkeypatch.setattr(catalog, "ROW_GROUP", 5)
    assert build() == whole
