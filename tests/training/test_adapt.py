from __future__ import annotations

import dataclasses
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_model import MONA, PARAMS, SETTING, begins, write_model, write_squeezenet
from tiny_model import SHORT as VIDEO

from pipelines import storage
from pipelines.errors import StopStage, UserError
from pipelines.params import Params
from pipelines.params import training as sections
from training import adapt
from training.faces import Face, Finder, pictures_to
from training.finetune import AdaptConfig, FineTuner
from training.trained import Trained, load_model, load_person

pytest.importorskip("mediapipe")

TWO_STEPS = """
adapt: {iterations: 2, lr_generator: 1.0e-3}
animate: {batch_size: 4}
"""


@pytest.fixture
def command(tmp_path: Path, model_file: Path) -> Callable[..., int]:
    """`python -m training.adapt`, with a model and params of its own."""
    (tmp_path / "params.yaml").write_text(PARAMS + TWO_STEPS)

    def run(*words: str | Path) -> int:
        base = ["--params", tmp_path / "params.yaml", "--model", model_file]
        return adapt.main([str(word) for word in [*base, *words]])

    return run


def faces_of(count: int) -> list[Face]:
    draw = torch.Generator().manual_seed(0)
    return [
        Face(
            torch.randint(0, 255, (64, 64, 3), generator=draw, dtype=torch.uint8).numpy(),
            (torch.rand(68, 2, generator=draw) * 60).numpy(),
        )
        for _ in range(count)
    ]


def test_the_params_section_is_the_algorithms_config() -> None:
    own = sections.Adapt().model_dump()
    theirs = dataclasses.asdict(AdaptConfig())
    assert own == {name: theirs[name] for name in own}
    assert theirs.keys() - own.keys() == {"betas", "eps", "d_steps", "feature_weight"}


def test_the_command_line_has_the_last_word() -> None:
    settings = {"own": Namespace(adapt=sections.Adapt(iterations=7))}
    params = Params.model_construct(settings=settings, adapt=sections.Adapt(patience=3))
    model = Namespace(setting_name="own")
    said = adapt.config_of(params, model, Namespace(variant="ff", iterations=None))
    assert (said.variant, said.iterations, said.patience) == ("ff", 7, 3)
    with pytest.raises(UserError, match="iterations"):
        adapt.config_of(params, model, Namespace(variant=None, iterations=-1))


# --- learning --------------------------------------------------------------------------------


def test_ff_is_the_embedding_and_ft_moves_on_from_it(model_file: Path) -> None:
    model, faces, cpu = load_model(model_file), faces_of(2), torch.device("cpu")
    ff, none = adapt.learn(model, faces, AdaptConfig(variant="ff"), cpu)
    ft, done = adapt.learn(model, faces, AdaptConfig(iterations=3), cpu)
    assert (none, done) == (0, 3)
    assert ff.generator is model.generator and not ff.tuned and ft.tuned
    assert not torch.equal(ff.psi, ft.psi)


