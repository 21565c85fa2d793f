"""From a file back to the clips and links that made it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from relatives import (
    URL,
    add_source,
    forget_person,
    give_digests,
    kinds,
    model_facts,
    run,
    write_video,
)

from pipelines import storage
from pipelines.lineage.__main__ import main
from pipelines.lineage.made import SIDECAR
from pipelines.params import Params


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


def test_a_sidecar_stands_for_its_video_there_or_moved_away(
    project: Params, family: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    video = family["video"]
    sidecar = video.with_name(video.name + SIDECAR)
    told = run(capsys, str(video))
    assert told["sha256"] == storage.sha256(video) and "note" not in told
    assert run(capsys, str(sidecar)) == told
    video.unlink()
    for named in (video, sidecar):
        alone = run(capsys, str(named))
        assert alone["note"] == f"no longer there; {sidecar.name} tells of it"
        assert alone["from"] == told["from"] and "sha256" not in alone
    sidecar.unlink()
    for named in (video, sidecar, Path("gone.tar"), Path("gone.parquet")):
        assert main([str(named)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith(": no such file")


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
    link = project.download.url.replace("{video_id}", "v1")
    assert driver["note"] == f"is the clip id1_v1_00000 of vox, from {link}"
    told = run(capsys, "--clip", "id1/v1/00000")
    (touched,) = [one for one in told["made"] if one["relation"] == "was given it"]
    assert touched["path"] == str(video)
    assert touched["detail"] == "as its driver: id1_v1_00000 of vox"


def test_a_clip_of_the_same_key_in_another_source_is_another(
    project: Params, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    give_digests(project)
    key, others = "id1_v1_00000", add_source(project, "more")
    told = run(capsys, "--clip", key, "--clips")
    links = {clip["source"]: (clip["url"], clip["tar"]) for clip in told["clips"]}
    assert links == {
        "more": (f"https://more.example/{key}", "more-val-00000.tar"),
        "vox": (URL.replace("{video_id}", "v1"), "vox-val-00000.tar"),
    }
    tar = tmp_path / "more.tar"
    tar.write_bytes(b"more-val-00000")
    told = run(capsys, str(tar), "--clips")
    assert [(clip["source"], clip["url"]) for clip in told["clips"]] == [
        ("more", f"https://more.example/{clip['key']}") for clip in told["clips"]
    ]
    video = write_video(tmp_path / "results/v.mp4", {"driver": {"sha256": others[key]}})
    (driver,) = run(capsys, str(video))["from"]
    assert driver["note"] == f"is the clip {key} of more, from https://more.example/{key}"


def test_the_sources_of_a_tar_and_of_a_split_are_those_of_their_clips(
    project: Params, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_source(project, "more")
    index = Path(project.paths.manifest("shard"))
    table = pq.read_table(index)
    in_train = pc.equal(table["split"], "train")
    ours = pc.or_(pc.equal(table["source"], "vox"), in_train)
    pq.write_table(table.filter(ours), index)  # the other source has clips in train alone
    params = yaml.safe_load((tmp_path / "params.yaml").read_text())
    params["catalog"]["sources"].append({"name": "more", "reader": "voxceleb2", "path": "more"})
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))

    def sources(node: dict[str, Any]) -> list[str]:
        return [one["name"] for one in node["from"]]

    ours_alone = next(Path(project.paths.data, "shards/train").glob("vox-*.tar"))
    theirs = tmp_path / "more.tar"
    theirs.write_bytes(b"more-train-00000")
    assert sources(run(capsys, str(ours_alone))) == ["vox"]
    assert sources(run(capsys, str(theirs))) == ["more"]
    assert sources(run(capsys, str(index))) == ["vox", "more"]
    digest = storage.sha256(index)
    for split, names in (("train", ["vox", "more"]), ("val", ["vox"])):
        facts = {"dataset": {"index_sha256": digest, "split": split}}
        video = write_video(tmp_path / f"results/{split}.mp4", {"model": {"facts": facts}})
        (model,) = run(capsys, str(video))["from"]
        assert sources(model["from"][0]) == names


@pytest.mark.parametrize("name", ["table.md", "results.json", "grid.png", ""])
def test_an_evaluation_s_files(
    digest: str, family: dict[str, Path], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = Path("results/small")
    folder.mkdir(parents=True)
    (folder / "table.md").write_text("# Evaluation")
    (folder / "grid.png").write_bytes(b"no credentials")
    model = {"path": "models/small.safetensors", "sha256": storage.sha256(family["model"])}
    told = {"kind": "evaluation", "setting": "small", "model": model, "code": "1", "all": {}}
    told["dataset"] = {"index_sha256": digest, "split": "test"}
    (folder / "results.json").write_text(json.dumps(told))
    back = run(capsys, str(folder / name))
    # What it was measured on, then the model and what that had learned from.
    assert kinds(back) == ["evaluation", ["dataset", "source"], ["model", ["dataset", "source"]]]
    assert [one["name"] for one in back["from"]] == ["split test", str(family["model"])]
    (touched,) = [o for o in run(capsys, "--person", "id2")["made"] if o["kind"] == "evaluation"]
    assert touched["relation"] == "was given it" and "from test" in touched["detail"]
    (spared,) = [o for o in run(capsys, "--person", "id1")["made"] if o["kind"] == "evaluation"]
    assert spared["relation"] == "same dataset, other split"


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
