"""The evaluation end to end: drawn faces in real tars, a tiny network, a detector that measures.

The detector of these tests finds the drawn face by its red nose, so that it works on whatever a
method makes of it; the real one has a test of its own on the corpus.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image, ImageDraw

from pipelines import detectors
from pipelines.detectors.base import Landmarks
from pipelines.params.training import Evaluate
from pipelines.schemas import INDEX
from pipelines.shard import TarWriter
from training import evaluate, trained
from training.evaluation import methods as methods_module
from training.evaluation import person as person_module
from training.evaluation.frames import open_split, read
from training.evaluation.instruments import Instruments
from training.evaluation.methods import Methods, nearest
from training.finetune import feed_forward
from training.losses import ContentLoss
from training.meta import MetaConfig, MetaLearner
from training.metrics import motion
from training.networks import NetworkConfig
from training.perceptual import Pixels

SIDE, HOLDOUT, SHOTS = 64, 3, [1, 3]
PEOPLE = {"id1": 6, "id2": 7, "id3": 5, "id4": 2}  # stored frames
OVAL = np.stack([np.cos(np.arange(68) * 2 * np.pi / 68), np.sin(np.arange(68) * 2 * np.pi / 68)], 1)


LOAD = detectors.load


def points_at(x: float, y: float, wide: float) -> np.ndarray:
    """An oval of landmarks with a nose: (68, 2)."""
    points = OVAL * (wide, 18) + (x, y)
    points[30] = x, y
    return points.astype("<f4")


def face(person: int, at: int) -> tuple[bytes, np.ndarray]:
    """A JPEG of a person's own colour and its landmarks; the head turns from frame to frame."""
    x, y, wide = 32 + 6 * np.sin(at), 32 + 3 * np.cos(at), 14 + 3 * np.sin(0.7 * at)
    picture = Image.new("RGB", (SIDE, SIDE), (20, 60 + 40 * person, 200 - 40 * person))
    pen = ImageDraw.Draw(picture)
    pen.ellipse((x - wide, y - 18, x + wide, y + 18), fill=(60, 90 + 30 * person, 90))
    pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill=(255, 0, 0))
    sink = io.BytesIO()
    picture.save(sink, "JPEG", quality=95, subsampling=0)
    return sink.getvalue(), points_at(x, y, wide)


class Detector:
    """Finds the red nose; the face around it has one shape."""

    name = "test"

    def __call__(self, frames: np.ndarray, boxes: Any) -> Landmarks:
        found = np.full((len(frames), 68, 2), np.nan, np.float32)
        for i, frame in enumerate(frames.astype(int)):
            red = (frame[..., 0] > 150) & (frame[..., 1] < 110) & (frame[..., 2] < 110)
            scale = len(frame) / SIDE
            places = np.argwhere(red) / scale
            if len(places) > 20 * scale**2 and places.std(0).max() < 5:  # one spot, no noise
                y, x = places.mean(0)
                found[i] = points_at(x, y, 14) * scale
        return Landmarks(found, np.ones(len(frames), np.float32))


def make_shards(folder: Path) -> None:
    (folder / "shards" / "test").mkdir(parents=True)
    tar = folder / "shards" / "test" / "vox-test-00000.tar"
    rows: list[dict[str, Any]] = []
    with tar.open("wb") as file:
        writer = TarWriter(file)
        for person, (name, count) in enumerate(PEOPLE.items()):
            key = f"{name}_v_00001"
            shown = [face(person, at) for at in range(count)]
            spans = [writer.add(f"{key}.{at:03d}.jpg", jpeg) for at, (jpeg, _) in enumerate(shown)]
            sink = io.BytesIO()
            np.save(sink, np.stack([p for _, p in shown]))
            landmarks = writer.add(f"{key}.landmarks.npy", sink.getvalue())
            about = writer.add(f"{key}.json", b"{}")
            rows.append(
                {
                    "key": key, "source": "vox", "person": name, "video": "v",
                    "utterance": "00001", "split": "test", "shard": "vox-test-00000",
                    "shard_sha256": "", "shard_bytes": 0, "frames": count,
                    "frame_numbers": list(range(count)),
                    "frame_offsets": [s for s, _ in spans], "frame_sizes": [n for _, n in spans],
                    "landmarks_offset": landmarks[0], "landmarks_size": landmarks[1],
                    "json_offset": about[0], "json_size": about[1],
                }
            )  # fmt: skip
        writer.close()
    for row in rows:
        row["shard_bytes"] = tar.stat().st_size
    pq.write_table(pa.Table.from_pylist(rows, INDEX), folder / "index.parquet")


