"""Forgetting: the request, what it covers, what is deleted, what is found, and the proof."""

from __future__ import annotations

import io
import json
import random
import struct
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dvc.cli import main as dvc
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import card, catalog, crop, detectors, download, engine, landmarks, shard, storage
from pipelines.errors import UserError
from pipelines.forget import check, held, ledger, models, requests, work
from pipelines.forget.__main__ import forget, joined, main
from pipelines.forget.contents import Searcher
from pipelines.forget.requests import Request
from pipelines.forget.search import _CHUNK, Names
from pipelines.forget.whose import Forgotten, unknown, whose
from pipelines.params import Params
from pipelines.records import Records
from pipelines.schemas import CATALOG, CROPS, DOWNLOADS, IDENTITY, INDEX, LANDMARKS
from pipelines.verify import verify

MakeParams = Callable[..., Params]
HEADER = "kind,id,date,reason\n"
LEAVER, FRIEND, STRANGER = "id00001", "id00002", "id00003"
OWN, SHARED, OTHER = "-own_video1", "sharedvideo", "othervideo_"


def annotate(root: Path, person: str, video: str, utterance: str = "00001") -> None:
    path = root / person / video / f"{utterance}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    head = f"Identity  : \t{person}\nReference : \t{video}\nOffset    : \t-2\n"
    head += "FV Conf   : \t20.5\nASD Conf  : \t4.5\n\nFRAME \tX \tY \tW \tH \n"
    left = int(person[-1]) / 20  # two people are never in the same place
    path.write_text(head + "".join(f"{n:06d} \t{left} \t0.2 \t0.3 \t0.4 \n" for n in range(7, 10)))


@pytest.fixture
def params(make_params: MakeParams, tmp_path: Path) -> Params:
    """Three people; the first has a video alone and one with the second."""
    root = tmp_path / "metadata"
    annotate(root, LEAVER, OWN)
    annotate(root, LEAVER, OWN, "00002")
    annotate(root, LEAVER, SHARED)
    annotate(root, FRIEND, SHARED)
    annotate(root, STRANGER, OTHER)
    return make_params()


def asked(params: Params, *lines: str) -> list[Request]:
    Path(params.catalog.takedowns).write_text(HEADER + "".join(f"{line},,\n" for line in lines))
    return requests.read(params.catalog.takedowns)


# --- the request -----------------------------------------------------------------------------


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
    assert catalog.read_takedowns(str(path)).videos == {"-QLb_x"}
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


def test_an_id_may_look_like_an_option(params: Params, params_file: Callable[..., str]) -> None:
    assert joined(["--video", "-x", "--clip", "--check", "--check"]) == [
        "--video=-x",
        "--clip=--check",
        "--check",
    ]
    assert main(["--params", params_file(params), "--video", OWN, "--person", "_x"]) == 0
    lines = Path(params.catalog.takedowns).read_text().splitlines()[1:]
    assert [line.split(",")[:2] for line in lines] == [["person", "_x"], ["video", OWN]]


@pytest.mark.parametrize(
    "words", [[], ["--check", "--again"], ["--person", "id1", "--check"], ["--video", "a/b"]]
)
def test_a_wrong_call_changes_nothing(
    params: Params, params_file: Callable[..., str], words: list[str]
) -> None:
    assert main(["--params", params_file(params), *words]) == 2
    assert Path(params.catalog.takedowns).read_text() == HEADER


# --- the search ------------------------------------------------------------------------------


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


# --- what a request covers -------------------------------------------------------------------


def test_a_person_takes_their_own_videos_along(params: Params) -> None:
    forgotten = whose(params, asked(params, f"person,{LEAVER}"))
    assert set(forgotten.videos) == {OWN}
    assert set(forgotten.ids) == {OWN}
    assert forgotten.shared == {SHARED}
    assert {FRIEND, STRANGER, SHARED, OTHER} <= forgotten.staying
    assert not forgotten.staying & {LEAVER, OWN}
    assert list(unknown(forgotten)) == []


