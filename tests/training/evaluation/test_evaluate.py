"""The evaluation end to end: its results, and what is missing."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn_faces import copied, face, make_model, make_params, results, run
from PIL import Image
from tiny_model import write_squeezenet

from pipelines import detectors, storage
from pipelines.schemas import INDEX
from training import evaluate, trained
from training.evaluation import person as person_module


def test_everything_is_written_and_nothing_else_left(rig):
    made = {p.name for p in (rig / "results" / "tiny").iterdir()}
    assert made == {"frames.json", "table.md", "results.json", "grid.png", "user_study.html"}
    assert [p.name for p in (rig / "metrics").iterdir()] == ["evaluate.json"]
    assert not [p for p in (rig / "work").rglob("*") if p.is_file()]
    frames = json.loads((rig / "results" / "tiny" / "frames.json").read_text())
    assert {p["person"] for p in frames["people"]} == {"id1", "id2", "id3"}
    left = {x["person"]: x["shots"] for x in frames["left_out"]}
    assert left == {"vox/id3": [3], "vox/id4": [1, 3]}
    with Image.open(rig / "results" / "tiny" / "grid.png") as grid:
        rows = 5  # T=1 of three people, T=3 of two
        assert grid.height > rows * 128 and grid.width > 6 * 128


def test_the_numbers_are_what_they_say(rig):
    found = results(rig)
    everyone = found["people"]["self"]
    assert everyone["T=1"].keys() == {
        "FF",
        "FT",
        "nearest source",
        "mean of sources",
        "untrained",
        "real",
    }
    three = everyone["T=3"]
    # The nearest copy has the right colour and shape; an untrained network draws noise.
    for person in ("vox/id1", "vox/id2"):
        assert three["nearest source"]["SSIM"][person] > three["untrained"]["SSIM"][person] + 0.3
        assert three["nearest source"]["PSNR"][person] > three["untrained"]["PSNR"][person] + 5
    assert three["nearest source"]["SSIM"]["vox/id3"] is None, "takes no part with T=3"
    assert three["nearest source"]["found"]["vox/id1"] == 1
    assert three["untrained"]["found"]["vox/id1"] == 0
    assert three["untrained"]["landmark error"]["vox/id1"] is None
    assert 0 < three["nearest source"]["landmark error"]["vox/id1"] < 60
    one = everyone["T=1"]
    assert one["nearest source"]["SSIM"] == one["mean of sources"]["SSIM"], "of one frame"
    assert one["nearest source"]["jitter"]["vox/id1"] == 0, "one frame, held still"
    summary = found["all"]["self"]["T=3"]["nearest source"]["SSIM"]
    values = [three["nearest source"]["SSIM"][p] for p in ("vox/id1", "vox/id2")]
    assert summary["mean"] == pytest.approx(np.mean(values), abs=2e-6) and summary["people"] == 2
    assert summary["low"] == pytest.approx(min(values), abs=2e-6)
    cross = found["all"]["cross"]["T=1"]
    assert "SSIM" not in cross["FF"] and "landmark error" in cross["nearest source"]


def test_ssim_of_the_copy_is_recomputed_from_the_files_alone(rig):
    """From frames.json and the tar, without any of the evaluation's code but the metric."""
    reference = pytest.importorskip("skimage.metrics")
    document = json.loads((rig / "results" / "tiny" / "frames.json").read_text())
    (part,) = (p for p in document["people"] if p["person"] == "id1")
    (_, source), *_ = part["sources"]["1"]

    def picture(at: int) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(face(0, at)[0])))

    expected = np.mean(
        [
            reference.structural_similarity(
                picture(source), picture(at), gaussian_weights=True, sigma=1.5,
                use_sample_covariance=False, data_range=255, channel_axis=2,
            )
            for _, at in part["holdout"]
        ]
    )  # fmt: skip
    found = results(rig)["people"]["self"]["T=1"]["nearest source"]["SSIM"]["vox/id1"]
    assert found == pytest.approx(expected, abs=1e-6)