def test_what_cannot_be_tuned_says_so(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, cpu = load_model(model_file), torch.device("cpu")

    def learn(facts: dict[str, object], variant: str = "ft") -> None:
        other = dataclasses.replace(model, facts=facts)
        adapt.learn(other, faces_of(1), AdaptConfig(variant=variant, iterations=1), cpu)

    with pytest.raises(UserError, match="--variant ff"):
        learn({})
    with pytest.raises(UserError, match="--variant ff"):
        learn({"setting": {"content": {"pixels": {"weight": 1.0}}, "meta": {"variant": "ff"}}})
    with pytest.raises(UserError, match=r"^the model's setting: content: .*no model of ours$"):
        learn({"setting": {"content": {"pixels": {"weight": "heavy"}}}})
    learn({}, "ff")
    with pytest.raises(StopStage, match="no weights named"):
        learn({"setting": {"content": {"vggface": {"weight": 1.0}}}})

    def diverge(self: FineTuner) -> dict[str, float]:
        raise FloatingPointError("fine-tuning diverged")

    monkeypatch.setattr(FineTuner, "step", diverge)
    with pytest.raises(StopStage, match=r"lower adapt\.lr_generator"):
        learn(SETTING)


def test_pictures_reach_the_networks_as_in_training(model_file: Path) -> None:
    x = pictures_to([face.picture for face in faces_of(3)], 64, torch.device("cpu"))
    assert x.shape == (3, 3, 64, 64) and x.min() >= -1 and x.max() <= 1


# --- frames ----------------------------------------------------------------------------------


def test_frames_are_spread_evenly_over_a_video(corpus: Path, finder: Finder) -> None:
    video = begins(corpus, VIDEO)
    found, sources = adapt.collect([video], finder, 3, 256)
    assert len(found) == 3 and [s.path for s in sources] == [video]
    whole, _ = adapt.collect([video], finder, 72, 256)
    for face, number in zip(found, (0, 36, 71), strict=True):
        assert (face.picture == whole[number].picture).all()
        assert (face.points == whole[number].points).all()
    assert len(adapt.collect([video], finder, None, 256)[0]) == 8


def test_more_frames_than_a_video_has_is_one_line(corpus: Path, finder: Finder) -> None:
    with pytest.raises(UserError, match=r"--shots 500: frames that show a face in le4aQb.*: 72"):
        adapt.collect([begins(corpus, VIDEO)], finder, 500, 256)


def test_a_folder_gives_what_it_has(
    tmp_path: Path, corpus: Path, finder: Finder, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(corpus / MONA, tmp_path / "b.jpg")
    shutil.copy(corpus / "portraits/einstein.jpg", tmp_path / "a.jpg")
    (tmp_path / "c.jpg").write_text("no picture")
    (tmp_path / "notes.txt").write_text("no picture either")
    found, sources = adapt.collect([tmp_path], finder, None, 256)
    assert [s.path.name for s in sources] == ["a.jpg", "b.jpg"] and len(found) == 2
    said = capsys.readouterr().out
    assert "passed over 1 of 3 pictures:\n" in said and "c.jpg: cannot be read as a pic" in said
    found, _ = adapt.collect([tmp_path / "a.jpg", tmp_path / "b.jpg"], finder, 1, 256)
    assert len(found) == 1


def test_pictures_come_before_frames_of_videos(
    tmp_path: Path, corpus: Path, finder: Finder, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(corpus / "portraits/einstein.jpg", tmp_path / "a.jfif")
    (tmp_path / "b.heic").write_text("not read")
    (tmp_path / ".hidden").touch()
    paths = [begins(corpus, VIDEO), corpus / MONA, tmp_path]
    found, sources = adapt.collect(paths, finder, None, 64)
    assert len(found) == adapt.SHOTS
    assert {s.path.name for s in sources} == {paths[0].name, paths[1].name, "a.jfif"}
    assert (
        f"left out of {tmp_path}, as no pictures that it reads: 1 .heic" in capsys.readouterr().out
    )
    found, sources = adapt.collect(paths, finder, 1, 64)
    assert len(found) == 1 and "takes 1 of 2 pictures" in capsys.readouterr().out


def test_a_file_counts_once_whatever_its_names(
    corpus: Path, finder: Finder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    shutil.copy(corpus / MONA, folder / "a.jpg")
    shutil.copy(corpus / MONA, folder / "b.jpg")
    faces, sources = adapt.collect([corpus / MONA, folder], finder, None, 64)
    assert len(faces) == 1 and [source.path for source in sources] == [corpus / MONA]
    said = capsys.readouterr().out
    for name in "ab":
        assert f"passed over {folder}/{name}.jpg: the same file as {corpus / MONA}" in said
    with pytest.raises(UserError, match=r"--shots 2: frames that .*: 1$"):
        adapt.collect([corpus / MONA, folder], finder, 2, 64)


def test_folders_that_will_not_do(tmp_path: Path, finder: Finder) -> None:
    with pytest.raises(UserError, match="no pictures in this folder"):
        adapt.collect([tmp_path], finder, None, 256)
    (tmp_path / "c.jpg").write_text("no picture")
    with pytest.raises(UserError, match="none of 1 pictures will do"):
        adapt.collect([tmp_path], finder, None, 256)
    with pytest.raises(UserError, match=r"gone\.jpg: no such file"):
        adapt.collect([tmp_path / "gone.jpg"], finder, None, 256)
    with pytest.raises(UserError, match=r"gone: No such file"):
        adapt.collect([tmp_path / "gone"], finder, None, 256)


# --- the command -----------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["ft", "ff"])
def test_a_person_file_leads_back_to_what_it_was_made_of(
    tmp_path: Path,
    corpus: Path,
    model_file: Path,
    command: Callable[..., int],
    variant: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "person.safetensors"
    assert command("--frames", corpus / MONA, "-o", out, "--variant", variant) == 0
    assert str(out) in capsys.readouterr().out
    model: Trained = load_model(model_file)
    person, facts = load_person(out, model)
    assert person.tuned == (variant == "ft")
    assert facts["kind"] == "person" and facts["variant"] == variant and facts["shots"] == 1
    assert facts["iterations"] == (2 if variant == "ft" else 0)
    assert facts["frames"] == [
        {"name": "mona_lisa.jpg", "sha256": adapt.Source.of(corpus / MONA).sha256}
    ]
    assert facts["parents"][0] == {"kind": "model", "sha256": model.sha256}
    assert facts["parents"][1] == {"kind": "frames", **facts["frames"][0]}
    y = torch.zeros(1, 3, 64, 64)
    assert person.render(y).shape == (1, 3, 64, 64)


def test_a_model_is_fine_tuned_away_from_where_it_was_trained(
    tmp_path: Path,
    corpus: Path,
    command: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipelines.command.os._exit", lambda code: None)
    weights = write_squeezenet(tmp_path / "squeezenet.pth")
    far = {"weight": 1.0, "url": "/cluster/a.pth", "sha256": storage.sha256(weights)}
    facts = {"setting": {"content": {"squeezenet": far}}}
    model = write_model(tmp_path / "far.safetensors", facts)
    out = tmp_path / "person.safetensors"
    words = ("--model", model, "--frames", corpus / MONA, "-o", out)
    assert command(*words) == 1
    said = capsys.readouterr().err
    assert "settings.<name>.content.squeezenet.url" in said and said.count("\n") == 1
    settings = (
        "setting: b\nsettings:\n  b: {content: {random: {weight: 1}}}\n"
        f"  a: {{content: {{squeezenet: {{weight: 7, url: {weights}}}}}}}\n"
    )
    (tmp_path / "params.yaml").write_text(PARAMS + TWO_STEPS + settings)
    assert command(*words) == 0 and out.exists()


def test_mistakes_are_one_line_and_exit_2(
    tmp_path: Path,
    corpus: Path,
    model_file: Path,
    command: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "person.safetensors"
    truncated = tmp_path / "cut.safetensors"
    truncated.write_bytes(model_file.read_bytes()[:-1000])
    person = tmp_path / "other.safetensors"
    assert command("--frames", corpus / MONA, "-o", person, "--variant", "ff") == 0
    capsys.readouterr()
    copied = tmp_path / "copy.safetensors"
    copied.write_bytes(model_file.read_bytes())
    for words, why in (
        (("--frames", tmp_path / "gone.mp4"), "gone.mp4"),
        (("--frames", corpus / MONA, "--shots", "0"), "--shots 0"),
        (
            ("--frames", corpus / MONA, "--shots", "2"),
            "frames that show a face in mona_lisa.jpg: 1",
        ),
        (("--frames", corpus / MONA, "--model", tmp_path / "no.safetensors"), "no such model"),
        (("--frames", corpus / MONA, "--model", truncated), "damaged, cut short"),
        (("--frames", corpus / MONA, "--model", person), "is a person, not a model"),
        (("--frames", corpus / MONA, "--device", "warp"), "device warp"),
        (("--frames", corpus / MONA, corpus / MONA), "mona_lisa.jpg twice"),
        (("--frames", corpus / MONA, "--variant", "ff", "--iterations", "3"), "ff takes none"),
        (("--frames", corpus / MONA, "--iterations", "-4"), "iterations is -4"),
        (("--frames", corpus / MONA, "-o", tmp_path / "me.mp4"), "ends in .safetensors"),
        (("--frames", corpus / MONA, "-o", model_file), "is also --model"),
        (
            ("--frames", corpus / MONA, "-o", copied, "--model", model_file),
            "-o would write over what is no person: ",
        ),
        (("--frames", corpus / MONA, "-o", person / "x.safetensors"), "is a file, not a folder"),
    ):
        given = words if "-o" in words else (*words, "-o", out)
        assert command(*given) == 2
        err = capsys.readouterr().err
        assert why in err and err.count("\n") == 1
        assert not out.exists()