def test_a_video_and_a_clip(params: Params) -> None:
    clip = f"{STRANGER}_{OTHER}_00001"
    forgotten = whose(params, asked(params, f"video,{SHARED}", f"clip,{clip}", "person,nobody7"))
    # The only clip of a video takes the video along.
    assert set(forgotten.videos) == {SHARED, OTHER}
    assert f"{STRANGER}/{OTHER}/00001" in forgotten.ids
    assert forgotten.request(FRIEND, SHARED, "") == forgotten.requests[0]
    assert forgotten.request(LEAVER, OWN, "") is None
    assert [r.id for r in unknown(forgotten)] == ["nobody7"]


def test_the_catalog_knows_what_the_lists_no_longer_tell(
    params: Params, tmp_path: Path, write_manifest: Callable[..., None]
) -> None:
    row = {
        "person": "idgone1",
        "video": "gonevideo",
        "utterance": "1",
        "key": "idgone1_gonevideo_1",
    }
    row |= {"source": "vox", "split": "", "shard": "", "crop_ready": False, "detail": ""}
    write_manifest(params, "catalog", CATALOG, [row | {"status": "ok"}])
    (tmp_path / "metadata").rename(tmp_path / "elsewhere")
    forgotten = whose(params, asked(params, "person,idgone1"))
    assert set(forgotten.videos) == {"gonevideo"}
    assert len(forgotten.unread) == 1


# --- the work folder -------------------------------------------------------------------------


def clip_row(person: str, video: str, utterance: str, path: str | None) -> dict[str, Any]:
    key = f"{person}_{video}_{utterance}"
    same = {"key": key, "source": "vox", "person": person, "video": video, "utterance": utterance}
    return same | {"status": "ok", "detail": "", "path": path}


def record(params: Params, stage: str, name: str, schema: pa.Schema, *rows: dict[str, Any]) -> str:
    """A finished item; also writes the files that its rows name."""
    for row in rows:
        if path := row.get("path"):
            storage.write_bytes(storage.join(params.paths.work, path), f"body of {path}".encode())
    full = [dict.fromkeys(schema.names) | row for row in rows]
    fingerprint = storage.digest(name)
    records = Records(params.paths.work, stage)
    records.write(fingerprint, pa.Table.from_pylist(full, schema=schema), 1.0)
    return records.url(fingerprint)


@pytest.fixture
def worked(params: Params) -> Params:
    """What the stages leave in the work folder, and what killed ones do."""
    for video, name in ((OWN, "aa11"), (SHARED, "bb22"), (OTHER, "cc33")):
        row = {"source": "vox", "video": video, "status": "ok", "detail": "", "origin": "site"}
        path = f"videos/{name[:2]}/{name}-site.mp4"
        record(params, "download", video, DOWNLOADS, row | {"path": path})
    record(params, "crop", "own", CROPS, clip_row(LEAVER, OWN, "00001", "crops/11/1101.mp4"))
    shared = clip_row(LEAVER, SHARED, "00001", "crops/22/2201.mp4")
    friend = clip_row(FRIEND, SHARED, "00001", "crops/22/2202.mp4")
    record(params, "crop", "shared", CROPS, shared, friend)
    record(params, "crop", "other", CROPS, clip_row(STRANGER, OTHER, "00001", "crops/33/3301.mp4"))
    # An older setting's crop of the leaver: only its record still knows whose it is.
    record(params, "crop", "old", CROPS, clip_row(LEAVER, OWN, "00001", "crops/44/4401.mp4"))
    for person, video, path in (
        (LEAVER, OWN, "landmarks/55/5501.npz"),
        (FRIEND, SHARED, "landmarks/66/6601.npz"),
    ):
        record(params, "landmarks", path, LANDMARKS, clip_row(person, video, "00001", path))
    work = params.paths.work
    for stray in ("crops/77/7701.mp4", "videos/88/8801-site.mp4", "partial/99/video.part"):
        storage.write_bytes(storage.join(work, stray), b"nobody's")
    storage.write_bytes(storage.join(work, "plans/1.parquet"), b"plan")
    storage.write_bytes(Records(work, "crop").url("f" * 64), b"damaged")
    return params


