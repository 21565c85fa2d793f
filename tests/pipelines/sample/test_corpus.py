"""The sample corpus: complete, in VoxCeleb2's own layout, reproducible, and broken as announced."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

pytest.importorskip("skimage", reason="the photographs come with scikit-image: the extra `sample`")
pytest.importorskip("matplotlib", reason="the photographs come with matplotlib: the extra `sample`")

from pipelines.sample import corpus, plan
from pipelines.sample.__main__ import main
from pipelines.sample.corpus import Corpus, SampleError
from pipelines.statuses import Status

LINE = re.compile(r"\d{6} \t\d\.\d{3} \t\d\.\d{3} \t\d\.\d{3} \t\d\.\d{3} ")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus.build(tmp_path_factory.mktemp("sample") / "corpus")


def text_of(built: Corpus, clip: plan.Clip) -> str:
    folder = built.metadata / "txt" / clip.person / clip.video
    return (folder / f"{clip.utterance}.txt").read_text()


def file_of(built: Corpus, video: plan.Video) -> Path:
    return built.video_folder / f"{video.video}.mp4"


def one(built: Corpus, material: str) -> plan.Video:
    return next(v for v in built.videos if v.material == material)


def test_holds_what_the_plan_says(built: Corpus) -> None:
    assert len({v.video for v in built.videos}) == len(built.videos) == 18
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{11}", v.video) for v in built.videos)
    assert any(v.video[0] in "-_" for v in built.videos)
    assert any(v.video[-1] in "-_" for v in built.videos)
    assert len({c.person for c in built.clips}) == 6
    assert {c.person for c in built.clips if c.split == "test"} == {"id99006"}
    statuses = Counter(clip.status for clip in built.clips)
    assert statuses[Status.OK] == 29
    assert {s for s in statuses if s != Status.OK} == {
        Status.REMOVED, Status.NOT_A_VIDEO, Status.TRUNCATED, Status.NO_FACE,
        Status.SCENE_CUT, Status.OUT_OF_RANGE,
    }  # fmt: skip
    on_disk = {path.stem for path in built.video_folder.iterdir()}
    assert on_disk == {v.video for v in built.videos if v.material != plan.ABSENT}
    assert len(list(built.metadata.rglob("*.txt"))) == len(built.clips)


def test_annotations_have_voxceleb2_s_layout(built: Corpus) -> None:
    for clip in built.clips:
        lines = text_of(built, clip).split("\n")
        assert lines[:3] == [
            f"Identity  : \t{clip.person}",
            f"Reference : \t{clip.video}",
            "Offset    : \t0",
        ]
        assert re.fullmatch(r"FV Conf   : \t\d+\.\d{3}\t\(1\)", lines[3])
        assert re.fullmatch(r"ASD Conf  : \t\d+\.\d{3}", lines[4])
        assert lines[5:7] == ["", "FRAME \tX \tY \tW \tH "]
        assert lines[-1] == ""
        frames = lines[7:-1]
        assert all(LINE.fullmatch(line) for line in frames)
        numbers = [int(line[:6]) for line in frames]
        assert numbers == list(range(clip.first_frame, clip.first_frame + clip.frames))
    meta = (built.metadata / "vox2_meta.csv").read_bytes()
    assert meta.startswith(b"\xef\xbb\xbfVoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set \n")
    assert b"\nid99006 ,n099006 ,f ,test \n" in meta


def test_healthy_videos_play_from_end_to_end(built: Corpus) -> None:
    rates = set()
    for video in (v for v in built.videos if v.material == plan.HEALTHY):
        with av.open(str(file_of(built, video))) as container:
            picture, sound = container.streams.video[0], container.streams.audio[0]
            rates.add(picture.average_rate)
            assert (picture.width, picture.height) == (640, 360)
            assert picture.frames == video.frames25 * video.fps // 25
            assert float(picture.duration * picture.time_base) == video.frames25 / 25
            assert abs(sound.duration * sound.time_base - video.frames25 / 25) < 0.05
            if video.fps == 30:  # one full decode a person is plenty
                assert sum(1 for _ in container.decode(picture)) == picture.frames
        for clip in video.clips:
            inside = clip.first_frame + clip.frames <= video.frames25
            assert inside == (clip.status == Status.OK)
            if not inside:
                assert (clip.stage, clip.status) == ("crop", Status.OUT_OF_RANGE)
                assert clip.first_frame >= video.frames25
    assert rates == {25, 30}


def test_broken_material_is_broken_as_announced(built: Corpus) -> None:
    assert file_of(built, one(built, plan.HTML)).read_bytes().startswith(b"<!doctype html>")
    cut = file_of(built, one(built, plan.CUT_SHORT))
    with av.open(str(cut)) as container:
        stream = container.streams.video[0]
        packets = sum(1 for packet in container.demux(stream) if packet.size)
        assert 0 < packets < stream.frames
    assert sorted(built.faults.values()) == ["410", "503:2"]


def test_the_scene_cuts_in_the_middle_of_the_second_clip(built: Corpus) -> None:
    video = one(built, plan.SCENE_CUT)
    with av.open(str(file_of(built, video))) as container:
        frames = [f.to_ndarray(format="gray").astype(int) for f in container.decode(video=0)]
    steps = [np.abs(b - a).mean() for a, b in pairwise(frames)]
    first, second = video.clips
    assert second.first_frame + second.frames // 2 == int(np.argmax(steps)) + 1
    assert max(steps) > 5 * sorted(steps)[-2]
    assert (first.status, second.status) == (Status.OK, Status.SCENE_CUT)


def test_faces_are_found_where_they_are_annotated(built: Corpus) -> None:
    face_mesh = pytest.importorskip(
        "mediapipe.python.solutions.face_mesh", reason="the detector is the extra `mediapipe`"
    )
    found: list[bool] = []
    with face_mesh.FaceMesh(static_image_mode=True) as mesh:
        for video in built.videos:
            if video.material not in (plan.HEALTHY, plan.FACELESS):
                continue
            with av.open(str(file_of(built, video))) as container:
                stills = {
                    round(f.time * 25): f.to_ndarray(format="rgb24")
                    for n, f in enumerate(container.decode(video=0))
                    if n % 15 == 0
                }
            for clip in video.clips:
                for line in text_of(built, clip).split("\n")[7:-1]:
                    number, *box = line.split()
                    if int(number) not in stills:
                        continue
                    x, y, w, h = np.array([float(v) for v in box]) * (640, 360, 640, 360)
                    left, top = max(0, round(x - 0.3 * w)), max(0, round(y - 0.3 * h))
                    crop = stills[int(number)][top : round(y + 1.3 * h), left : round(x + 1.3 * w)]
                    faces = mesh.process(np.ascontiguousarray(crop)).multi_face_landmarks
                    if video.material == plan.FACELESS:
                        assert not faces
                        continue
                    found.append(bool(faces))
                    if faces:
                        mark = faces[0].landmark
                        across = left + np.mean([p.x for p in mark]) * crop.shape[1]
                        down = top + np.mean([p.y for p in mark]) * crop.shape[0]
                        assert abs(across - (x + w / 2)) < 0.15 * w
                        assert abs(down - (y + h / 2)) < 0.15 * h
    assert len(found) > 60
    assert np.mean(found) > 0.95


def test_a_second_build_does_nothing(built: Corpus) -> None:
    def times() -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for p in built.root.rglob("*")}

    before = times()
    assert corpus.build(built.root) == built == corpus.load(built.root)
    assert times() == before


def test_same_seed_same_bytes_other_seed_other_bytes(built: Corpus, tmp_path: Path) -> None:
    video = min((v for v in built.videos if v.material == plan.HEALTHY), key=lambda v: v.frames25)
    again = tmp_path / "again.mp4"
    corpus._write_video(again, video, built.seed)
    assert again.read_bytes() == file_of(built, video).read_bytes()
    corpus._write_metadata(tmp_path, built.videos, built.seed)
    clip = video.clips[0]
    path = tmp_path / "txt" / clip.person / clip.video / f"{clip.utterance}.txt"
    assert path.read_text() == text_of(built, clip)
    assert not {v.video for v in plan.videos(1)} & {v.video for v in built.videos}


def test_an_interrupted_build_is_taken_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    few = plan.videos(0)[:1]
    monkeypatch.setattr(plan, "videos", lambda seed: few)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(corpus, "_write_video", stop)
        with pytest.raises(KeyboardInterrupt):
            corpus.build(tmp_path)
    assert not (tmp_path / "expected.json").exists()
    assert not (tmp_path / "videos").exists()
    corpus.build(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["expected.json", "metadata", "videos"]
    assert json.loads((tmp_path / "expected.json").read_text())["version"] == corpus.VERSION


def test_leaves_strangers_files_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "videos").mkdir()
    with pytest.raises(SampleError, match="another origin"):
        corpus.build(tmp_path)
    assert main(["build", str(tmp_path)]) == 1
    assert main(["serve", str(tmp_path)]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert all(line.startswith("likeness: ") for line in errors)
    assert "pipelines.sample build" in errors[1]


def test_a_demo_of_other_settings_is_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--params", str(tmp_path / "none.yaml")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("likeness: ")
