from __future__ import annotations

import json
import time
import weakref
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_model import MONA, NETWORKS, PARAMS, begins, write_model
from tiny_model import SHORT as DRIVER

from pipelines.detectors.base import share_inside
from pipelines.errors import UserError
from pipelines.params import training as sections
from training import adapt, animate, marking
from training.faces import Face, Finder, Picture, Points, from_picture
from training.finetune import Person
from training.footage import follow
from training.live.drivers import Recording, Shot
from training.live.follower import Follower
from training.live.performance import run
from training.live.sinks import File, VirtualCamera
from training.networks import Generator
from training.scene import Job, Scene, Subject

pytest.importorskip("mediapipe")


@pytest.fixture
def job(corpus: Path, finder: Finder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    generator = Generator(NETWORKS)
    face: Face = from_picture(corpus / MONA, finder)
    person = Person(generator, torch.randn(1, sum(generator.psi_sizes)), tuned=False)
    subject = Subject(adapt.Source.of(corpus / MONA), face, person)
    scene = Scene([subject], 64, "side-by-side", "AI-generated", torch.device("cpu"))
    return Job(scene, finder, sections.Animate(), marking.keys(None, None), {"parents": []})


class Audience:
    """A sink without a screen; leaves after some frames."""

    def __init__(self, patience: int = 10**6) -> None:
        self.frames: list[Picture] = []
        self.times: list[float] = []
        self.patience = patience

    def show(self, frame: Picture, at: float) -> bool:
        self.frames.append(frame)
        self.times.append(at)
        return len(self.frames) < self.patience

    def close(self) -> None: ...


def test_a_recording_is_shown_frame_by_frame(corpus: Path, job: Job) -> None:
    audience = Audience()
    latency = run(job, Recording(begins(corpus, DRIVER), paced=False), [audience])
    assert len(audience.frames) == len(latency.whole) == 72
    assert audience.frames[0].shape == (64, 256, 3)
    np.testing.assert_allclose(audience.times, np.arange(72) / 30)
    assert all(
        w >= d + g for w, d, g in zip(latency.whole, latency.detect, latency.generate, strict=True)
    )
    for word in ("latency", "detect", "generate", "ms (p95"):
        assert word in latency.words()
    # The label stays on: its plate darkens the foot of what was generated.
    bare = Scene(job.scene.subjects, 64, "plain", None, torch.device("cpu"))
    with bare.ready():
        plain = bare.frames([job.scene.subjects[0].face.points[None]], [])[0]
    foot = np.mean([frame[50:60, 196:252] for frame in audience.frames])
    assert foot < 0.8 * plain[50:60, 4:60].mean()


def test_the_show_ends_when_the_audience_leaves(corpus: Path, job: Job) -> None:
    audience = Audience(patience=3)
    assert len(run(job, Recording(begins(corpus, DRIVER), paced=False), [audience]).whole) == 3


class Webcam:
    """Frames that do not wait, like a camera's; some of them without a face."""

    fps, waits, facts = Fraction(10), False, {"name": "camera 0"}

    def __init__(self, pictures: list[Picture]) -> None:
        self.pictures = pictures

    def __iter__(self) -> Iterator[Shot]:
        for number, picture in enumerate(self.pictures):
            yield Shot(picture, number / 10, time.perf_counter())


def test_a_cameras_first_second_is_not_shown_late(corpus: Path, job: Job) -> None:
    pictures = [shot.picture for shot in Recording(begins(corpus, DRIVER), paced=False)][:20]
    empty = np.zeros_like(pictures[0])
    audience = Audience()
    run(job, Webcam([empty, empty, *pictures, empty]), [audience])
    # Ten frames with a face are the reference; the last of them is the first to be shown.
    assert len(audience.frames) == 12
    assert audience.times[0] == pytest.approx(1.1)
    # A lost face keeps the last motion.
    before, after = (frame[:, 128:192].astype(int) for frame in audience.frames[-2:])
    assert after.any() and np.abs(before - after).mean() < 20


def test_nothing_piles_up_while_nobody_is_seen(
    corpus: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[weakref.ref[Picture]] = []
    most = 0

    class Empty(Webcam):
        def __iter__(self) -> Iterator[Shot]:
            nonlocal most
            for number in range(200):
                picture = np.zeros((64, 64, 3), np.uint8)
                alive.append(weakref.ref(picture))
                yield Shot(picture, number / 10, time.perf_counter())
                most = max(most, sum(one() is not None for one in alive))

    for waits, limit in ((False, 3), (True, 25)):  # two seconds of ten frames, and those at work
        most = 0
        driver = Empty([])
        driver.waits = waits  # type: ignore[misc]
        with pytest.raises(UserError, match="no face seen"):
            run(job, driver, [Audience()])
        assert 0 < most <= limit


def test_no_face_at_all_is_one_line(job: Job) -> None:
    with pytest.raises(UserError, match="camera 0: no face seen"):
        run(job, Webcam([np.zeros((64, 64, 3), np.uint8)] * 3), [Audience()])


def test_ctrl_c_ends_a_show_without_losing_it(corpus: Path, job: Job) -> None:
    class Impatient(Audience):
        def show(self, frame: Picture, at: float) -> bool:
            super().show(frame, at)
            if len(self.frames) == 5:
                raise KeyboardInterrupt
            return True

    audience = Impatient()
    run(job, Recording(begins(corpus, DRIVER), paced=False), [audience])
    assert len(audience.frames) == 5


def test_the_tracker_finds_what_the_detector_finds(corpus: Path, finder: Finder) -> None:
    footage = follow(begins(corpus, DRIVER), finder)
    crop = footage.crop.boxes[0]
    follower = Follower(finder)
    apart = []
    for number, shot in enumerate(Recording(begins(corpus, DRIVER), paced=False)):
        if number == 20:
            break
        scale = 640 / shot.picture.shape[0]
        top = (640 - 360) / 2  # the whole picture lies in a square
        seen = follower(shot.picture, shot.at) * scale - [0, top]
        theirs = footage.points[number] * (crop[2] / 256) + crop[:2]
        apart.append(np.linalg.norm(seen - theirs, axis=1).mean())
    assert np.mean(apart) < 0.03 * crop[2]


SHAPE = np.random.default_rng(0).uniform(0, 60, (68, 2)).astype(np.float32)


class Scripted:
    """A finder of the faces that it is told of."""

    backend = "scripted"

    def __init__(self) -> None:
        self.faces: list[Points] = []

    def all(self, picture: Picture) -> list[Points]:
        return self.faces

    def near(self, picture: Picture, box: np.ndarray) -> Points | None:
        boxes = box[None].astype(np.float32)
        return next((f for f in self.faces if share_inside(f[None], boxes)[0] > 0.5), None)


def test_nobody_else_is_followed_when_the_face_leaves() -> None:
    finder, picture = Scripted(), np.zeros((300, 600, 3), np.uint8)
    follower = Follower(finder, which=1)  # type: ignore[arg-type]
    mine, theirs = SHAPE + 100, SHAPE + np.float32((400, 100))
    near, close_up = SHAPE + np.float32((170, 100)), SHAPE * 3 + 40
    cases = (
        ([mine, theirs], mine),
        ([SHAPE + 110, theirs], SHAPE + 110),
        ([theirs], None),
        ([], None),
        ([SHAPE + np.float32((260, 100))], None),  # comes nearer, and is still somebody else
        ([close_up], None),  # a face of three times the size where mine was
        ([near, theirs], near),  # mine again, a bit aside
    )
    for at, (there, followed) in enumerate(cases):
        finder.faces = [np.asarray(face, np.float32) for face in there]
        wanted = np.full((68, 2), np.nan) if followed is None else followed
        np.testing.assert_allclose(follower(picture, at), wanted)


def test_who_sits_down_elsewhere_is_taken_on_once_alone() -> None:
    finder, picture = Scripted(), np.zeros((300, 600, 3), np.uint8)
    follower = Follower(finder, patience=4.0)  # type: ignore[arg-type]
    mine, back, other = SHAPE + 100, SHAPE + np.float32((480, 60)), SHAPE + np.float32((290, 60))
    cases = (
        ([mine], mine),
        ([back], None),
        ([], None),
        ([back], None),
        ([back, other], None),  # who of them?
        ([back], back),
    )
    for at, (there, followed) in enumerate(cases):
        finder.faces = [np.asarray(face, np.float32) for face in there]
        wanted = np.full((68, 2), np.nan) if followed is None else followed
        np.testing.assert_allclose(follower(picture, at), wanted)


def test_a_tracker_that_hops_to_another_face_in_its_view_is_not_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finder, picture = Scripted(), np.zeros((300, 600, 3), np.uint8)
    tracked: list[Points | None] = [None]
    monkeypatch.setattr("training.live.follower._tracker", lambda _: lambda *_: tracked[0])
    follower = Follower(finder)  # type: ignore[arg-type]
    mine = SHAPE + 100
    finder.faces = [mine]
    np.testing.assert_allclose(follower(picture, 0.0), mine)
    view = follower._view
    assert view is not None
    finder.faces = []
    tracked[0] = (SHAPE + np.float32((185, 100)) - view[:2]).astype(np.float32)
    assert view[0] < 185 < view[0] + view[2], "in view"
    assert np.isnan(follower(picture, 0.1)).all()


def test_a_lost_face_holds_though_another_is_seen(corpus: Path, job: Job) -> None:
    film = [shot.picture for shot in Recording(begins(corpus, DRIVER), paced=False)][:24]
    with Image.open(corpus / MONA) as file:
        height = film[0].shape[0]
        size = (round(file.width * height / file.height), height)
        mona = np.asarray(file.convert("RGB").resize(size))
    alone = [np.concatenate([frame, np.zeros_like(mona)], axis=1) for frame in film]
    gone = np.concatenate([np.zeros_like(film[0]), mona], axis=1)
    audience = Audience()
    run(job, Webcam([*alone[:16], gone, gone, *alone[16:]]), [audience])
    made = [frame[:, 128:192].astype(int) for frame in audience.frames]
    assert len(made) == 17  # but for the first nine, of the reference
    held = [float(np.abs(made[at] - made[6]).mean()) for at in (7, 8)]
    assert max(held) < 1, "the last motion stays"


def test_late_frames_are_repeated_in_a_file() -> None:
    class Counting:
        frames = 0

        def write(self, frames: np.ndarray) -> None:
            self.frames += len(frames)

        def close(self) -> None: ...

    writer = Counting()
    file = File(writer, Fraction(10))
    for at in (0.0, 0.1, 0.5, 0.52):
        file.show(np.zeros((4, 4, 3), np.uint8), at)
    assert writer.frames == file.count == 6
    late = File(Counting(), Fraction(10))
    late.show(np.zeros((4, 4, 3), np.uint8), 60.0)  # nobody was seen for a minute
    assert late.count == 1


def test_the_command_writes_a_signed_file(
    tmp_path: Path,
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    (tmp_path / "params.yaml").write_text(PARAMS)
    write_model(tmp_path / "tiny.safetensors", {})
    out = tmp_path / "live.mp4"

    def command(*words: str | Path) -> int:
        base = ["--params", tmp_path / "params.yaml", "--model", tmp_path / "tiny.safetensors"]
        base += ["--portrait", corpus / MONA, "--live"]
        return animate.main([str(word) for word in [*base, *words]])

    assert command("--driver", begins(corpus, DRIVER), "-o", out) == 0
    said = capsys.readouterr().out
    assert "live: 72 frames; latency" in said and "p95" in said and "signed" in said
    with av.open(str(out)) as file:
        assert sum(1 for _ in file.decode(video=0)) == 72
    assert marking.verify(out).state is marking.State.MADE
    facts = json.loads(marking.sidecar_path(out).read_text())["facts"]
    assert (
        facts["driver"]["name"] == begins(corpus, DRIVER).name and facts["label"] == "AI-generated"
    )

    for words, why in (
        (("--driver", begins(corpus, DRIVER)), "no display"),
        (("--driver", "97"), "no display"),
        (("--driver", "97", "-o", tmp_path / "b.mp4"), "no camera opens there"),
        (("--driver", tmp_path / "gone.mp4", "-o", tmp_path / "b.mp4"), "no such file"),
    ):
        assert command(*words) == 2
        err = capsys.readouterr().err
        assert why in err and err.count("\n") == 1


def test_a_missing_virtual_camera_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyvirtualcam", None)
    with pytest.raises(UserError, match="pip install pyvirtualcam"):
        VirtualCamera(Fraction(25))
