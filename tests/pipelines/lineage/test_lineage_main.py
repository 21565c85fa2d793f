"""The command line."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from relatives import model_facts, run, write_video

from pipelines.lineage.__main__ import main
from pipelines.params import Params


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


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "name a file"),
        (["a.mp4", "--clip", "k"], "name a file"),
        (["none.mp4"], "none.mp4: no such file"),
        (["words.txt"], "nothing tells how it was made"),
        (["words.parquet"], "not a readable manifest"),
        (["words.safetensors"], "damaged, or not made by Likeness"),
        (["."], "nothing tells how it was made"),
        (["/"], "nothing tells how it was made"),
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


def test_as_a_command_without_torch(project: Params) -> None:
    root = Path(__file__).parents[3]
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
