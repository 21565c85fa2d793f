"""Shards: plain tars that anyone reads, and an index that finds every member's bytes."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import webdataset as wds
from PIL import Image

from pipelines import engine, manifest, shard, shard_plan, storage
from pipelines.errors import StopStage
from pipelines.manifest import ManifestReader
from pipelines.params import Params
from pipelines.schemas import INDEX

Row = dict[str, Any]
Finished = Callable[..., Params]
Tree = Callable[[str], dict[str, bytes]]
pytestmark = pytest.mark.usefixtures("without_beam")


def build(params: Params) -> list[Row]:
    """Run the stage; returns the index."""
    engine.run(shard.prepare(params))
    table = manifest.read(params.paths.manifest("shard"))
    assert table.schema.equals(INDEX)
    return table.to_pylist()


def tars(params: Params) -> list[Path]:
    return sorted(Path(params.paths.data, "shards").rglob("*.tar"))


def span(params: Params, row: Row, offset: int, size: int) -> bytes:
    return storage.read_bytes(shard.tar_url(params, row["shard"]))[offset : offset + size]


def test_every_clip_that_passed_is_in_its_split_s_tar(finished: Finished) -> None:
    params = finished()
    rows = build(params)
    landmarks = manifest.read(params.paths.manifest("landmarks")).to_pylist()
    passed = {row["key"] for row in landmarks if row["status"] == "ok"}
    assert {row["key"] for row in rows} == passed
    assert len(rows) == len(passed)
    order = [(row["shard"], row["key"]) for row in rows]
    assert order == sorted(order)
    for path in tars(params):
        assert path.parent.name == path.stem.split("-")[1]
        (sha256, name) = path.with_suffix(".tar.sha256").read_text().split()
        assert (sha256, name) == (storage.sha256(path), path.name)
    assert list(Path(params.paths.work, "plans").iterdir()) == []


def test_tarfile_finds_what_the_index_says_where_it_says(finished: Finished) -> None:
    params = finished()
    rows = build(params)
    for row in rows:
        with tarfile.open(shard.tar_url(params, row["shard"])) as tar:
            members = {m.name: m for m in tar if m.name.startswith(row["key"] + ".")}
            for member in members.values():
                assert (member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644)
        names = [f"{row['key']}.{at:03d}.jpg" for at in range(len(row["frame_numbers"]))]
        for name, offset, size in zip(names, row["frame_offsets"], row["frame_sizes"], strict=True):
            assert (members[name].offset_data, members[name].size) == (offset, size)
        points = members[f"{row['key']}.landmarks.npy"]
        assert (points.offset_data, points.size) == (row["landmarks_offset"], row["landmarks_size"])
        assert len(members) == len(names) + 2


def test_webdataset_reads_the_same_bytes_with_no_code_of_ours(finished: Finished) -> None:
    params = finished()
    rows = {row["key"]: row for row in build(params)}
    urls = [str(path) for path in tars(params)]
    raw = {s["__key__"]: s for s in wds.WebDataset(urls, shardshuffle=False, empty_check=False)}
    assert raw.keys() == rows.keys()
    decoded = wds.WebDataset(urls, shardshuffle=False, empty_check=False).decode("rgb8")
    for sample in decoded:
        row = rows[sample["__key__"]]
        assert sample["json"]["person"] == row["person"]
        assert sample["landmarks.npy"].shape == (row["frames"], 68, 2)
        assert sample["000.jpg"].shape == (32, 32, 3)
        plain = raw[row["key"]]
        assert plain["json"] == span(params, row, row["json_offset"], row["json_size"])
        found = span(params, row, row["landmarks_offset"], row["landmarks_size"])
        assert plain["landmarks.npy"] == found
        spans = zip(row["frame_offsets"], row["frame_sizes"], strict=True)
        for at, (offset, size) in enumerate(spans):
            assert plain[f"{at:03d}.jpg"] == span(params, row, offset, size)


def test_a_sample_holds_even_frames_all_landmarks_and_where_they_came_from(
    finished: Finished,
) -> None:
    params = finished()
    row = build(params)[-1]
    assert row["frame_numbers"][0] == 0
    assert row["frame_numbers"][-1] == row["frames"] - 1
    points = np.load(io.BytesIO(span(params, row, row["landmarks_offset"], row["landmarks_size"])))
    assert (points.dtype, points.shape) == (np.dtype("<f4"), (row["frames"], 68, 2))
    facts = json.loads(span(params, row, row["json_offset"], row["json_size"]))
    assert facts["key"] == row["key"]
    assert facts["crop"] == {
        "policy": "clip", "size": 32, "boxes": [[0, 0, 50, 50]], "padding": 0.25
    }  # fmt: skip
    assert facts["quality"]["yaw"] is None
    assert facts["annotation"] == {"offset": None, "fv_conf": 0.5, "asd_conf": None}
    with Image.open(
        io.BytesIO(span(params, row, row["frame_offsets"][0], row["frame_sizes"][0]))
    ) as p:
        assert (p.format, p.size) == ("JPEG", (32, 32))


def test_a_key_too_long_for_a_plain_header_is_indexed_right(tmp_path: Path) -> None:
    names = ["a" * 40 + ".json", "b" * 300 + ".json", "c.json"]
    with (tmp_path / "a.tar").open("wb") as file:
        writer = shard.TarWriter(file)
        spans = {name: writer.add(name, name.encode()) for name in names}
        spans["empty"] = writer.add("empty", b"")
        writer.close()
    data = (tmp_path / "a.tar").read_bytes()
    assert len(data) % tarfile.RECORDSIZE == 0
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert {m.name: (m.offset_data, m.size) for m in tar} == spans
    assert all(data[at : at + n] == name.encode() for name, (at, n) in spans.items() if n)


def test_nothing_passed_is_an_empty_index(finished: Finished) -> None:
    params = finished([])
    assert build(params) == []
    assert tars(params) == []


def test_the_same_clips_give_the_same_tree_whatever_the_history(
    finished: Finished, tree_bytes: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = finished()
    build(params)
    first = tree_bytes(params.paths.data)
    for folder in ("records", "plans"):
        shutil.rmtree(Path(params.paths.work, folder))
    monkeypatch.setattr(shard_plan, "PASS_ROWS", 2)
    build(params)
    assert tree_bytes(params.paths.data) == first
    shutil.rmtree(Path(params.paths.data, "shards"))
    build(params)
    assert tree_bytes(params.paths.data) == first


def test_tars_that_are_right_are_kept(finished: Finished, without_beam: list[list[str]]) -> None:
    params = finished()
    build(params)
    when = {path: path.stat().st_mtime_ns for path in tars(params)}
    build(params)
    assert len(without_beam) == 1
    assert {path: path.stat().st_mtime_ns for path in tars(params)} == when


def test_one_clip_less_rewrites_one_tar(finished: Finished, without_beam: list[list[str]]) -> None:
    params = finished()
    build(params)
    url = params.paths.manifest("landmarks")
    rows = manifest.read(url).to_pylist()
    rows[2]["status"] = "blurred"
    with manifest.ManifestWriter(url, ManifestReader(url)._file.schema_arrow) as writer:
        writer.write(pa.Table.from_pylist(rows, schema=writer.schema))
    build(params)
    assert without_beam[1] == ["vox-val-00000"]


def test_tars_that_no_clip_belongs_to_any_more_are_removed(finished: Finished) -> None:
    params = finished([3, 2, 4, 1, 5])
    build(params)
    shards = Path(params.paths.data, "shards")
    (shards / "val" / "vox-val-00009.tar.sha256").touch()
    (shards / "val" / "notes.txt").touch()
    few = finished([3])
    build(few)
    left = sorted(path.name for path in shards.rglob("*") if path.is_file())
    assert left == ["notes.txt", "vox-train-00000.tar", "vox-train-00000.tar.sha256"]


def spoil(path: Path, how: str) -> None:
    """Change a tar or its checksum behind the stage's back."""
    data = path.read_bytes()
    sidecar = path.with_suffix(".tar.sha256")
    if how == "same size":
        path.write_bytes(data[:600] + bytes([data[600] ^ 1]) + data[601:])
        later = sidecar.stat().st_mtime_ns + 1_000_000
        os.utime(path, ns=(later, later))
    elif how == "truncated":
        path.write_bytes(data[:-512])
    elif how == "gone":
        path.unlink()
    elif how == "checksum gone":
        sidecar.unlink()
    elif how == "older tar and its checksum":
        sidecar.write_text(f"{'0' * 64}  {path.name}\n")
    else:
        sidecar.write_bytes(b"\xff\xfe")


