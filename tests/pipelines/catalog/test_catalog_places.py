"""Splits and shards: people in one split, and names that stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from eight_people import PEOPLE, annotate, places
from hypothesis import given
from hypothesis import strategies as st

from pipelines.placing import bucket_of
from pipelines.splits import stable_fraction


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


def test_people_whom_the_publisher_tore_apart_are_told(
    tmp_path: Path, build: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "metadata"
    annotate(root / "dev" / "txt", PEOPLE[0], "v", "00001")
    annotate(root / "test" / "txt", PEOPLE[0], "w", "00001")
    source = {"name": "vox", "reader": "voxceleb2"}
    rows = build(catalog={"sources": [source], "split": {"val": 0.0}})
    assert {row["split"] for row in rows} == {"train", "test"}
    assert f"several splits (people: 1, such as {PEOPLE[0]})" in capsys.readouterr().err
    rows = build(catalog={"sources": [source], "split": {"val": 0.0, "use_published": False}})
    assert {row["split"] for row in rows} == {"train"}
    assert "several splits" not in capsys.readouterr().err


def test_whom_one_source_holds_out_no_other_trains_on(
    tmp_path: Path, build: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "metadata"
    for person in PEOPLE[:3]:
        for name in ("one", "two"):
            annotate(root / name, person, f"v-{name}", "00001")
    (root / "meta.csv").write_text(
        "VoxCeleb2 ID,VGGFace2 ID,Gender,Set\nid00000,n,m,test\nid00001,n,f,dev\nid00002,n,f,val\n"
    )
    table = {"name": "one", "reader": "voxceleb2", "path": "one", "people": "meta.csv"}
    for name in ("aaa", "zzz"):  # read before and after the one that tells
        other = {"name": name, "reader": "voxceleb2", "path": "two"}
        rows = build(catalog={"sources": [table, other], "split": {"val": 0.0}})
        splits = {(row["source"], row["person"]): row["split"] for row in rows}
        assert [splits[name, person] for person in PEOPLE[:3]] == ["test", "train", "val"]
        assert all(row["shard"].startswith(f"{row['source']}-{row['split']}-") for row in rows)
        assert capsys.readouterr().err == ""
    rows = build(catalog={"sources": [table, other], "split": {"val": 0.0, "use_published": False}})
    assert {row["split"] for row in rows} == {"train"}


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        ("id00001,n,f,tset", "bad_annotation", ""),
        ("ID00001,n,f,test", "ok", "does not know 1 of the 3 people met, such as id00001"),
        ("", "ok", "does not know 1 of the 3 people met, such as id00001: the seed draws"),
    ],
)
def test_whom_the_table_does_not_tell_of_is_not_trained_on_in_silence(
    tmp_path: Path,
    build: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
    line: str,
    status: str,
    words: str,
) -> None:
    root = tmp_path / "metadata"
    for person in PEOPLE[:3]:
        annotate(root, person, "v", "00001")
    (root / "meta.csv").write_text(f"id00000,n,m,test\n{line}\nid00002,n,f,dev\n")
    source = {"name": "vox", "reader": "voxceleb2", "people": "meta.csv"}
    rows = build(catalog={"sources": [source]})
    (clip,) = [row for row in rows if "id00001" in row["key"]]
    assert clip["status"] == status
    if status != "ok":
        assert (
            "meta.csv:2, which says who is held out, cannot be read for id00001" in clip["detail"]
        )
    assert words in capsys.readouterr().err
    # Of a table of the held-out alone, all others are to train on.
    (root / "meta.csv").write_text("id00000,n,m,test\nid00001,n,m,test\n")
    build(catalog={"sources": [source]})
    assert capsys.readouterr().err == ""


@given(st.text(), st.integers(1, 1000))
def test_a_new_bucket_takes_videos_and_none_moves_between_the_others(
    video: str, buckets: int
) -> None:
    before, after = bucket_of(video, buckets), bucket_of(video, buckets + 1)
    assert 0 <= before < buckets
    assert after in (before, buckets)
    assert 0 <= stable_fraction("x", video) < 1


def test_buckets_are_filled_alike() -> None:
    videos = [f"v{n}" for n in range(20_000)]
    counts = Counter(bucket_of(video, 20) for video in videos)
    assert len(counts) == 20 and min(counts.values()) > 850 and max(counts.values()) < 1150
    moved = sum(bucket_of(video, 20) != bucket_of(video, 21) for video in videos)
    assert 0.8 < moved * 21 / len(videos) < 1.2


# --- shard names -----------------------------------------------------------------------------


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
