import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("c2pa")

import torch
from marked_media import FACTS, encode_again, flip, pictures, write_mp4
from PIL import Image

from pipelines.version import code_version
from training import inspect as command
from training import tensor_file
from training.marking import keys, sidecar_path, sign

MADE, ALTERED, USAGE, NONE, UNKNOWN = 0, 1, 2, 3, 4


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = write_mp4(tmp_path / "out.mp4")
    sign(path, facts=FACTS, label="AI-generated", keys=keys(None, None))
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    facts = FACTS["model"]["facts"] | {"skeleton": {"dict": []}}  # type: ignore[index]
    tensor_file.write(path, "model", {"weight": torch.arange(2000.0)}, facts)
    return path


def test_a_whole_video(video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([str(video)]) == MADE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{video}: made by Likeness"
    told = {line.split()[0]: line for line in lines[1:]}
    assert "this machine's development certificate" in told["signed"]
    assert '"AI-generated", drawn into the picture' in told["label"]
    assert "sample, tiny, step 200, " + "a1" * 8 in told["model"]
    assert "mona_lisa.jpg, " + "b2" * 8 in told["portrait"]
    assert "clip.mp4, " + "c3" * 8 in told["driver"]
    assert f"sample {'d5' * 8}, split train" in told["dataset"]
    assert told["code"].split() == ["code", code_version()]


def test_what_became_of_it(video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flipped = write_mp4(video.with_name("flipped.mp4"))
    sign(flipped, facts=FACTS, label=None, keys=keys(None, None))
    flip(flipped, -50)
    assert command.main([str(flipped)]) == ALTERED
    told = capsys.readouterr().out
    assert "altered since" in told
    assert "because    its content is not what was signed" in told
    assert "label      turned off" in told
    encode_again(video, video)
    assert command.main([str(video)]) == ALTERED
    told = capsys.readouterr().out
    assert "its credentials are gone: it was encoded again, or edited" in told
    assert "the sidecar, whose own signature holds" in told
    assert "mona_lisa.jpg" in told
    sidecar_path(video).unlink()
    assert command.main([str(video)]) == NONE
    assert capsys.readouterr().out.strip() == f"{video}: no credentials"


def test_a_signer_whom_nobody_here_knows(
    video: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    certificate = video.with_name("theirs.pem")
    certificate.write_text(keys(None, None).chain)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(video.with_name("elsewhere")))
    assert command.main([str(video)]) == UNKNOWN
    told = capsys.readouterr().out
    assert "made by Likeness, if a signer whom nobody here knows is to be believed" in told
    assert "--trust" in told
    assert command.main([str(video), "--trust", str(certificate)]) == MADE
    assert capsys.readouterr().out.startswith(f"{video}: made by Likeness\n")
    flip(video, -50)
    assert command.main([str(video)]) == ALTERED


def test_the_worst_of_several_decides(
    video: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = write_mp4(video.with_name("plain.mp4"))
    assert command.main([str(video), str(plain)]) == NONE
    altered = video.with_name("altered.mp4")
    altered.write_bytes(video.read_bytes()[:-9])
    assert command.main([str(altered), str(plain), str(model)]) == ALTERED
    capsys.readouterr()
    assert command.main([str(altered), "none.mp4", str(video)]) == USAGE
    out, error = capsys.readouterr()
    assert error == "likeness: none.mp4: no such file\n"
    assert f"{video}: made by Likeness" in out


def test_json(video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--json", str(video)]) == MADE
    (found,) = json.loads(capsys.readouterr().out)
    assert found["state"] == "made by Likeness"
    assert found["facts"] == FACTS
    assert len(found["sha256"]) == 64


def test_nothing_from_the_file_moves_the_cursor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "a\x1b[2J\u202e[bold]b"
    path = write_mp4(tmp_path / "e.mp4")
    facts = {"driver": {"name": evil}, "model": {"facts": {"name": evil, "code": evil}}}
    sign(path, facts=facts, label="AI", keys=keys(None, None))
    assert command.main([str(path)]) == MADE
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "[bold]b" in out


@pytest.mark.parametrize(
    "facts",
    [
        {"model": 3, "parents": "x", "driver": [[1]], "dataset": []},
        {"parents": [{"kind": None}], "model": {"facts": [1], "sha256": 5}, "dataset": {"name": 1}},
        {"model": {"facts": {"model": {"facts": {"dataset": {"index_sha256": 7}}}}}},
    ],
)
def test_facts_of_no_known_form(tmp_path: Path, facts: dict[str, object]) -> None:
    path = write_mp4(tmp_path / "e.mp4")
    sign(path, facts=facts, label="AI", keys=keys(None, None))
    assert command.main([str(path)]) == MADE


# --- folders ---------------------------------------------------------------------------------


def test_a_folder_of_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for at, picture in enumerate(pictures(4)):
        Image.fromarray(picture).save(folder / f"{at}.png")
    sign(folder, facts=FACTS, label="AI", keys=keys(None, None))
    assert command.main([str(folder)]) == MADE
    assert "4 made by Likeness" in capsys.readouterr().out
    flip(folder / "2.png", -60)
    assert command.main([str(folder)]) == ALTERED
    told = capsys.readouterr().out
    assert "3 made by Likeness, 1 altered since" in told
    assert "because    2.png: its content is not what was signed" in told
    (folder / "2.png").unlink()
    assert command.main([str(folder)]) == ALTERED
    assert "2.png: is gone" in capsys.readouterr().out
    (tmp_path / "none").mkdir()
    assert command.main([str(tmp_path / "none")]) == USAGE
    assert "no pictures or videos" in capsys.readouterr().err


# --- models and people -----------------------------------------------------------------------


def test_a_model(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([str(model)]) == MADE
    told = capsys.readouterr().out
    assert "kind       model, whole" in told
    assert "about      sample, tiny, step 200" in told
    assert "index      index.parquet, " + "d5" * 8 in told
    assert "not signed" in told
    whole = model.read_bytes()
    flip(model, -40)
    assert command.main([str(model)]) == ALTERED
    assert "its numbers are not the ones" in capsys.readouterr().out
    for keep in (len(whole) - 4, 300):
        model.write_bytes(whole[:keep])
        assert command.main([str(model)]) == ALTERED
        assert "because" in capsys.readouterr().out


@pytest.mark.parametrize(
    "data", [b"", b"words", b"\xff" * 400, b"\x02\x00\x00\x00\x00\x00\x00\x00{}"]
)
def test_tensors_of_others(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    assert command.main([str(path)]) == NONE


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path}/was_run",)

    for name in ("x.safetensors", "x.pt", "x.mp4"):
        (tmp_path / name).write_bytes(pickle.dumps(Evil()))
        assert command.main([str(tmp_path / name)]) == NONE
    assert not (tmp_path / "was_run").exists()


# --- misuse ----------------------------------------------------------------------------------


def test_misuse(video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main([])
    assert caught.value.code == USAGE
    for words in (
        [str(sidecar_path(video))],
        [str(video), "--trust", "none.pem"],
        [str(video), "--trust", str(video)],
    ):
        assert command.main(words) == USAGE
    assert "name the file that it stands beside" in capsys.readouterr().err


def test_what_cannot_be_looked_at_is_not_altered(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for strange in ("x" * 300, "empty"):
        assert command.main(["--json", str(video), strange]) == USAGE
        out, err = capsys.readouterr()
        assert [one["path"] for one in json.loads(out)] == [str(video)]
        assert err.count("\n") == 1


def test_as_a_command(video: Path) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "training.inspect", str(video)],
        cwd=video.parent,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (MADE, "")
    assert done.stdout.startswith(f"{video}: made by Likeness\n")
