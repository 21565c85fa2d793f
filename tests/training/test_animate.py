from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import av
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_model import EINSTEIN, MONA, NETWORKS, PARAMS, begins, write_model, write_squeezenet
from tiny_model import SHORT as THIRTY

from pipelines import storage
from pipelines.video.sound import read_sound
from training import adapt, animate, marking, perceptual
from training.faces import Face
from training.finetune import Person
from training.layouts import SOUND_RATE, open_writer
from training.networks import Generator
from training.pixels import to_uint8
from training.scene import Scene, Subject

pytest.importorskip("mediapipe")

DRIVER = "videos/5GgS"
Command = Callable[..., int]


@pytest.fixture
def command(tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`python -m training.animate`, with a model, params and signing keys of its own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "params.yaml").write_text(PARAMS + "adapt: {iterations: 1}\n")

    def run(*words: str | Path) -> int:
        base = ["--params", tmp_path / "params.yaml", "--model", model_file]
        return animate.main([str(word) for word in [*base, *words]])

    return run


def read(path: Path) -> np.ndarray:
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def facts_of(path: Path) -> dict[str, object]:
    told = json.loads(marking.sidecar_path(path).read_text())
    assert told["files"]
    return dict(told["facts"])


def scene(layout: str = "plain", label: str | None = None, subjects: int = 1) -> Scene:
    torch.manual_seed(0)
    generator = Generator(NETWORKS)
    draw = np.random.default_rng(0)
    cast = []
    for number in range(subjects):
        face = Face(
            draw.integers(0, 255, (256, 256, 3), dtype=np.uint8),
            draw.uniform(60, 200, (68, 2)).astype(np.float32),
        )
        psi = torch.randn(1, sum(generator.psi_sizes))
        source = adapt.Source(Path(f"p{number}.png"), "0" * 64)
        cast.append(Subject(source, face, Person(generator, psi, tuned=False)))
    return Scene(cast, 64, layout, label, torch.device("cpu"))  # type: ignore[arg-type]


def test_batches_make_the_frames_that_one_pass_makes() -> None:
    made = scene("side-by-side", subjects=1)
    points = made.subjects[0].face.points + np.arange(5, dtype=np.float32)[:, None, None]
    crops = list(np.random.default_rng(1).integers(0, 255, (5, 256, 256, 3), dtype=np.uint8))
    with made.ready():
        whole = made.frames([points], crops)
        parts = [made.frames([points[at : at + 2]], crops[at : at + 2]) for at in (0, 2, 4)]
    assert whole.shape == (5, 64, 256, 3) and whole.dtype == np.uint8
    assert np.abs(whole.astype(int) - np.concatenate(parts)).max() <= 1
    assert made.seconds > 0


def test_the_label_is_on_what_was_generated_alone() -> None:
    bare, labelled = scene("side-by-side"), scene("side-by-side", "AI-generated")
    points = [bare.subjects[0].face.points[None]]
    crop = [np.zeros((256, 256, 3), np.uint8)]
    with bare.ready(), labelled.ready():
        one, other = bare.frames(points, crop), labelled.frames(points, crop)
    assert (one[:, :, :192] == other[:, :, :192]).all()
    assert (one[:, :, 192:] != other[:, :, 192:]).any()


def test_to_pictures_rounds_and_clips() -> None:
    x = torch.tensor([-1.5, -1.0, 0.0, 1.0, 2.0]).view(5, 1, 1, 1).expand(5, 3, 2, 2)
    assert to_uint8(x)[:, 0, 0, 0].tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize("silent", [0, 1, 3])
