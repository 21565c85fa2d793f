"""The catalog: a row per annotation, filtered or damaged ones too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eight_people import Row, annotate, strings_of

from pipelines import catalog, manifest, storage
from pipelines.catalog import filtered
from pipelines.params import Params
from pipelines.params.dataset import Filters
from pipelines.schemas import CATALOG
from pipelines.sources.base import Annotation

MakeParams = Callable[..., Params]


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


# --- filters ---------------------------------------------------------------------------------


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


# --- damage ----------------------------------------------------------------------------------


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


def test_two_clips_of_one_key_are_told_by_their_names(
    tmp_path: Path, build: Callable[..., Any]
) -> None:
    for name in ("a/b_c/1", "a-x/b/1", "a_b/c/1", "a_b/c/2"):
        clip = tmp_path / "metadata" / f"{name}.mp4"
        clip.parent.mkdir(parents=True, exist_ok=True)
        clip.touch()
    sources = {"sources": [{"name": "v", "reader": "mp4"}]}
    rows = build(catalog=sources)
    assert [(row["key"], row["status"]) for row in rows] == [
        ("a_b_c_1", "ok"),
        ("a-x_b_1", "ok"),
        ("v/a_b/c/1", "bad_annotation"),
        ("a_b_c_2", "ok"),
    ]
    assert rows[2]["detail"] == (
        "a_b/c/1: its key a_b_c_1 is that of a/b_c/1 too; rename one of them"
    )
    rows = build("video,b_c,,", catalog=sources)
    assert [row["status"] for row in rows] == ["excluded", "ok", "excluded", "ok"]
    assert "b_c" not in strings_of([rows[0], rows[2]])


def test_damaged_rows_of_the_table_of_people_are_told(
    tree: Path, build: Callable[..., Any]
) -> None:
    (tree / "meta.csv").write_text(
        "VoxCeleb2 ID,VGGFace2 ID,Gender,Set\nid00000,n1,m,tset\nid00001,n2,f,dev\n"
    )
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


def test_a_mistyped_metadata_folder_blames_no_source(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command() == 2
    assert capsys.readouterr().err == (
        f"likeness: catalog.metadata: {tmp_path}/metadata: no such folder; "
        "fetch the published lists or mend the path\n"
    )


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("VoxCeleb2 ID,VGGFace2 ID,Gender\nid00000,n0,m\nid00001,n1,f\n", "the column Set"),
        ("VoxCeleb2 ID,Set\nid00000,\nid00001,\n", "the column Set"),
        ("id00000,m\nid00001,f\n", "no line of it can be read as a person"),
        ("ID,Set\nid10001,dev\nid10002,test\nid10003,dev\n", "knows 0 of the 8 people met"),
    ],
)
def test_a_table_that_gives_these_people_no_split_stops(
    tree: Path,
    command: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    table: str,
    words: str,
) -> None:
    (tree / "meta.csv").write_text(table)
    settings = {"sources": [{"name": "v", "reader": "voxceleb2", "people": "meta.csv"}]}
    assert command(catalog=settings) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"likeness: catalog.sources.v: {tree}/meta.csv: ")
    assert words in line and "leave it out" in line
    assert list((tmp_path / "data").iterdir()) == []
    # Nothing is asked of it where nothing is taken from it.
    assert command(catalog=settings | {"split": {"use_published": False}, "max_bad": 1.0}) == 0


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