def make_params(folder: Path, **evaluate_: Any) -> Path:
    document = {
        "name": "toy",
        "paths": {
            **{name: str(folder / name) for name in ("work", "metrics", "models", "results")},
            "data": str(folder),
        },
        "catalog": {
            "metadata": "m",
            "sources": [{"name": "vox", "reader": "voxceleb2", "path": "t"}],
        },
        "card": {"title": "t", "licence": "other", "description": "d"},
        "setting": "tiny",
        "settings": {"tiny": {"content": {"pixels": {"weight": 100.0}}}},
        "adapt": {"iterations": 1},
        "evaluate": {"shots": SHOTS, "holdout": HOLDOUT, "bootstrap": 50, **evaluate_},
    }
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def make_model(folder: Path, variant: str = "ft", **facts: Any) -> None:
    networks = NetworkConfig(
        image_size=SIDE,
        min_channels=4,
        max_channels=16,
        generator_levels=2,
        residual_blocks=1,
        attention=False,
    )
    learner = MetaLearner(2, ContentLoss((Pixels(), 1.0)), MetaConfig(), networks)
    setting = {
        "about": "a toy of 64 px", "content": {"pixels": {"weight": 100.0}},
        "meta": {"variant": variant},
    }  # fmt: skip
    given = {"setting": setting, "dataset": {"name": "toy", "index_sha256": "0"}, **facts}
    trained.save_model(str(folder / "models" / "tiny.safetensors"), learner, given)


def run(params: Path, *options: str) -> int:
    return evaluate.main(["--params", str(params), *options])


@pytest.fixture(autouse=True)
def detector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detectors, "load", lambda name: Detector())


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, a model, and one whole run's results."""
    folder = tmp_path_factory.mktemp("rig")
    torch.manual_seed(5)  # `untrained` has evaluate.seed, 0
    torch.set_num_threads(1)  # as in the tests: sums over threads differ in their last bits
    make_shards(folder)
    make_model(folder)
    params = make_params(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detectors, "load", lambda name: Detector())
        assert run(params) == 0
    return folder


def copied(rig: Path, folder: Path) -> Path:
    """The same shards and model with room for other results."""
    for name in ("shards", "index.parquet"):
        (folder / name).symlink_to(rig / name)
    (folder / "models").symlink_to(rig / "models")
    return folder


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results" / "tiny" / "results.json").read_text())


# --- results ---------------------------------------------------------------------------------


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
    for word in ("a toy of 64 px", "pixels", model.sha256, "split test", "| T=1 | T=3 |"):
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
    for name in ("frames.json", "table.md", "grid.png", "user_study.html"):
        one, two = (f / "results" / "tiny" / name for f in (rig, folder))
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
    earlier = folder / "earlier.json"
    earlier.write_text(json.dumps(document))
    assert run(make_params(folder, frames=str(earlier))) == 0
    again = json.loads((folder / "results" / "tiny" / "frames.json").read_text())
    assert again["people"] == document["people"]
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


def test_a_real_face_is_found_in_64_pixels(corpus, monkeypatch):
    """With the real detector, where it is in the large picture; noise has no face."""
    av = pytest.importorskip("av")
    pytest.importorskip("mediapipe")
    monkeypatch.setattr(detectors, "load", LOAD)
    clip = next(path for path in sorted((corpus / "voxceleb2_mp4").rglob("*.mp4")))
    with av.open(str(clip)) as file:
        frame = next(iter(file.decode(video=0))).to_image()
    large, small = (np.asarray(frame.resize((side, side)))[None] for side in (256, 64))
    instruments = Instruments(Evaluate(), torch.device("cpu"))
    nowhere = np.full((1, 68, 2), 8.0)
    expected, found = (instruments.see(pictures, nowhere) for pictures in (large, small))
    assert motion.found(expected.points).all() and motion.found(found.points).all()
    assert motion.landmark_error(found.points, expected.points)[0] < 8
    scores = instruments.reenacted_self(found, found, SimpleNamespace(clips=np.zeros(1, int)))
    assert scores["landmark error"] == 0 and scores["SSIM"] == pytest.approx(1)
    noise = np.random.default_rng(0).integers(0, 255, small.shape, np.uint8)
    lost = instruments.see(noise, nowhere)
    assert not motion.found(lost.points).any()
    assert lost.reference == pytest.approx((nowhere + 0.5) * 4 - 0.5), "where it should be"


