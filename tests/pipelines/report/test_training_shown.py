"""The report with the training runs that used the dataset."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from card_run import build_run, make_params
from markup import Page
from PIL import Image

from pipelines import storage
from pipelines.report import __main__ as command
from pipelines.report.curves import BUCKETS, curve_svg
from pipelines.report.training import read_training


@pytest.fixture
def params(tmp_path):
    params = make_params(tmp_path)
    build_run(params, people=1)
    return params


def digest(params):
    return storage.sha256(Path(params.paths.manifest("shard")))


def tensors(path, facts, kind="model"):
    """A file of no tensors, with the header of a model."""
    said = {"format": "likeness-1", "kind": kind, "sha256": "", "facts": {"kind": kind} | facts}
    header = json.dumps({"__metadata__": {"likeness": json.dumps(said)}}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def facts(params, run="small-paper-1", index=None, **more):
    setting = {"epochs": 10, "batch": 4, "about": "a <small> one"}
    dataset = {"name": "small", "index_sha256": index or digest(params), "videos": 18}
    return {"run": run, "setting_name": "paper", "setting": setting, "dataset": dataset} | more


def make_run(params, name="small-paper-1", steps=40, index=None, finished=False):
    folder = Path(params.paths.work, "runs", name)
    told = facts(params, name, index, step=steps)
    tensors(folder / "checkpoints/step-000000010.safetensors", told, "checkpoint")
    (folder / "checkpoints/step-000000020.safetensors").write_bytes(b"cut short")
    if finished:
        tensors(folder / "model.safetensors", told)
    lines = [json.dumps({"step": n, "content": 90 / n, "real_score": n}) for n in range(1, steps)]
    lines.append(json.dumps({"step": steps, "content": float("nan"), "real_score": 1}))
    (folder / "history.jsonl").write_text("\n".join([*lines, '{"step": 41, "cont']))
    (folder / "grids").mkdir()
    Image.new("RGB", (1800, 900), (10, 90, 200)).save(folder / "grids/newest.png")
    return folder


def test_a_run_under_way_is_shown(params):
    make_run(params)
    make_run(params, "other-dataset", index="0" * 64)
    (run,) = read_training(params, digest(params)).runs
    assert (run.name, run.step, run.total, run.finished) == ("small-paper-1", 40, 45, False)
    assert [title for title, _ in run.curves] == ["Content", "Real score"]
    assert "over 39 steps: 90 at first" in run.curves[0][1], "the step without a number is left out"
    assert (run.grid.width, run.grid.height) == (900, 450)


def test_a_finished_run_is_shown_once(params):
    folder = make_run(params, finished=True)
    Path(params.paths.models).mkdir()
    shutil.copyfile(folder / "model.safetensors", Path(params.paths.models, "paper.safetensors"))
    (run,) = read_training(params, digest(params)).runs
    assert run.finished and run.origin == "Read from the run's own folder"


def plots(params, last):
    folder = Path(params.paths.metrics, "training/plots/metrics")
    folder.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{step}\t{100 / step}\n" for step in range(2, last + 1, 2))
    (folder / "content.tsv").write_text("step\tcontent\n" + rows)


@pytest.mark.parametrize(("last", "curves"), [(40, 1), (38, 0)])
def test_without_the_work_folder_dvcs_curves_serve_if_they_are_the_models(params, last, curves):
    tensors(Path(params.paths.models, "paper.safetensors"), facts(params, step=40))
    tensors(Path(params.paths.models, "old.safetensors"), facts(params, index="0" * 64))
    tensors(Path(params.paths.models, "person.safetensors"), facts(params, step=40), "person")
    plots(params, last)
    (run,) = read_training(params, digest(params)).runs
    assert (run.name, run.step, run.grid) == ("small-paper-1", 40, None)
    assert len(run.curves) == curves


def test_remote_folders_are_named_not_read(params):
    paths = params.paths.model_copy(update={"work": "s3://b/work", "models": "s3://b/models"})
    found = read_training(params.model_copy(update={"paths": paths}), digest(params))
    assert not found.runs and len(found.notes) == 2 and "s3://b/work" in found.notes[0]


def test_more_runs_than_fit_are_named(params):
    for n in range(6):
        make_run(params, f"run-{n}")
    found = read_training(params, digest(params))
    assert len(found.runs) == 3 and found.notes == ["Not shown: run-3, run-4, run-5."]


def test_the_command_writes_the_page(params, tmp_path, capsys):
    make_run(params)
    file = str(tmp_path / "params.yaml")
    assert command.main(["--params", file]) == 0
    assert "small-paper-1 (step 40)" in capsys.readouterr().out
    text = Path(params.paths.results, "report.html").read_text()
    page = Page(text)
    assert "training" in page.ids and 'href="#training"' in text
    assert text.count('class="curve"') == 2 and text.count('class="grid-picture"') == 1
    assert "a &lt;small&gt; one" in text and "step 40 of 45, not finished" in text
    before = hashlib.sha256(text.encode()).hexdigest()
    out = tmp_path / "again.html"
    assert command.main(["--params", file, "-o", str(out)]) == 0
    assert storage.sha256(out) == before


def test_the_page_says_that_nothing_was_trained(params, tmp_path, capsys):
    assert command.main(["--params", str(tmp_path / "params.yaml")]) == 0
    assert "training runs of this dataset: none" in capsys.readouterr().out
    assert "None was found" in Path(params.paths.results, "report.html").read_text()


def test_a_mistake_is_one_line(tmp_path, capsys):
    assert command.main(["--params", str(tmp_path / "nowhere.yaml")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_folder_is_no_output_and_is_refused_before_any_work(tmp_path, capsys):
    words = ["--params", str(tmp_path / "nowhere.yaml"), "-o", str(tmp_path)]
    assert command.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"likeness: -o {tmp_path}: is a folder")


def test_what_is_read_is_not_overwritten(params, tmp_path, capsys):
    file, index = tmp_path / "params.yaml", Path(params.paths.manifest("shard"))
    for read, name in ((index, "a manifest"), (file, "--params")):
        before = read.read_bytes()
        assert command.main(["--params", str(file), "-o", str(read)]) == 2
        assert f"-o {read} is also {name}: give the output another" in capsys.readouterr().err
        assert read.read_bytes() == before


def test_neither_torch_nor_training_is_imported():
    script = (
        "import sys, pipelines.report.__main__, pipelines.report.compare\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('torch', 'training', 'ray')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


# --- curves ----------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 7, 119, 120, 121, 5000])
def test_any_length_is_drawn(steps):
    svg = curve_svg("content", [(n, 90.0 / n) for n in range(1, steps + 1)])
    Page(svg)
    assert "nan" not in svg and "inf" not in svg
    drawn = re.search(r'class="mean" d="M([^"]*)"', svg)[1].split("L")
    assert len(drawn) <= BUCKETS
    assert len(svg) < 12_000
    places = [float(point.split()[0]) for point in drawn]
    assert places == sorted(places)


@pytest.mark.parametrize("value", [0.0, -3.0, 1e9, 1e-9])
def test_a_flat_line_is_drawn(value):
    svg = curve_svg("match", [(n, value) for n in range(1, 20)])
    assert "nan" not in svg and "inf" not in svg


def test_a_falling_loss_falls():
    svg = curve_svg("content", [(n, 100.0 - n) for n in range(100)])
    line = re.search(r'class="mean" d="M([^"]*)"', svg)[1].split("L")
    heights = np.array([float(point.split()[1]) for point in line])
    assert (np.diff(heights) > 0).all(), "down the picture"