def test_what_is_deleted_and_what_stays(
    worked: Params, tree_bytes: Callable[[str], dict[str, bytes]]
) -> None:
    forgotten = whose(worked, asked(worked, f"person,{LEAVER}"))
    purged = work.purge(worked, forgotten)
    left = {p for p in tree_bytes(worked.paths.work) if not p.startswith("records/")}
    assert left == {
        "videos/bb/bb22-site.mp4",  # the friend needs it
        "videos/cc/cc33-site.mp4",
        "crops/33/3301.mp4",
        "landmarks/66/6601.npz",
    }
    names = {p.split("/")[1] for p in tree_bytes(worked.paths.work) if p.startswith("records/")}
    assert names == {"download", "crop", "landmarks"}
    assert len(work.owners(worked, forgotten).records) == 0
    # The friend's crop goes with the record they share, and is no file of the leaver's.
    whats = {sha256 for _, _, sha256 in purged.files}
    body = b"body of crops/22/"
    assert storage.digest_bytes(body + b"2201.mp4") in whats
    assert storage.digest_bytes(body + b"2202.mp4") not in whats
    assert len(purged.files) == 4
    again = work.purge(worked, forgotten)
    assert again.words() == "nothing"


def test_a_video_that_waits_for_its_record_stays(
    worked: Params, write_manifest: Callable[..., None]
) -> None:
    catalog.build(worked)
    items = {item.name: item.fingerprint[:16] for item in download.prepare(worked).items}
    waiting = [f"videos/{f[:2]}/{f}-site.mp4" for f in items.values()]
    waiting += [f"partial/{f}/video.part" for f in items.values()]
    for path in waiting:
        storage.write_bytes(storage.join(worked.paths.work, path), b"unrecorded")
    work.purge(worked, whose(worked, asked(worked, f"person,{LEAVER}")))
    there = {p for p in waiting if storage.exists(storage.join(worked.paths.work, p))}
    assert there == {p for p in waiting if items[OWN] not in p}


def test_a_stage_at_work_is_not_disturbed(worked: Params) -> None:
    forgotten = whose(worked, asked(worked, f"person,{LEAVER}"))
    with (
        storage.scratch_folder(worked.paths.work),
        pytest.raises(UserError, match="seems to be at work"),
    ):
        work.purge(worked, forgotten)
    assert storage.exists(storage.join(worked.paths.work, "crops/11/1101.mp4"))


# --- files of every kind ---------------------------------------------------------------------


@pytest.fixture
def searcher() -> Searcher:
    by = [Request("person", LEAVER, 2), Request("person", "_x", 3)]
    body = b"a deleted file"
    return Searcher(Forgotten(by), {(len(body), storage.digest_bytes(body)): by[0]})


def tar_of(path: Path, **members: bytes) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name.replace("__", "."))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def index_of(path: Path, person: str, video: str = "v") -> Path:
    row = dict.fromkeys(INDEX.names) | clip_row(person, video, "1", None)
    row = {name: row[name] for name in IDENTITY} | {"shard_sha256": "00", "shard_bytes": 1}
    pq.write_table(pa.Table.from_pylist([row] * 50), path, compression="zstd")
    return path


@pytest.mark.parametrize("person", [LEAVER, "_x"])
def test_tables_and_tars_by_meaning(searcher: Searcher, tmp_path: Path, person: str) -> None:
    """Ids of any length, compressed or not."""
    line = "line 2" if person == LEAVER else "line 3"
    facts = json.dumps({"person": person, "video": "v", "key": f"{person}_v_1"}).encode()
    files = [
        index_of(tmp_path / "index.parquet", person),
        tar_of(tmp_path / "a.tar", one__jpg=b"jpg", one__json=facts),
    ]
    with pa.OSFile(str(tmp_path / "r.arrow"), "wb") as sink:
        table = pa.Table.from_pylist([clip_row(person, "v", "1", None)])
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(sink, table.schema, options=options) as writer:
            writer.write_table(table)
    for path in [*files, tmp_path / "r.arrow"]:
        found = searcher.look(path, path.name)
        assert found
        assert line in found
    assert searcher.look(index_of(tmp_path / "b.parquet", "id00002"), "b.parquet") is None
    other = facts.replace(person.encode(), b"id00002")
    assert searcher.look(tar_of(tmp_path / "b.tar", one__json=other), "b.tar") is None