def test_the_table_says_what_was_measured_and_what_was_not(rig):
    text = (rig / "results" / "tiny" / "table.md").read_text()
    model = trained.load_model(rig / "models" / "tiny.safetensors")
    for word in (
        "a toy of 64 px",
        "pictures: 64 px",
        "loss in training: pixels",
        model.sha256,
        "split test",
        "| T=1 | T=3 |",
    ):
        assert word in text
    for word in ("Absent: FID, KID", "Absent: CSIM", "Absent: LPIPS", "trained on another state"):
        assert word in text
    assert "| vox/id3 | T=3 |" in text and "| vox/id4 | T=1, T=3 |" in text
    assert text.index("Self-reenactment") < text.index("Cross-reenactment")
    assert "found no face in some frames" in text
    header, *_ = (line for line in text.splitlines() if line.startswith("|  | SSIM ↑ |"))
    for word in ("PSNR ↑ (dB)", "landmark error ↓", "found ↑", "jitter"):
        assert word in header
    assert "LPIPS" not in header and "CSIM" not in header
    assert "FF − nearest source" in text


def test_dvc_s_metrics_are_flat_and_named(rig):
    numbers = json.loads((rig / "metrics" / "evaluate.json").read_text())
    assert numbers.pop("content_backbones") == "pixels"
    assert all(isinstance(value, float | int) for value in numbers.values())
    found = results(rig)["all"]["self"]["T=3"]["nearest source"]["SSIM"]["mean"]
    assert numbers["nearest_source.T3.SSIM"] == found
    assert "nearest_source.T1.cross.landmark_error" in numbers and "FF.T1.PSNR" in numbers


def test_again_gives_the_same_bytes_and_a_stopped_run_goes_on(rig, tmp_path, monkeypatch):
    folder = copied(rig, tmp_path)
    params = make_params(folder)
    done: list[str] = []
    measure = person_module.measure

    def stopping(protocol: Any, part: Any, *rest: Any) -> Any:
        if len(done) == 2:
            raise OSError(28, "No space left on device", "disk")
        done.append(part.person)
        return measure(protocol, part, *rest)

    monkeypatch.setattr(evaluate, "measure", stopping)
    monkeypatch.setattr("pipelines.command.os._exit", lambda code: None)
    assert run(params) == 1
    assert not (folder / "results").exists()
    again: list[str] = []

    def counting(protocol: Any, part: Any, *rest: Any) -> Any:
        again.append(part.person)
        return measure(protocol, part, *rest)

    monkeypatch.setattr(evaluate, "measure", counting)
    assert run(params) == 0
    assert len(done) == 2 and len(again) == 1 and not set(done) & set(again)
    made = ("frames.json", "table.md", "results.json", "grid.png", "user_study.html")
    for name in (*(f"results/tiny/{name}" for name in made), "metrics/evaluate.json"):
        one, two = (f / name for f in (rig, folder))
        assert one.read_bytes().replace(str(rig).encode(), b"") == two.read_bytes().replace(
            str(folder).encode(), b""
        ), name


def test_earlier_frames_can_be_taken_again(rig, tmp_path):
    folder = copied(rig, tmp_path)
    document = json.loads((rig / "results" / "tiny" / "frames.json").read_text())
    document["people"] = [p for p in document["people"] if p["person"] != "id3"]
    document["people"][0]["driver"], document["people"][1]["driver"] = (
        f"vox/{document['people'][i]['person']}" for i in (1, 0)
    )
    document["people"][0]["holdout"] = document["people"][0]["holdout"][:2]
    document["people"][1]["study"] = document["people"][1]["study"][:1]
    earlier = folder / "earlier.json"
    earlier.write_text(json.dumps(document))
    assert run(make_params(folder, frames=str(earlier))) == 0
    again = json.loads((folder / "results" / "tiny" / "frames.json").read_text())
    assert again["people"] == document["people"]
    alone = f"vox/{document['people'][1]['person']}"
    words = f"lacks 1 of these people, who have fewer than 2 real frames for it: {alone}."
    assert words in (folder / "results" / "tiny" / "table.md").read_text()
    assert run(make_params(folder, frames=str(folder / "none.json"))) == 2


