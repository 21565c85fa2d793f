import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines import shard, storage
from pipelines.lineage import made
from pipelines.lineage.__main__ import main
from pipelines.params import Params
from pipelines.params import load as load_params

URL = "https://videos.example/{video_id}?v=1"


@pytest.fixture
def project(
    finished: Callable[..., Params],
    without_beam: list[list[str]],
    params_file: Callable[[Params], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Params:
    """A dataset with clips of id0 and id3 in train, id1 in val, id2 in test."""
    paths = {name: str(tmp_path / name) for name in ("data", "work", "metrics", "cards")}
    paths |= {"models": str(tmp_path / "models"), "results": str(tmp_path / "results")}
    params = finished(videos=(3, 3, 3, 3), paths=paths, download={"url": URL})
    path = params_file(params)
    assert shard.main(["--params", path]) == 0
    monkeypatch.chdir(tmp_path)
    return load_params(path)


@pytest.fixture
def digest(project: Params) -> str:
    return storage.sha256(Path(project.paths.manifest("shard")))


def model_facts(digest: str) -> dict[str, Any]:
    return {
        "kind": "model",
        "name": "tiny",
        "setting_name": "small",
        "setting": {"batch": 4},
        "step": 90,
        "epoch": 3,
        "code": "0.1.0+g1234",
        "dataset": {"name": "tiny", "index_sha256": digest, "split": "train", "videos": 2},
        "parents": [{"kind": "index", "sha256": digest, "path": "data/index.parquet"}],
    }


def write_tensors(path: Path, kind: str, facts: dict[str, Any]) -> str:
    """A file of ours; returns its digest."""
    pytest.importorskip("torch")
    import torch

    from training import tensor_file

    path.parent.mkdir(parents=True, exist_ok=True)
    tensor_file.write(path, kind, {"x": torch.arange(9.0)}, facts)
    return storage.sha256(path)


def write_video(path: Path, facts: dict[str, Any]) -> Path:
    """A video with a sidecar, as `training.marking` writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"pictures")
    told = {"format": made.SIDECAR_FORMAT, "files": {path.name: ""}, "facts": facts}
    path.with_name(path.name + made.SIDECAR).write_text(json.dumps(told))
    return path


@pytest.fixture
def family(project: Params, digest: str, tmp_path: Path) -> Iterator[dict[str, Path]]:
    """A model, a checkpoint, a person adapted from the model and a video of that person."""
    model = tmp_path / "models/small.safetensors"
    of_model = {"sha256": write_tensors(model, "model", model_facts(digest))}
    of_model["facts"] = model_facts(digest)  # type: ignore[assignment]
    checkpoint = tmp_path / "work/runs/r/checkpoints/step-000000090.safetensors"
    write_tensors(checkpoint, "checkpoint", model_facts(digest))
    person = tmp_path / "people/mona.safetensors"
    frames = {"kind": "frames", "sha256": "f1" * 32, "name": "mona.jpg"}
    facts = {"variant": "ft", "model": of_model, "parents": [frames]}
    of_person = write_tensors(person, "person", facts)
    facts = {
        "model": of_model,
        "person": of_person,
        "driver": {"name": "d.mp4", "sha256": "d1" * 32},
    }
    video = write_video(tmp_path / "people/mona.mp4", facts)
    yield {"model": model, "checkpoint": checkpoint, "person": person, "video": video}


def run(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def kinds(node: dict[str, Any]) -> Any:
    """The tree's kinds alone."""
    below = [kinds(one) for one in node.get("from", ())]
    return [node["kind"], *below] if below else node["kind"]


# --- back ------------------------------------------------------------------------------------


def test_from_a_video_back_to_the_links(
    project: Params, digest: str, family: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    told = run(capsys, str(family["video"]), "--clips", "--look", "people")
    dataset = ["dataset", "source"]
    assert kinds(told) == [
        "video",
        ["model", dataset],
        ["person", "frames", ["model", dataset]],
        "driver",
    ]
    (model, person, _) = told["from"]
    assert model["about"] == "tiny, small, step 90, epoch 3, code 0.1.0+g1234"
    assert model["sha256"] == storage.sha256(family["model"])
    assert person["name"] == "people/mona.safetensors"
    assert model["from"][0]["sha256"] == digest
    assert model["from"][0]["about"] == "3 clips of 2 people in 2 videos, in 2 tars"
    # Once, though both the model and the person lead there.
    keys = [clip["key"] for clip in told["clips"]]
    assert keys == ["id0_v0_00000", "id3_v3_00000", "id3_v3_00001"]


def test_each_clip_with_link_seconds_and_tar(
    project: Params, family: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(family["model"]), "--clips"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split("\t") for line in lines if "\t" in line]
    import pyarrow.parquet as pq

    clips = pq.read_table(project.paths.manifest("shard")).to_pylist()
    crops = {r["key"]: r for r in pq.read_table(project.paths.manifest("crop")).to_pylist()}
    expected = [
        [
            clip["key"],
            URL.replace("{video_id}", clip["video"]),
            "{:.2f}-{:.2f}".format(
                crops[clip["key"]]["first_frame"] / 25,
                (crops[clip["key"]]["first_frame"] + crops[clip["key"]]["frames"]) / 25,
            ),
            f"{clip['shard']}.tar",
        ]
        for clip in sorted(clips, key=lambda one: one["key"])
        if clip["split"] == "train"
    ]
    assert expected
    assert rows == expected


def test_the_address_of_the_annotations_goes_before_the_template(
    project: Params, family: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipelines.manifest import ManifestWriter

    url = project.paths.manifest("catalog")
    rows = pq.read_table(url).to_pylist()
    schema = pq.read_schema(url)
    for row in rows:
        row["url"] = f"https://other.example/{row['key']}"
    with ManifestWriter(url, schema) as writer:
        writer.write(pa.Table.from_pylist(rows, schema=schema))
    told = run(capsys, str(family["model"]), "--clips")
    assert told["clips"]
    for clip in told["clips"]:
        assert clip["url"] == f"https://other.example/{clip['key']}"


def test_a_tar_a_checkpoint_and_every_manifest(
    project: Params, digest: str, family: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    tar = next(Path(project.paths.data, "shards/train").glob("*.tar"))
    told = run(capsys, str(tar), "--clips")
    assert (told["kind"], told["sha256"]) == ("tar", storage.sha256(tar))
    assert {clip["tar"] for clip in told["clips"]} == {tar.name}
    assert kinds(run(capsys, str(family["checkpoint"]))) == ["checkpoint", ["dataset", "source"]]
    assert run(capsys, project.paths.manifest("shard"))["sha256"] == digest
    chain = ["landmarks", ["crop", ["download", ["catalog", "source"]]]]
    assert kinds(run(capsys, project.paths.manifest("landmarks"))) == chain
    tar.write_bytes(tar.read_bytes() + b"more")
    assert "of this name, but of other bytes" in run(capsys, str(tar))["note"]


def test_a_driver_that_is_a_clip_of_the_dataset(
    project: Params, digest: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crop = give_digests(project)["id1_v1_00000"]
    facts = {"model": {"sha256": "", "facts": model_facts(digest)}, "driver": {"sha256": crop}}
    video = write_video(tmp_path / "results/v.mp4", facts)
    driver = next(one for one in run(capsys, str(video))["from"] if one["kind"] == "driver")
    assert driver["note"] == "is the clip id1_v1_00000"
    told = run(capsys, "--clip", "id1/v1/00000")
    (touched,) = [one for one in told["made"] if one["relation"] == "was given it"]
    assert (touched["path"], touched["detail"]) == (str(video), "as its driver: id1_v1_00000")


def give_digests(project: Params) -> dict[str, str]:
    """Write a digest into every crop's row, as the stage does; returns them by key."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipelines.manifest import ManifestWriter

    url = project.paths.manifest("crop")
    rows, schema = pq.read_table(url).to_pylist(), pq.read_schema(url)
    for row in rows:
        row["sha256"] = storage.digest("crop", row["key"])
    with ManifestWriter(url, schema) as writer:
        writer.write(pa.Table.from_pylist(rows, schema=schema))
    return {row["key"]: row["sha256"] for row in rows}


def test_another_state_of_the_dataset(
    project: Params, digest: str, family: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    current = Path(project.paths.manifest("shard"))
    shutil.copy(current, "old.parquet")
    forget_person(current, "id3")
    (dataset,) = run(capsys, str(family["model"]))["from"]
    assert dataset["sha256"] == digest
    assert f"git log --oneline -S {digest}" in dataset["note"]
    assert "--index old.parquet" in dataset["note"]
    (dataset,) = run(capsys, str(family["model"]), "--index", "old.parquet")["from"]
    assert dataset["about"].startswith("3 clips of 2 people")
    # Forward: nothing at hand says whether the model saw it, and that is what is told.
    told = run(capsys, "--person", "id3")
    assert told["tars"] == {}
    relations = {one["kind"]: one["relation"] for one in told["made"]}
    assert relations == {"model": "cannot be told", "checkpoint": "cannot be told"}
    told = run(capsys, "--person", "id3", "--index", "old.parquet")
    assert {one["relation"] for one in told["made"]} == {"learned from it"}
    assert list(told["tars"]) == ["old.parquet"]


def forget_person(index: Path, person: str) -> None:
    """An index as a rebuild without that person writes it."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(index)
    pq.write_table(table.filter(pc.not_equal(table["person"], person)), index)


# --- forward ---------------------------------------------------------------------------------


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
    Path("results/x.mp4.likeness.json").write_text("{")
    Path("results/x.mp4").write_text("x")
    told = run(capsys, "--clip", "id0_v0_00000", "--look", "people")
    # The video is gone, but its sidecar tells of it.
    assert sorted(one["kind"] for one in told["made"]) == ["model", "person", "video"]
    assert [Path(line.split(": ")[0]).name for line in told["damaged"]] == [
        "step-000000090.safetensors",
        "x.mp4",
    ]


def test_trees_for_people(
    project: Params, family: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(family["video"])]) == 0
    told = capsys.readouterr().out
    assert "└── driver d.mp4 d1d1d1d1d1d1d1d1" in told
    assert "dataset split train" in told
    assert main(["--person", "id0"]) == 0
    told = capsys.readouterr().out
    assert "└── vox-train-00000.tar" in told
    assert "learned from it: from train of the dataset" in told


# --- misuse and strangers --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "name a file"),
        (["a.mp4", "--clip", "k"], "name a file"),
        (["none.mp4"], "none.mp4: no such file"),
        (["words.txt"], "nothing tells how it was made"),
        (["words.parquet"], "not a readable manifest"),
        (["words.safetensors"], "damaged, or not made by Likeness"),
        (["--clip", "k", "--look", "none"], "--look none: no such folder"),
        (["--clip", "k", "--index", "none.parquet"], "none.parquet is missing"),
        (["--clip", "k", "--index", "words.parquet"], "not a readable manifest"),
    ],
)
def test_misuse_is_one_line(
    project: Params, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("words.txt", "words.parquet", "words.safetensors"):
        Path(name).write_text("only words")
    assert main(words) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 16,
        (2**62).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (200_000).to_bytes(8, "little") + b"[" * 200_000,
    ],
)
def test_headers_that_lie(project: Params, data: bytes) -> None:
    Path("x.safetensors").write_bytes(data)
    assert main(["x.safetensors"]) == 2


def test_facts_that_nest_without_end(
    project: Params, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts: dict[str, Any] = {}
    for _ in range(100):
        facts = {"model": {"sha256": "aa" * 32, "facts": facts}}
    video = write_video(tmp_path / "results/deep.mp4", facts)
    assert run(capsys, str(video))["kind"] == "video"
    assert run(capsys, "--clip", "k")["made"] == []


def test_without_any_manifest(
    make_params: Callable[..., Params],
    params_file: Callable[[Params], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    params_file(make_params())
    monkeypatch.chdir(tmp_path)
    told = run(capsys, "--clip", "a_b_c")
    assert (told["stages"], told["tars"], told["made"]) == ({}, {}, [])
    write_video(tmp_path / "v.mp4", {"model": {"facts": model_facts("ab" * 32)}})
    (model,) = run(capsys, "v.mp4")["from"]
    assert "another state of the dataset" in model["from"][0]["note"]


def test_embedded_credentials_stand_in_for_a_lost_sidecar(
    project: Params, digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("c2pa")
    pytest.importorskip("torch")
    from PIL import Image

    from training.marking import keys, sidecar_path, sign

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    picture = tmp_path / "results/p.png"
    picture.parent.mkdir()
    Image.new("RGB", (8, 8)).save(picture)
    facts = {"model": {"sha256": "", "facts": model_facts(digest)}}
    sign(picture, facts=facts, label=None, keys=keys(None, None))
    with_sidecar = made.read(picture)
    sidecar_path(picture).unlink()
    assert made.read(picture) == with_sidecar
    assert with_sidecar.facts == facts
    assert list(made.find([tmp_path / "results"])) == [with_sidecar]


def test_constants_agree_with_those_who_write() -> None:
    pytest.importorskip("c2pa")
    pytest.importorskip("torch")
    from training import tensor_file
    from training.marking import credentials

    assert (tensor_file.FORMAT, tensor_file.KEY) == (made.TENSOR_FORMAT, made.TENSOR_KEY)
    assert (credentials.FORMAT, credentials.SUFFIX) == (made.SIDECAR_FORMAT, made.SIDECAR)
    assert credentials.ASSERTION == made.ASSERTION
    assert tuple(sorted(credentials.TYPES)) == tuple(sorted(made.MEDIA))


def test_as_a_command_without_torch(project: Params) -> None:
    root = Path(__file__).parents[2]
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pipelines.lineage.__main__ import main\n"
        f"sys.exit(main([{project.paths.manifest('shard')!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("dataset ")