def test_other_files(searcher: Searcher, tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data, words in (
        (b"\xff\xd8 pixels id00001 pixels", "names the person of line 2"),
        (b"a deleted file", "deleted file of the person of line 2"),
        (b"PAR1 cut short", "cannot be read"),
        (b"nothing", None),
        (b"", None),
        (b"x_x", None),
    ):
        path.write_bytes(data)
        found = searcher.look(path, "file")
        assert (found is None) if words is None else (words in str(found))
    assert "its name" in str(searcher.look(path, "grids/id00001.png"))
    # What is reported never repeats the id: reports get kept.
    assert "id00001" not in str(searcher.look(path, "grids/id00001.png"))


def safetensors(path: Path, facts: Any) -> Path:
    said = {"format": "likeness-1", "kind": "model", "sha256": "", "facts": facts}
    header = json.dumps({"__metadata__": {"likeness": json.dumps(said)}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 16)
    return path


def test_what_a_model_was_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    assert models.datasets(safetensors(path, {"dataset": {"index_sha256": "aa"}})) == {"aa"}
    person = {"model": {"facts": {"dataset": {"index_sha256": "aa"}}}, "parents": [{}]}
    assert models.datasets(safetensors(path, person)) == {"aa"}
    assert models.datasets(safetensors(path, {})) is None
    for junk in (b"", b"\xff" * 40, struct.pack("<Q", 4) + b"{}", struct.pack("<Q", 2) + b"[]"):
        path.write_bytes(junk)
        assert models.datasets(path) is None


# --- the ledger and the proof ----------------------------------------------------------------


def test_the_ledger_names_nobody(worked: Params, tmp_path: Path) -> None:
    Path(worked.paths.data).mkdir()
    index = index_of(Path(worked.paths.data, "index.parquet"), LEAVER)
    digest = storage.sha256(index)
    inforce = asked(worked, f"person,{LEAVER}", "person,other99")
    held.note(worked, tmp_path, inforce, whose(worked, inforce), [(inforce[0], 3, "ff")])
    text = Path(ledger.url(worked)).read_text()
    assert LEAVER not in text
    book = ledger.read(worked)
    assert book[inforce[0].digest].datasets == {digest}
    assert book[inforce[0].digest].files == {(3, "ff")}
    assert book[inforce[1].digest] == ledger.Held()
    index.unlink()
    held.note(worked, tmp_path, inforce[:1], whose(worked, inforce), [])
    assert ledger.read(worked) == {inforce[0].digest: book[inforce[0].digest]}
    Path(ledger.url(worked)).write_text("{")
    with pytest.raises(UserError, match="git checkout"):
        ledger.read(worked)


def test_the_proof(
    worked: Params, tmp_path: Path, params_file: Callable[..., str], exit_codes: list[int]
) -> None:
    """From what a forgotten person left everywhere to nothing, one remedy after the other."""
    params_path = params_file(worked)
    folder = Path(worked.paths.data)
    folder.mkdir()
    index = index_of(folder / "index.parquet", LEAVER, OWN)
    (tmp_path / "runs").mkdir()
    facts = {"dataset": {"index_sha256": storage.sha256(index)}}
    safetensors(tmp_path / "runs" / "model.safetensors", facts)
    safetensors(tmp_path / "runs" / "stray.safetensors", {"dataset": {"index_sha256": "ee" * 32}})
    safetensors(tmp_path / "runs" / "mute.safetensors", {})
    (tmp_path / "notes.md").write_text(f"ask {LEAVER}")
    Path(worked.paths.cards).mkdir()
    Path(worked.paths.cards, "report.html").write_text(f"<td>{OWN}</td>")
    assert forget(worked, tmp_path, [requests.request("person", LEAVER, "2026-11-23", "")]) == 0

    def proof() -> check.Proof:
        inforce = requests.read(worked.catalog.takedowns)
        return check.check(worked, tmp_path, inforce, whose(worked, inforce))

    first = proof()
    assert {Path(f.file).name for f in first.findings} == {
        "index.parquet",
        "notes.md",
        "report.html",
    }
    assert main(["--params", params_path, "--check"]) == 1
    index_of(index, STRANGER, OTHER)
    Path(worked.paths.cards, "report.html").write_text("")
    (tmp_path / "notes.md").unlink()
    clean = proof()
    assert clean.findings == []
    assert main(["--params", params_path, "--check"]) == 0
    saw = {line.split(":")[0]: line for line in clean.saw}
    assert "data of the person of line 2" in saw["runs/model.safetensors"]
    assert "cannot be told" in saw["runs/stray.safetensors"]
    assert "does not say" in saw["runs/mute.safetensors"]
    assert any("annotations in" in note for note in clean.notes)
    # A deleted file that comes back under any name, and one that no record speaks of.
    storage.write_bytes(str(tmp_path / "backup" / "x.bin"), b"body of crops/11/1101.mp4")
    storage.write_bytes(storage.join(worked.paths.work, "crops/00/0001.mp4"), b"whose?")
    words = {Path(f.file).name: f.what for f in proof().findings}
    assert "deleted file" in words.pop("x.bin")
    assert "no record tells" in words.pop("0001.mp4")
    assert words == {}


def test_a_line_added_by_hand(
    worked: Params, tmp_path: Path, params_file: Callable[..., str]
) -> None:
    inforce = asked(worked, f"person,{LEAVER}")
    found = check.check(worked, tmp_path, inforce, whose(worked, inforce))
    assert any("added by hand" in note for note in found.notes)
    assert any("records" in f.file for f in found.findings)
    assert main(["--params", params_file(worked), "--again"]) == 0
    found = check.check(worked, tmp_path, inforce, whose(worked, inforce))
    assert not found.findings
    assert not any("added by hand" in note for note in found.notes)


def test_nobody_is_told_apart_by_a_prefix(params: Params, tmp_path: Path) -> None:
    annotate(tmp_path / "metadata", LEAVER + "7", OTHER)
    inforce = asked(params, f"person,{LEAVER}")
    (tmp_path / "list.txt").write_text(f"{LEAVER}7 and {STRANGER}")
    assert check.check(params, tmp_path, inforce, whose(params, inforce)).findings == []


def test_an_unknown_id_is_said_plainly(
    params: Params, params_file: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--params", params_file(params), "--person", "id99999"]) == 0
    assert "no annotation knows this person" in capsys.readouterr().err
    assert main(["--params", params_file(params), "--person", LEAVER]) == 0
    assert capsys.readouterr().err == ""


def test_nothing_to_look_for(params: Params, params_file: Callable[..., str]) -> None:
    assert main(["--params", params_file(params), "--check"]) == 0


# --- the whole way ---------------------------------------------------------------------------


class Faces:
    """Stands in for a landmark model: a face in every frame, the same everywhere."""

    name = "mediapipe"

    def __call__(self, frames: Any, boxes: Any) -> detectors.Landmarks:
        points = np.tile(np.linspace(8, 24, 68, dtype=np.float32)[:, None], (len(frames), 1, 2))
        return detectors.Landmarks(points, np.ones(len(frames), np.float32))


@pytest.fixture
def project(
    params: Params,
    tmp_path: Path,
    make_params: MakeParams,
    make_video: Callable[..., Path],
    without_beam: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> Params:
    """A git and DVC repository with a cache and a remote, and noise for videos in a mirror."""
    pytest.importorskip("jinja2", reason="the extra `card`")
    root = tmp_path / "project"
    (tmp_path / "metadata").rename(tmp_path / "lists")
    for number in range(4):
        annotate(tmp_path / "lists", f"id0001{number}", f"longvideo{number}")
    for seed, path in enumerate(sorted({p.parent for p in (tmp_path / "lists").glob("*/*/*")})):
        make_video(tmp_path / "mirror" / f"{path.name}.mp4", frames=16, side=64, seed=seed)
    monkeypatch.setattr(detectors, "load", lambda *_: Faces())
    root.mkdir()
    monkeypatch.chdir(root)
    (root / "takedowns.csv").write_text(HEADER)
    (tmp_path / "lists").rename(root / "metadata")
    names = ("data", "work", "metrics", "cards")
    loose = {"min_sharpness": 0.0, "min_overlap": 0.0, "max_yaw": 180.0, "max_pitch": 180.0}
    made = make_params(
        paths={name: name for name in names},
        catalog={"metadata": "metadata", "takedowns": "takedowns.csv", "split": {"val": 0.0}},
        download={"mirror": str(tmp_path / "mirror")},
        crop={"size": 32, "min_face": 0, "min_frames": 1, "scene_threshold": 0.0},
        landmarks=loose | {"max_roll": 180.0, "backend": "mediapipe"},
        shard={"clips": 1, "frames": 3},
    )
    subprocess.run(["git", "init", "--quiet"], check=True)
    for words in (["init", "-q"], ["remote", "add", "-q", "--default", "far", "../store"]):
        assert dvc(words) == 0
    return made


def rebuild(params: Params) -> dict[str, str]:
    """Run every stage and hand the outs to DVC and its remote; sha256 of every tar."""
    catalog.build(params)
    for stage in (download, crop, landmarks, shard):
        engine.run(stage.prepare(params))
    card.build(params)
    manifests = sorted(str(path) for path in Path("data").glob("*.parquet"))
    assert dvc(["add", "-q", "data/shards", *manifests]) == 0
    assert dvc(["push", "-q"]) == 0
    subprocess.run(["git", "add", "."], check=True)
    name = ["-c", "user.name=x", "-c", "user.email=x@y"]
    subprocess.run(["git", *name, "commit", "--quiet", "-m", "rebuilt"], check=True)
    return {path.name: storage.sha256(path) for path in Path("data/shards").rglob("*.tar")}


def files_with(*needles: bytes) -> set[str]:
    """The plainest search of all: it shares nothing with the tool's."""
    every = [p for root in (Path(), Path("../store")) for p in root.rglob("*") if p.is_file()]
    found = {p for p in every if any(needle in p.read_bytes() for needle in needles)}
    return {p.parts[0] for p in found if ".git" not in p.parts}


def test_the_whole_way(
    project: Params, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under git and DVC: only their tars change, and in the end no byte of theirs is left."""
    before = rebuild(project)
    clips = pq.read_table("data/index.parquet").to_pylist()
    theirs = [clip for clip in clips if clip["person"] == LEAVER]
    held_by = {f"{clip['shard']}.tar" for clip in theirs}
    assert len(theirs) == 3
    assert held_by < before.keys()
    frames = []
    for clip in theirs:
        tar = Path("data/shards", clip["split"], f"{clip['shard']}.tar").read_bytes()
        for at, size in zip(clip["frame_offsets"], clip["frame_sizes"], strict=True):
            frames.append(tar[at + size // 2 :][:32])
    assert files_with(*frames) == {"data", ".dvc", ".."}

    Path("params.yaml").write_text(project.model_dump_json(exclude_none=True))
    assert main(["--person", LEAVER]) == 0
    assert "dvc gc --workspace --cloud --remote far" in capsys.readouterr().out
    after = rebuild(project)
    assert {name for name in before if after.get(name) != before[name]} == held_by
    inforce = requests.read("takedowns.csv")

    def remain() -> set[str]:
        found = check.check(project, Path(), inforce, whose(project, inforce)).findings
        return {f.remedy for f in found}

    gc = "run `dvc gc --workspace` once `dvc repro` has ended"
    assert remain() == {gc, "run `dvc gc --workspace --cloud --remote far`"}
    assert dvc(["gc", "-q", "-w", "-f"]) == 0
    assert remain() == {"run `dvc gc --workspace --cloud --remote far`"}
    with monkeypatch.context() as patch:  # a remote that is no folder is asked for old manifests
        patch.setattr(check.repository, "folder_of", lambda remote: None)
        assert remain() == {"run `dvc gc --workspace --cloud --remote far`"}
        assert dvc(["gc", "-q", "-w", "-f", "-c", "-r", "far"]) == 0
        assert remain() == set()
    capsys.readouterr()
    assert main(["--check"]) == 0
    said = capsys.readouterr().out
    assert "nothing remains" in said
    assert "git's history names them in" in said
    assert LEAVER not in said
    assert OWN not in said

    assert files_with(LEAVER.encode(), OWN.encode()) == {"takedowns.csv", "metadata"}
    assert files_with(*frames) == set()
    assert len(pq.read_table("data/index.parquet")) == len(clips) - 3
    numbers = json.loads(Path("metrics/card.json").read_text())
    assert numbers["clips"] == len(clips) - 3
    assert numbers["excluded"] == 3
    shared = next(clip for clip in clips if clip["person"] == FRIEND)
    assert f"{shared['shard']}.tar" in after
    assert verify(project)["clips"] == len(clips) - 3
