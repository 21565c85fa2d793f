"""From clips forward to the files they went into."""

from pathlib import Path

import pytest
from relatives import (
    forget_person,
    give_digests,
    model_facts,
    run,
    write_tensors,
    write_video,
)

from pipelines import manifest, storage
from pipelines.forget import ledger, requests
from pipelines.lineage.__main__ import main
from pipelines.params import Params
from pipelines.records import Records


def test_from_a_clip_forward(
    project: Params, family: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    told = run(capsys, "--clip", "id0_v0_00000", "--look", "people", "--clips")
    assert told["tars"] == {project.paths.manifest("shard"): ["vox-train-00000.tar"]}
    touched = {Path(one["path"]).name: (one["kind"], one["relation"]) for one in told["made"]}
    assert touched == {
        "small.safetensors": ("model", "learned from it"),
        "step-000000090.safetensors": ("checkpoint", "learned from it"),
        "mona.safetensors": ("person", "learned from it"),
        "mona.mp4": ("video", "learned from it"),
    }
    assert [clip["key"] for clip in told["clips"]] == ["id0_v0_00000"]
    assert told["stages"]["crop"] == {"ok": 1}


def test_another_split_was_not_learned_from(
    project: Params, family: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    told = run(capsys, "--video", "v1")
    assert {one["relation"] for one in told["made"]} == {"same dataset, other split"}
    assert told["stages"]["catalog"] == {"filtered": 1, "ok": 2}


def test_a_crop_that_was_cut_anew_since_is_known_by_its_record(
    project: Params, family: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """A driver of the test people, a model of the train people, both of the dataset of before."""
    crops = Path(project.paths.manifest("crop"))
    then = give_digests(project)["id2_v2_00000"]
    Records(project.paths.work, "crop").write("00ff", manifest.read(str(crops)), 1.0)
    give_digests(project, "cut anew")
    index = Path(project.paths.manifest("shard"))
    old = index.rename("old.parquet")
    forget_person(old, "nobody", index)
    facts = {"driver": {"name": "d.mp4", "sha256": then}, "model": {"sha256": "00", "facts": {}}}
    facts["model"]["facts"] = model_facts(storage.sha256(old))  # type: ignore[index]
    video = write_video(Path(project.paths.results, "v.mp4"), facts)
    for more in ((), ("--index", "old.parquet")):
        told = run(capsys, "--person", "id2", *more)
        relations = {Path(one["path"]).name: one["relation"] for one in told["made"]}
        assert relations["v.mp4"] == "was given it"
    told = run(capsys, str(video))
    assert "is the clip id2_v2_00000 of vox, from https://videos" in told["from"][-1]["note"]


def test_frames_of_a_person_pass_on_to_its_videos(
    project: Params, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crop = give_digests(project)["id2_v2_00000"]
    person = tmp_path / "results/p.safetensors"
    sha256 = write_tensors(person, "person", {"parents": [{"kind": "frames", "sha256": crop}]})
    write_video(tmp_path / "results/a.mp4", {"person": sha256})
    write_video(tmp_path / "results/b.mp4", {"person": "00" * 32})
    told = run(capsys, "--person", "id2")
    assert [(Path(one["path"]).name, one["relation"]) for one in told["made"]] == [
        ("a.mp4", "was given it"),
        ("p.safetensors", "was given it"),
    ]


def test_takedowns_are_told(
    project: Params, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "--person", "id9")["taken_down"] is False
    Path(project.catalog.takedowns).write_text("kind,id,date,reason\nperson,id9,2024-01-01,asked\n")
    assert main(["--person", "id9"]) == 0
    told = capsys.readouterr().out
    assert "taken out by takedowns.csv" in told
    assert "no manifest of this project knows it" in told


def test_damaged_files_are_told_and_do_not_stop_it(
    project: Params, family: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    family["checkpoint"].write_bytes(family["checkpoint"].read_bytes()[:100])
    family["video"].unlink()
    Path("results").mkdir()
    Path("results/holiday.jpg").write_bytes(b"somebody else's picture")
    Path("results/results.json").write_text('{"of": "somebody else"}')
    Path("results/x.mp4.likeness.json").write_text("{")
    Path("results/x.mp4").write_text("x")
    told = run(capsys, "--clip", "id0_v0_00000", "--look", "people")
    # The video is gone, but its sidecar tells of it.
    assert sorted(one["kind"] for one in told["made"]) == ["model", "person", "video"]
    assert [Path(line.split(": ")[0]).name for line in told["damaged"]] == [
        "step-000000090.safetensors",
        "x.mp4",
    ]


def test_after_a_takedown_the_ledger_still_knows(
    project: Params, family: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The index that held them is gone by then, and so are their rows."""
    index = Path(project.paths.manifest("shard"))
    digest = storage.sha256(index)
    crop = give_digests(project)["id0_v0_00000"]
    person = {"parents": [{"kind": "frames", "sha256": crop}]}
    write_tensors(tmp_path / "results/p.safetensors", "person", person)
    takedowns = Path(project.catalog.takedowns)
    takedowns.write_text("kind,id,date,reason\nperson,id0,,\nperson,id1,,\n")
    first, second = requests.read(str(takedowns))
    held = ledger.Held({(digest, "train")}, files={(1, crop)})
    book = ledger.Ledger({first.digest: held, second.digest: ledger.Held(without={digest})})
    book.people[digest] = {ledger.person("id3"): "train", ledger.person("id2"): "test"}
    ledger.write(project, book, [first, second])
    index.unlink()
    told = run(capsys, "--person", "id0", "--look", "people")
    relations = {Path(one["path"]).name: one["relation"] for one in told["made"]}
    assert relations["small.safetensors"] == relations["mona.mp4"] == "learned from it"
    assert relations["p.safetensors"] == "was given it"
    assert run(capsys, "--person", "id1", "--look", "people")["made"] == []
    # So it does of those who stay, whose index of then is gone as well.
    for person_of, relation in (("id3", "learned from it"), ("id2", "same dataset, other split")):
        told = run(capsys, "--person", person_of, "--look", "people")
        relations = {Path(one["path"]).name: one["relation"] for one in told["made"]}
        assert relations["small.safetensors"] == relation