def test_a_model_trained_for_ff_alone_is_not_fine_tuned(rig, tmp_path):
    folder = copied(rig, tmp_path)
    (folder / "models").unlink()
    make_model(folder, variant="ff")
    assert run(make_params(folder, shots=[1], people=1)) == 0
    found = results(folder)["all"]
    assert "FT" not in found["self"]["T=1"] and "FF" in found["self"]["T=1"]
    assert "cross" not in found
    assert "One person only" in (folder / "results" / "tiny" / "table.md").read_text()


def test_a_model_is_evaluated_away_from_where_it_was_trained(rig, tmp_path, capsys, monkeypatch):
    folder = copied(rig, tmp_path)
    (folder / "models").unlink()
    weights = write_squeezenet(tmp_path / "squeezenet.pth")
    far = {"weight": 1.0, "url": "/cluster/a.pth", "sha256": storage.sha256(weights)}
    make_model(folder, setting={"content": {"squeezenet": far}})
    monkeypatch.setattr("pipelines.command.os._exit", lambda code: None)
    assert run(make_params(folder, shots=[1], people=1)) == 1
    assert "settings.<name>.content.squeezenet.url" in capsys.readouterr().err
    here = {"squeezenet": {"weight": 7.0, "url": str(weights)}}
    assert run(make_params(folder, here, shots=[1], people=1)) == 0
    assert "FT" in results(folder)["all"]["self"]["T=1"]


def test_people_of_whom_the_model_has_seen_other_clips_are_named(rig, tmp_path):
    folder = copied(rig, tmp_path)
    rows = pq.read_table(rig / "index.parquet").to_pylist()
    rows += [rows[0] | {"key": "id1_w_00001", "video": "w", "split": "train"}]
    rows += [rows[0] | {"key": "id8_w_00001", "person": "id8", "video": "w", "split": "train"}]
    (folder / "index.parquet").unlink()
    pq.write_table(pa.Table.from_pylist(rows, INDEX), folder / "index.parquet")
    index_sha256 = storage.sha256(folder / "index.parquet")
    (folder / "models").unlink()
    make_model(folder, variant="ff", dataset={"name": "toy", "index_sha256": index_sha256})
    assert run(make_params(folder, shots=[1], people=2)) == 0
    text = (folder / "results" / "tiny" / "table.md").read_text()
    assert "trained on other clips of 1 of these people: vox/id1." in text
    assert "another state of a dataset" not in text


def test_named_networks_measure_under_their_names(rig, tmp_path, corpus):
    folder = copied(rig, tmp_path)
    weights = {"squeezenet": {"url": str(corpus / "weights" / "squeezenet1_1_caffe.npz")}}
    identity = {"mobilefacenet": {"url": str(corpus / "weights" / "identity_mobilefacenet.onnx")}}
    networks = {"features": weights, "lpips": weights, "identity": identity}
    params = make_params(folder, shots=[1], people=2, **networks)
    assert run(params) == 0
    found = results(folder)["all"]["self"]["T=1"]
    assert {
        "FD-squeezenet",
        "KD-squeezenet",
        "perceptual-squeezenet",
        "CSIM-mobilefacenet",
    } <= found["FF"].keys()
    assert not {"FID", "KID", "LPIPS", "CSIM"} & found["FF"].keys()
    assert found["real"]["FD-squeezenet"]["mean"] < found["untrained"]["FD-squeezenet"]["mean"] / 4
    assert found["real"]["CSIM-mobilefacenet"]["mean"] > 0.8
    text = (folder / "results" / "tiny" / "table.md").read_text()
    assert "6 frames: below 2,048" in text and "FD-squeezenet / SSIM / CSIM-mobilefacenet" in text


# --- what is missing -------------------------------------------------------------------------


def broken(folder: Path, what: str) -> tuple[str, ...]:
    if what == "model":
        (folder / "models").unlink()
    elif what == "index":
        (folder / "index.parquet").unlink()
    elif what == "shards":
        (folder / "shards").unlink()
    elif what == "short model":
        (folder / "models").unlink()
        (folder / "models").mkdir()
        (folder / "models" / "tiny.safetensors").write_bytes(b"\0" * 100)
    elif what in ("no content", "no setting"):
        (folder / "models").unlink()
        setting = {"about": "of somebody else"} if what == "no content" else None
        make_model(folder, setting=setting)
    elif what == "device":
        return ("--device", "cuda:77")
    elif what == "other device":
        return ("--device", "abacus")
    return ()