@pytest.mark.parametrize(
    "how",
    [
        *("same size", "truncated", "gone", "checksum gone"),
        *("older tar and its checksum", "checksum damaged"),
    ],
)
def test_a_tar_that_is_not_what_was_written_is_written_again(
    finished: Finished, tree_bytes: Tree, without_beam: list[list[str]], how: str
) -> None:
    params = finished()
    build(params)
    first = tree_bytes(params.paths.data)
    spoil(tars(params)[0], how)
    build(params)
    assert len(without_beam[1]) == 1
    assert tree_bytes(params.paths.data) == first


def test_a_tar_only_copied_anew_is_kept(finished: Finished, without_beam: list[list[str]]) -> None:
    params = finished()
    build(params)
    for path in tars(params):
        os.utime(path)
    build(params)
    assert len(without_beam) == 1


@pytest.mark.parametrize("lost", ["crops", "landmarks"])
def test_lost_work_stops_the_stage_with_what_to_do(finished: Finished, lost: str) -> None:
    params = finished()
    shutil.rmtree(Path(params.paths.work, lost))
    with pytest.raises(StopStage, match=r"is gone from the work folder: .*dvc repro"):
        build(params)
    assert tars(params) == []


def test_a_crop_that_its_disk_has_changed_is_deleted_and_told(finished: Finished) -> None:
    """A decoder hides most flipped bits: the picture smears, and a tar of it would be true."""
    params = finished()
    crop = min(Path(params.paths.work, "crops").iterdir())
    data = bytearray(crop.read_bytes())
    data[len(data) // 2] ^= 1
    crop.write_bytes(data)
    with pytest.raises(StopStage, match=r"shard: the crop of id.* was changed by its disk"):
        build(params)
    assert not crop.exists()


def test_torn_landmarks_stop_the_stage_with_the_remedy(finished: Finished) -> None:
    params = finished()
    for path in Path(params.paths.work, "landmarks").rglob("*.npz"):
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(StopStage, match=r"shard: the landmarks of id.*they are deleted: run `dvc"):
        build(params)


def test_shards_in_an_object_store(finished: Finished) -> None:
    here = finished()
    local = build(here)
    there = here.model_copy(
        update={"paths": here.paths.model_copy(update={"data": "memory://far"})}
    )
    for stage in ("catalog", "crop", "landmarks"):
        data = storage.read_bytes(here.paths.manifest(stage))
        storage.write_bytes(there.paths.manifest(stage), data)
    shutil.rmtree(Path(here.paths.work, "records"))
    assert build(there) == local
    row = local[0]
    assert storage.read_bytes(shard.tar_url(there, row["shard"])) == storage.read_bytes(
        shard.tar_url(here, row["shard"])
    )