# --- who competes ----------------------------------------------------------------------------


@pytest.fixture
def shown(rig: Path) -> Callable[[list[int]], Any]:
    episodes = open_split(str(rig / "index.parquet"), str(rig / "shards"), "test", SIDE)
    return lambda frames: read(episodes, episodes.videos[1], [PEOPLE["id1"] + f for f in frames])


def test_frames_come_with_their_own_landmarks(shown):
    frames = shown([0, 5])
    for i, at in enumerate((0, 5)):
        jpeg, points = face(1, at)
        assert (frames.pictures[i] == np.asarray(Image.open(io.BytesIO(jpeg)))).all()
        assert frames.points[i] == pytest.approx(points)
    assert frames.drawings.any() and frames.clips.tolist() == [1, 1]


def test_the_nearest_source_is_of_the_same_pose_wherever_it_stands(shown):
    sources, driver = shown([0, 2, 4, 6]), shown([4, 0])
    assert nearest(sources, driver).tolist() == [2, 0]
    moved = replace(driver, points=driver.points * 1.5 + 20)
    assert nearest(sources, moved).tolist() == [2, 0]


def test_methods_make_as_many_pictures_as_the_driver_has(rig, shown, monkeypatch):
    model = trained.load_model(rig / "models" / "tiny.safetensors")
    adapt = evaluate.load(rig / "params.yaml").adapt
    device = torch.device("cpu")
    methods = Methods(model, evaluate._content_loss(model), adapt, 0, device)
    learned = methods.learn(shown([0, 2]))
    assert list(learned) == ["FF", "FT", "nearest source", "mean of sources", "untrained"]
    driver = shown([1, 3, 5])
    monkeypatch.setattr(methods_module, "BATCH", 2)
    made = {name: method(driver) for name, method in learned.items()}
    assert all(p.shape == (3, SIDE, SIDE, 3) and p.dtype == np.uint8 for p in made.values())
    assert (made["FF"] != made["FT"]).any() and (made["FF"] != made["untrained"]).any()
    x, y = shown([0, 2]).tensors(device)
    e_hat = model.embedder(x, y).mean(0, keepdim=True)
    expected = feed_forward(model.generator, e_hat).render(driver.tensors(device)[1])
    assert np.abs(made["FF"] - (expected.permute(0, 2, 3, 1).numpy() * 127.5 + 127.5)).max() < 0.6
    again = Methods(model, None, adapt, 0, device).learn(shown([0, 2]))
    assert "FT" not in again and (again["untrained"](driver) == made["untrained"]).all()


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
        ("index", {}, 2, "index.parquet: no such file"),
        ("shards", {}, 2, "vox-test-00000.tar is missing"),
        ("device", {}, 2, "--device cuda:77"),
        ("other device", {}, 2, "--device abacus"),
        ("", {"split": "val"}, 2, "no video of split 'val'"),
        ("", {"holdout": 40}, 2, "nobody in split 'test'"),
        ("", {"features": {"squeezenet": {"url": "none.npz"}}}, 1, "no weights at none.npz"),
        ("", {"identity": {"arcface": {"url": "none.onnx"}}}, 1, "no weights at none.onnx"),
        ("", {"lpips": {"alex": {"url": "none.pth"}}}, 1, "no weights at none.pth"),
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
    def unavailable(name: str) -> None:
        raise detectors.DetectorUnavailable("mediapipe is not installed: pip install it")

    monkeypatch.setattr(detectors, "load", unavailable)
    monkeypatch.setattr("pipelines.command.os._exit", lambda code: None)
    assert run(make_params(copied(rig, tmp_path))) == 1
    assert "pip install it" in capsys.readouterr().err