@pytest.mark.parametrize(
    ("what", "given", "code", "reason"),
    [
        ("model", {}, 2, "no such model; run training.meta_train"),
        ("short model", {}, 2, "damaged, cut short or no file of ours"),
        ("no content", {}, 2, "tiny.safetensors: does not say of what content it is made; name a"),
        ("no setting", {}, 2, "does not say of what setting and content it is made; name a model"),
        ("index", {}, 2, "index.parquet: no such file"),
        ("shards", {}, 2, "vox-test-00000.tar is missing"),
        ("device", {}, 2, "device cuda:77"),
        ("other device", {}, 2, "device abacus"),
        ("", {"split": "val"}, 2, "split 'val' holds nobody"),
        ("", {"holdout": 40}, 2, "nobody in split 'test'"),
        (
            "",
            {"features": {"squeezenet": {"url": "none.npz"}}},
            1,
            "evaluate.features.squeezenet: no weights at none.npz",
        ),
        (
            "",
            {"identity": {"arcface": {"url": "none.onnx"}}},
            1,
            "evaluate.identity.arcface: no weights at none.onnx",
        ),
        (
            "",
            {"lpips": {"alex": {"url": "none.pth"}}},
            1,
            "evaluate.lpips.alex: no weights at none.pth",
        ),
    ],
)
def test_what_is_missing_is_one_line(rig, tmp_path, capsys, monkeypatch, what, given, code, reason):
    folder = copied(rig, tmp_path)
    params = make_params(folder, **given)
    options = broken(folder, what)
    monkeypatch.setattr("pipelines.command.os._exit", lambda code: None)
    assert run(params, *options) == code
    said = capsys.readouterr().err
    assert reason in said and said.count("\n") == 1
    assert not (folder / "results").exists()


def test_weights_with_another_sha256_are_refused(rig, tmp_path, capsys, monkeypatch, corpus):
    folder = copied(rig, tmp_path)
    url = str(corpus / "weights" / "squeezenet1_1_caffe.npz")
    monkeypatch.setattr("pipelines.command.os._exit", lambda code: None)
    assert run(make_params(folder, features={"squeezenet": {"url": url, "sha256": "0" * 64}})) == 1
    said = capsys.readouterr().err
    assert "has sha256" in said and said.count("\n") == 1


def test_an_unavailable_detector_stops_with_its_remedy(rig, tmp_path, capsys, monkeypatch):
    def unavailable(name: str, device: str) -> None:
        raise detectors.DetectorUnavailable("mediapipe is not installed: pip install it")

    monkeypatch.setattr(detectors, "load", unavailable)
    monkeypatch.setattr("pipelines.command.os._exit", lambda code: None)
    assert run(make_params(copied(rig, tmp_path))) == 1
    assert "pip install it" in capsys.readouterr().err


def test_takedowns_that_leave_nobody_leave_no_older_results(rig, tmp_path, capsys, monkeypatch):
    folder = copied(rig, tmp_path)
    monkeypatch.chdir(folder)
    (folder / "takedowns.csv").write_text("kind,id,date,reason\nperson,id9,2024-01-01,asked\n")
    made = folder / "results" / "tiny"
    made.mkdir(parents=True)
    for name in ("grid.png", "user_study.html", "frames.json", "table.md"):
        (made / name).write_text("of somebody who is gone")
    assert run(make_params(folder, split="val")) == 0
    assert "Takedowns left nobody in split val" in capsys.readouterr().err
    assert {p.name for p in made.iterdir()} == {"results.json", "table.md"}
    assert "nothing was measured" in (made / "table.md").read_text()
    assert results(folder)["kind"] == "evaluation" and "all" not in results(folder)
    assert json.loads((folder / "metrics" / "evaluate.json").read_text()) == {
        "content_backbones": "pixels"
    }
