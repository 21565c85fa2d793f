"""The card of a small dataset that met every status: README, Croissant, metrics, the command."""

import json
import re
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from card_run import SECRET, build_card, build_run, make_params, write

from pipelines import card, shard, storage
from pipelines.errors import UserError
from pipelines.params import Params
from pipelines.report.table import rows_of
from pipelines.schemas import CATALOG, CROPS, DOWNLOADS, INDEX, LANDMARKS
from pipelines.shard import tar_url
from pipelines.statuses import Status

pytest.importorskip("jinja2")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Params, Path]:
    """A built card; read only."""
    return build_card(tmp_path_factory.mktemp("card"))


def test_metrics_hold_the_headline(made):
    params, _ = made
    found = json.loads(Path(params.paths.metrics, "card.json").read_text())
    index = Path(params.paths.manifest("shard"))
    assert found["digest"] == storage.sha256(index)
    assert {k: found[k] for k in ("people", "videos", "clips", "frames", "pictures", "shards")} == {
        "people": 5, "videos": 10, "clips": 20, "frames": 1200, "pictures": 80, "shards": 3,
    }  # fmt: skip
    assert found["bytes"] == sum(p.stat().st_size for p in index.parent.rglob("*.tar"))
    assert sum(split["clips"] for split in found["splits"].values()) == 20
    assert found["excluded"] == 2


def test_manifests_of_different_runs_are_refused(tmp_path):
    params = make_params(tmp_path)
    build_run(params)
    write(params, "landmarks", [], LANDMARKS)
    with pytest.raises(UserError, match=r"different runs; run `dvc repro`"):
        card.build(params)


def test_front_matter_is_a_dataset_card(made):
    hub = pytest.importorskip("huggingface_hub")
    _, folder = made
    head = hub.metadata_load(folder / "README.md")
    assert head["license"] == "cc-by-4.0" and head["pretty_name"] == "Small: a test"
    assert head["size_categories"] == ["n<1K"]
    assert [f["split"] for f in head["configs"][0]["data_files"]] == ["train", "validation", "test"]
    data = hub.DatasetCard.load(folder / "README.md").data
    assert data.license == "cc-by-4.0" and "talking-head" in data.tags


def test_card_tells_the_losses_and_no_secret(made):
    _, folder = made
    text = (folder / "README.md").read_text()
    for status in Status:
        assert (f"| `{status}` |" in text) == (status != Status.OK), status
    assert "2 annotated clips were taken out" in text
    for name in ("README.md", "croissant.json", "report.html"):
        assert SECRET not in (folder / name).read_text(), name


def test_people_whom_the_publisher_tore_apart_are_counted(made, tmp_path):
    _, folder = made
    files = ("README.md", "report.html", "croissant.json")
    whole, torn = "All clips of a person are in the same split.", "several of them. People: 1."
    for name in files:
        assert whole in (folder / name).read_text(), name
    params = make_params(tmp_path)
    build_run(params)
    rows = pq.read_table(params.paths.manifest("shard")).to_pylist()
    for row in rows:
        if row["person"] == "id3":  # of test; id0 is of train
            row["person"] = "id0"
    write(params, "shard", rows, INDEX)
    card.build(params)
    for name in files:
        text = Path(params.paths.cards, "small", name).read_text()
        assert f"clips of the same person are in {torn}" in text, name
        assert not re.search("all clips of a person|by person", text, re.IGNORECASE), name


def test_unknown_licences_are_spelled_out(tmp_path):
    params = make_params(tmp_path, licence="House licence 3")
    assert card.licence(params) == {"license": "other", "license_name": "House licence 3"}


def test_the_examples_run(made, monkeypatch):
    params, folder = made
    monkeypatch.chdir(params.paths.data)
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)
    assert len(blocks) == 2
    for block in blocks:
        names: dict = {}
        exec(block, names)
        assert names["landmarks"].shape == (60, 68, 2)


def test_croissant_is_valid_and_readable(made):
    mlc = pytest.importorskip("mlcroissant")
    params, folder = made
    # As published: the metadata beside the data.
    published = Path(params.paths.data) / "croissant.json"
    shutil.copyfile(folder / "croissant.json", published)
    dataset = mlc.Dataset(jsonld=str(published))
    assert not dataset.metadata.ctx.issues.errors
    # The publication's date is a clock's word; nothing else is missing.
    assert all("datePublished" in w for w in dataset.metadata.ctx.issues.warnings)
    clips = list(dataset.records("clips"))
    assert len(clips) == 20 and list(clips[0]["clips/frame_numbers"]) == [0, 20, 30, 59]
    pictures = list(dataset.records("val/pictures"))
    keys = Counter(record["val/pictures/key"].decode() for record in pictures)
    assert set(keys.values()) == {4}
    assert set(keys) == {c["clips/key"].decode() for c in clips if c["clips/split"] == b"val"}


def test_card_and_croissant_are_deterministic(made, tmp_path):
    params, folder = made
    names = ("README.md", "croissant.json")
    before = {name: (folder / name).read_bytes() for name in names}
    again = params.model_copy(
        update={"paths": params.paths.model_copy(update={"cards": str(tmp_path)})}
    )
    card.build(again)
    assert before == {name: (tmp_path / "small" / name).read_bytes() for name in names}
    for data in before.values():
        assert str(tmp_path.parent).encode() not in data, "a path of this machine"


def test_a_missing_tar_is_one_line(tmp_path):
    params = make_params(tmp_path)
    build_run(params)
    Path(tar_url(params, "vox-val-00000")).unlink()
    with pytest.raises(UserError, match=r"vox-val-00000.tar is missing"):
        card.build(params)


def test_command_makes_an_empty_dataset_too(tmp_path, capsys):
    params = make_params(tmp_path)
    for stage, schema in (
        ("catalog", CATALOG), ("download", DOWNLOADS), ("crop", CROPS),
        ("landmarks", LANDMARKS), ("shard", INDEX),
    ):  # fmt: skip
        write(params, stage, [], schema)
    assert card.main(["--params", str(tmp_path / "params.yaml")]) == 0
    assert "0 of 0 annotated clips" in capsys.readouterr().out
    folder = Path(params.paths.cards, "small")
    text = (folder / "report.html").read_text()
    assert "The dataset is empty" in text
    assert list(rows_of(text)) == []
    assert "configs" not in yaml.safe_load((folder / "README.md").read_text().split("---")[1])
    mlc = pytest.importorskip("mlcroissant")
    assert not mlc.Dataset(jsonld=str(folder / "croissant.json")).metadata.ctx.issues.errors


@pytest.mark.parametrize("stage", ["catalog", "download", "crop", "landmarks", "shard"])
def test_command_names_a_missing_manifest(tmp_path, capsys, stage):
    params = make_params(tmp_path)
    build_run(params, people=1)
    Path(params.paths.manifest(stage)).unlink()
    assert card.main(["--params", str(tmp_path / "params.yaml")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and Path(params.paths.manifest(stage)).name in said
    assert not Path(params.paths.cards).exists()


def test_every_field_of_the_facts_is_described(made):
    _, folder = made
    facts = shard._facts(defaultdict(int, source_fps=25.0), [0])
    text = (folder / "README.md").read_text()
    told = set(re.findall(r"`\.?([\w.]+)`", text[text.index("| in `KEY.json`") :]))
    names = {f"{k}.{inner}" for k, v in facts.items() if isinstance(v, dict) for inner in v}
    names |= {k for k, v in facts.items() if not isinstance(v, dict)}
    assert {n for n in names if n not in told and n.rpartition(".")[2] not in told} == set()
