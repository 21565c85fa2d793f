"""Identifiers and names from outside: no shell sees them, and no path leads out by them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipelines import catalog, crop, engine, landmarks, manifest, shard, storage
from pipelines.errors import StopStage, UserError
from pipelines.manifest import ManifestWriter
from pipelines.params import Params
from pipelines.schemas import CATALOG, CROPS, DOWNLOADS, LANDMARKS, PLAIN_NAME
from pipelines.sources import base
from pipelines.takedowns import read_takedowns

Row = dict[str, Any]
HOSTILE = [
    *("../x", "..", ".", "/etc/passwd", "../../../../tmp/x", "a/../../x", "a\\..\\x"),
    *("--output=x y", "-o;id", "$(touch pwned)", "`touch pwned`", "a;touch pwned", "a|b", "a&b"),
    *("%2e%2e%2f", "{video_id}", "{ext}", "{0.__class__}", "%(id)s", "%s%n", "~root", "*"),
    *("nul\0byte", "new\nline", "tab\t", "\u202egnp.exe", "e\u0301", "\U0001f600", "\ud800"),
    *("dot.", "space ", " space", "CON.txt", "a:b", "id\u0660", "x" * 300, "", "<script>", "=1+1"),
]
HARMLESS = ["-", "--", "-rf", "con", "NUL", "__init__", "x" * 100]
"""Odd, but they name nothing: files are called by digests."""
CELLS = "video_id,start,end,bbox,fps,width,height,partition,person_id\n"


def in_folders(ids: list[str]) -> list[str]:
    """Those that can be the name of a folder at all."""
    bad = ("", ".", "..")
    ids = [i for i in ids if i not in bad and not set(i) & set("/\0\ud800") and len(i) < 200]
    return [*ids, "\udcff"]  # a byte that is no UTF-8


def test_every_hostile_identifier_is_refused_and_every_harmless_one_taken() -> None:
    assert [name for name in HOSTILE if base.is_safe(name)] == []
    assert [name for name in HARMLESS if not base.is_safe(name)] == []
    assert [name for name in HOSTILE if PLAIN_NAME.fullmatch(name)] == ["x" * 300]


def test_hostile_folder_names_of_an_annotation_tree_become_rows_and_write_nothing_outside(
    make_params: Callable[..., Params], rebuild: Any, written: Any, tmp_path: Path
) -> None:
    line = "FRAME X Y W H\n0 0.1 0.1 0.5 0.5\n"
    names = in_folders(HOSTILE)
    for at, name in enumerate(names):
        person, video, utterance = [(name, "v", "1"), ("p", name, "1"), ("p", "v", name)][at % 3]
        folder = tmp_path / "metadata" / person / video
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{utterance}.txt").write_text(line)
    with written() as places:
        rows = rebuild(make_params(download={"mirror": str(tmp_path / "mirror"), "retries": 0}))
    assert len(rows) == len(names)
    assert {row["status"] for row in rows} == {"bad_annotation"}
    assert {(row["person"], row["video"], row["utterance"]) for row in rows} == {("", "", "")}
    stays_inside(places, tmp_path)
    assert all("\n" not in row["detail"] and "\x00" not in row["detail"] for row in rows)


def test_hostile_folder_names_of_a_tree_of_crops_are_refused(
    make_params: Callable[..., Params], tmp_path: Path
) -> None:
    for name in in_folders(HOSTILE):
        (tmp_path / "metadata" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "metadata" / name / "v").mkdir(exist_ok=True)
        (tmp_path / "metadata" / name / "v" / "00001.mp4").write_bytes(b"no video")
    params = make_params(catalog={"sources": [{"name": "own", "reader": "mp4"}]})
    catalog.build(params)
    rows = manifest.read(params.paths.manifest("catalog")).to_pylist()
    assert len(rows) == len(in_folders(HOSTILE))
    assert {row["status"] for row in rows} == {"bad_annotation"}
    assert {row["media"] for row in rows} == {None}


def stays_inside(places: set[Path], folder: Path) -> None:
    """What a run wrote lies in its own folders."""
    own = [folder / name for name in ("data", "work", "metrics", "temporary", "takedowns.csv")]
    outside = [p for p in places if not any(p.is_relative_to(o) for o in own)]
    assert [p for p in outside if p != Path(os.devnull) and "__pycache__" not in p.parts] == []
    assert places, "nothing was seen at all"


any_id = st.one_of(
    st.sampled_from(HOSTILE + HARMLESS),
    st.text(max_size=30),
    st.from_regex(r"(\.\./|/|-|%2e|\w){1,12}", fullmatch=True),
)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(person=any_id, video=any_id)
@example(person="id1", video="../secret")
@example(person="id1", video="-rf")
def test_any_text_as_identifier_is_refused_as_a_row_or_writes_below_the_work_folder_alone(
    make_params: Callable[..., Params],
    rebuild: Any,
    written: Any,
    tmp_path: Path,
    person: str,
    video: str,
) -> None:
    metadata, mirror = tmp_path / "metadata", tmp_path / "mirror"
    for folder in (metadata, mirror):
        folder.mkdir(exist_ok=True)
    (mirror / "another.mp4").touch()  # an empty one counts as not mounted
    (tmp_path / "secret.mp4").write_bytes(b"not to be read")
    quoted = [f'"{name}"'.encode("utf-8", "surrogatepass") for name in (video, person)]
    line = quoted[0] + b",0,50,1-1-9-9,25,64,64,train," + quoted[1] + b"\n"
    (metadata / "vox-metadata.csv").write_bytes(CELLS.encode() + line)
    source = {"name": "vox", "reader": "vox_metadata"}
    params = make_params(
        catalog={"sources": [source]},
        # An address that refuses at once: what the mirror lacks is asked for there.
        download={"mirror": str(mirror), "url": "http://127.0.0.1:9/{video_id}", "retries": 0}
        | {"per_minute": 1e6, "burst": 10**6, "timeout": 1.0},
    )
    with written() as places:
        rows = rebuild(params)
    stays_inside(places, tmp_path)
    for row in rows:
        if row["status"] == "ok":
            assert base.is_safe(row["person"]) and base.is_safe(row["video"])
        else:
            assert row["status"] == "bad_annotation" and row["detail"]
    fetched = manifest.read(params.paths.manifest("download")).to_pylist()
    assert all(row["status"] == "network" and row["path"] is None for row in fetched)


@pytest.mark.parametrize("name", [n for n in HOSTILE if set(n) - set("x") or not n])
def test_a_hostile_identifier_in_takedowns_stops_with_its_line(
    make_params: Callable[..., Params], tmp_path: Path, name: str
) -> None:
    text = f'kind,id,date,reason\nperson,"{name}",2026-01-01,asked\n'
    path = tmp_path / "hostile.csv"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    params = make_params(catalog={"takedowns": str(path)})
    if name in ("space ", " space", "tab\t"):  # blanks around an id are pardoned
        assert set(read_takedowns(str(path)).lines) == {("person", name.strip())}
        return
    with pytest.raises(UserError, match=r"hostile\.csv"):
        catalog.build(params)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://h/x", "concat:/etc/passwd", "-o x"])
def test_a_list_s_own_link_is_a_web_address_or_the_row_is_refused(
    make_params: Callable[..., Params], tmp_path: Path, url: str
) -> None:
    folder = tmp_path / "metadata"
    folder.mkdir()
    (folder / "RD_annotion_time.txt").write_text("Radio1.mp4 00:01-00:05\n")
    (folder / "RD_video_url.txt").write_text(f"Radio1 {url}\n")
    (folder / "RD_resolution.txt").write_text("Radio1.mp4 720\n")
    (folder / "RD_crop_wh.txt").write_text("Radio1_0.mp4 0 100 0 100\n")
    params = make_params(catalog={"sources": [{"name": "hdtf", "reader": "hdtf"}]})
    catalog.build(params)
    (row,) = manifest.read(params.paths.manifest("catalog")).to_pylist()
    assert (row["status"], row["url"]) == ("bad_annotation", None)
    (folder / "RD_video_url.txt").write_text("Radio1 https://site/x\n")
    catalog.build(params)
    (row,) = manifest.read(params.paths.manifest("catalog")).to_pylist()
    assert (row["status"], row["url"]) == ("ok", "https://site/x")


# --- manifests that somebody else wrote -------------------------------------------------------


def change(params: Params, stage: str, schema: pa.Schema, **values: object) -> None:
    """Rewrite every row of a manifest."""
    url = params.paths.manifest(stage)
    rows = manifest.read(url).to_pylist()
    for row in rows:
        row |= values
    with ManifestWriter(url, schema) as writer:
        writer.write(pa.Table.from_pylist(rows, schema=schema))


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "a\nb", "s3://b/x", "{ext}"])
def test_a_hostile_catalog_names_no_video_outside_the_mirror(
    fetch_all: Any, tmp_path: Path, make_video: Callable[..., Path], name: str
) -> None:
    make_video(tmp_path / "secret.mp4")
    (tmp_path / "a" / "mirror").mkdir(parents=True)
    with pytest.raises(UserError, match="make it anew"):
        fetch_all([name], mirror=str(tmp_path / "a" / "mirror"))


@pytest.mark.parametrize("column", ["key", "shard"])
@pytest.mark.parametrize("name", ["../../../escaped-train-0", "/escaped-train-0", "a/b-train-0"])
def test_a_hostile_catalog_writes_no_tar_and_no_member_outside(
    finished: Callable[..., Params], written: Any, tmp_path: Path, column: str, name: str
) -> None:
    params = finished()
    for stage, schema in (("catalog", CATALOG), ("crop", CROPS)):
        if column in schema.names:
            change(params, stage, schema, **{column: name})
    if column == "key":
        change(params, "landmarks", LANDMARKS, key=name)
    with written() as places, pytest.raises(StopStage, match=f"a {column} that is none"):
        shard.prepare(params)
    stays_inside(places, tmp_path)
    assert list(tmp_path.rglob("*escaped*")) == []


@pytest.mark.parametrize(
    "path", ["videos/../../secret.mp4", "videos/../../../../../../../../etc/passwd"]
)
def test_hostile_downloads_lead_to_no_file_outside_the_work_folder(
    finished: Callable[..., Params],
    make_video: Callable[..., Path],
    without_beam: Any,
    tmp_path: Path,
    path: str,
) -> None:
    params = finished()
    make_video(tmp_path / "secret.mp4")
    facts = {"path": path, "width": 64, "height": 64, "fps": 25.0, "sha256": "00"}
    change(params, "download", DOWNLOADS, **facts)
    with pytest.raises(UserError, match="not below"):
        engine.run(crop.prepare(params))


@pytest.mark.parametrize("path", ["../../secret.mp4", "/etc/passwd", "s3://bucket/x", "memory://x"])
def test_hostile_crops_lead_to_no_file_outside_the_work_folder(
    finished: Callable[..., Params],
    without_beam: Any,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
) -> None:
    params = finished()
    monkeypatch.setattr(landmarks.detectors, "load", lambda *_: None)
    change(params, "crop", CROPS, path=path)
    with pytest.raises(UserError, match="not below"):
        engine.run(landmarks.prepare(params))
    change(params, "landmarks", LANDMARKS, crop_path=path)
    with pytest.raises(UserError, match="not below"):
        engine.run(shard.prepare(params))


def test_the_ways_below_a_folder() -> None:
    assert storage.below("work", "videos/aa/x.mp4") == "work/videos/aa/x.mp4"
    assert storage.below("s3://b/w", "videos/..x.mp4") == "s3://b/w/videos/..x.mp4"
    for path in ("../x", "a/../../x", "/x", "s3://b/x", "a/.."):
        with pytest.raises(UserError):
            storage.below("work", path)


def test_no_stage_reads_what_the_catalog_calls_a_video_as_a_path(
    fetch_all: Any, make_video: Callable[..., Path], tmp_path: Path, written: Any
) -> None:
    """Harmless but odd ids are fetched, and lie under digests."""
    for name in ("-rf", "con"):
        make_video(tmp_path / "mirror" / f"{name}.mp4")
    with written() as places:
        rows = fetch_all(["-rf", "con"], mirror=str(tmp_path / "mirror"))
    assert {row["status"] for row in rows.values()} == {"ok"}
    stays_inside(places, tmp_path)
    assert not any("-rf" in p.name or p.stem == "con" for p in places if "mirror" not in p.parts)