def test_sound_is_read_in_parts_as_long_as_the_pictures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], silent: int
) -> None:
    whole = np.arange(2 * 3 * SOUND_RATE, dtype=np.float32).reshape(2, -1)
    whole[:, : silent * SOUND_RATE] = 0

    def read_part(_: Path, first: int, frames: int, rate: int, channels: int) -> Any:
        assert (rate, channels) == (SOUND_RATE, 2) and frames <= animate.PART
        if first < silent * 25:
            return None, "the sound of the video does not reach here"
        return whole[:, first * rate // 25 : (first + frames) * rate // 25], ""

    monkeypatch.setattr(animate, "PART", 25)
    monkeypatch.setattr(animate, "read_sound", read_part)
    footage = SimpleNamespace(path=Path("a.mp4"), points=[0] * 71, fps=Fraction(25))
    sound = animate.sound_of(cast("Any", footage))
    if silent == 3:
        assert sound is None
    else:
        assert sound is not None
        joined = np.concatenate(list(sound), axis=1)
        np.testing.assert_array_equal(joined, whole[:, : round(71 / 25 * SOUND_RATE)])
    said = capsys.readouterr().out
    assert said.count("a.mp4 from 0 s on: the sound of the video") == min(silent, 1)


# --- the command, on real pictures and videos ------------------------------------------------


def test_a_portrait_is_brought_to_life(
    tmp_path: Path, corpus: Path, model_file: Path, command: Command
) -> None:
    out, driver = tmp_path / "out.mp4", begins(corpus, DRIVER)
    assert command("--portrait", corpus / MONA, "--driver", driver, "-o", out) == 0
    frames = read(out)
    assert frames.shape == (75, 64, 64, 3)
    with av.open(str(out)) as file:
        assert file.streams.video[0].average_rate == 25
        assert file.streams.video[0].codec_context.name == "h264"
        assert file.streams.audio[0].codec_context.name == "aac"
    # The sound is the driver's, and where it was.
    (mine, _), (theirs, _) = (read_sound(path, 0, 75, 16000) for path in (out, driver))
    assert mine is not None and theirs is not None
    lags = range(-160, 161, 40)
    overlap = [float(np.corrcoef(np.roll(mine[0], -lag), theirs[0])[0, 1]) for lag in lags]
    assert max(overlap) > 0.9 and abs(lags[int(np.argmax(overlap))]) <= 40

    plate = marking.draw_label(np.full((1, 64, 64, 3), 255, np.uint8), "AI-generated")[0]
    dark = (plate < 100).all(-1)
    assert dark.sum() > 100
    assert frames[:, dark].mean() < 0.75 * frames[:, ~(plate < 255).any(-1)].mean()

    facts = facts_of(out)
    assert facts["kind"] == "video" and facts["label"] == "AI-generated"
    assert (facts["motion"], facts["variant"], facts["layout"]) == ("relative", "ff", "plain")
    assert facts["portraits"][0]["name"] == "mona_lisa.jpg"  # type: ignore[index]
    assert facts["driver"] == {"name": driver.name, "sha256": storage.sha256(driver)}
    assert facts["model"]["sha256"] == storage.sha256(model_file)  # type: ignore[index]
    assert [p["kind"] for p in facts["parents"]] == ["model", "portrait", "driver"]  # type: ignore[attr-defined]
    assert str(tmp_path) not in json.dumps(facts)
    assert marking.verify(out).state is marking.State.MADE
    assert not list(tmp_path.glob(".likeness-*"))


def test_a_portrait_is_fine_tuned_away_from_where_its_model_was_trained(
    tmp_path: Path,
    corpus: Path,
    command: Command,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipelines.command.os._exit", lambda code: None)
    monkeypatch.setenv("LIKENESS_CACHE", str(tmp_path / "cache"))
    weights = write_squeezenet(tmp_path / "squeezenet.pth")
    sha256 = storage.sha256(weights)
    far = {"weight": 1.0, "url": "/cluster/a.pth", "sha256": sha256}
    model = write_model(tmp_path / "far.safetensors", {"setting": {"content": {"squeezenet": far}}})
    driver, out = begins(corpus, THIRTY), tmp_path / "out.gif"
    words = ("--portrait", corpus / MONA, "--driver", driver, "-o", out)
    tuned = (*words, "--model", model, "--variant", "ft")
    assert command(*tuned) == 1
    said = capsys.readouterr().err
    assert sha256 in said and "settings.<name>.content.squeezenet.url" in said
    assert said.count("\n") == 1 and not out.exists()

    # Another setting than the chosen one may name it, with a weight of its own.
    settings = (
        "setting: b\nsettings:\n  b: {content: {random: {weight: 1}}}\n"
        f"  a: {{content: {{squeezenet: {{weight: 7, url: {weights}}}}}}}\n"
    )
    params = tmp_path / "params.yaml"
    without = params.read_text()
    params.write_text(without + settings)
    assert command(*tuned) == 0
    assert facts_of(out)["variant"] == "ft" and len(read(out)) > 1

    # Or it was fetched once.
    params.write_text(without)
    cache = perceptual.default_cache()
    cache.mkdir(parents=True)
    weights.rename(cache / f"squeezenet-{sha256[:16]}.pth")
    assert command(*tuned) == 0


def test_thirty_frames_a_second_stay_thirty(
    tmp_path: Path, corpus: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    portraits = (corpus / MONA, corpus / EINSTEIN)
    out = tmp_path / "grid.mp4"
    words = ("--driver", begins(corpus, THIRTY), "-o", out, "--no-label", "--motion", "absolute")
    assert command("--portrait", *portraits, *words) == 0
    said = capsys.readouterr().out
    assert "label is off" in said and "72 frames at 30 fps" in said
    frames = read(out)
    assert frames.shape == (72, 128, 256, 3)
    facts = facts_of(out)
    assert facts["label"] == "off" and facts["layout"] == "grid"
    assert len(facts["portraits"]) == 2  # type: ignore[arg-type]
    # Left is the portrait, which stands still; next to it the driver, who does not.
    assert np.ptp(frames[:, :, :60].astype(int), axis=0).mean() < 6
    assert np.ptp(frames[:, :64, 64:124].astype(int), axis=0).mean() > 10


def test_a_folder_of_pictures_from_a_person_file(
    tmp_path: Path, corpus: Path, model_file: Path, command: Command
) -> None:
    person = tmp_path / "person.safetensors"
    learn = ["--frames", corpus / MONA, "-o", person, "--params", tmp_path / "params.yaml"]
    assert adapt.main([str(w) for w in [*learn, "--model", model_file]]) == 0
    out = tmp_path / "frames"
    with av.open(str(begins(corpus, THIRTY))) as file:  # its first frames, for haste
        first = [f.to_ndarray(format="rgb24") for f in islice(file.decode(video=0), 20)]
    driver = open_writer(tmp_path / "short.mp4", Fraction(30), None)
    driver.write(np.stack(first))
    driver.close()
    words = ("--portrait", corpus / MONA, "--person", person, "--driver", tmp_path / "short.mp4")
    assert command(*words, "-o", f"{out}/", "--batch", "7") == 0
    pictures = sorted(p.name for p in out.iterdir())
    assert pictures == [f"{n:06d}.png" for n in range(20)]
    with Image.open(out / "000010.png") as image:
        assert image.size == (64, 64)
    assert marking.verify(out / "000010.png").state is marking.State.MADE
    facts = facts_of(out)
    assert facts["variant"] == "ft"
    assert facts["person"]["sha256"] == storage.sha256(person)  # type: ignore[index]
    assert command(*words, "-o", f"{out}/") == 2  # it is not empty any more


def test_nothing_half_made_is_left_behind(
    tmp_path: Path, corpus: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "new" / "out.mp4"
    frames = Scene.frames

    def fail_late(self: Scene, points: object, driver: object) -> object:
        if self.seconds:
            raise OSError(28, "No space left on device", "out.mp4")
        return frames(self, points, driver)  # type: ignore[arg-type]

    monkeypatch.setattr(Scene, "frames", fail_late)
    monkeypatch.setattr("os._exit", lambda code: None)
    words = ("--portrait", corpus / MONA, "--driver", begins(corpus, DRIVER), "-o", out)
    assert command(*words) == 1
    assert not list(out.parent.iterdir())


def test_no_input_is_written_over(
    tmp_path: Path, corpus: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    driver, portrait = tmp_path / "driver.mp4", tmp_path / "portrait.gif"
    driver.write_bytes(begins(corpus, DRIVER).read_bytes())
    Image.open(corpus / MONA).save(portrait)
    for output, option in ((driver, "--driver"), (portrait, "--portrait")):
        before = output.read_bytes()
        assert command("--portrait", portrait, "--driver", driver, "-o", output) == 2
        assert f"-o {output} is also {option}: give the output" in capsys.readouterr().err
        assert output.read_bytes() == before


def test_mistakes_are_one_line_and_exit_2(
    tmp_path: Path, corpus: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    mona, driver, out = corpus / MONA, begins(corpus, DRIVER), tmp_path / "out.mp4"
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    usual = ("--portrait", mona, "--driver", driver)
    for words, why in (
        (("--portrait", tmp_path / "noise.png", "--driver", driver), "no face found"),
        (("--portrait", tmp_path / "gone.png", "--driver", driver), "no such file"),
        (("--portrait", driver, "--driver", driver), "not a picture"),
        (("--portrait", mona, "--driver", mona), "JPEG picture"),
        (("--portrait", mona, mona, "--layout", "plain", "--driver", driver), "--layout grid"),
        (("--portrait", mona), "name a driver and an output"),
        ((*usual, "-o", tmp_path / "out.avi"), "must end in .mp4 or .gif"),
        ((*usual, "--virtual-camera"), "goes with --live"),
        ((*usual, "--batch", "0"), "--batch 0"),
        ((*usual, "--person", tmp_path / "gone.safetensors"), "no such file"),
        ((*usual, "--person", "x", "--variant", "ft"), "leave out --variant"),
        ((*usual, "--face", "4"), "no face 4"),
        ((*usual, "--model", tmp_path / "gone.safetensors"), "no such model"),
        ((*usual, "--device", "warp"), "device warp: give cpu, cuda or cuda:N"),
        ((*usual, "--device", "cpu:3"), "device cpu:3"),
        ((*usual, "--model", tmp_path), "is a folder"),
        ((*usual, "-o", tmp_path / "noise.png" / "out.mp4"), "noise.png is a file, not a folder"),
        ((*usual, "-o", "-"), "-o -: give a file's name"),
        (("--portrait", mona, "--driver", "0"), "a camera goes with --live"),
        (("--portrait", mona, "--driver", "http://h/x.mp4"), "a URL must be fetched first"),
    ):
        given = words if "-o" in words else (*words, "-o", out)
        assert command(*given) == 2, words
        err = capsys.readouterr().err
        assert why in err and err.count("\n") == 1, (words, err)
        assert not out.exists()
