"""The plan: counted from the annotations, priced, and come true."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from visit import clips

from pipelines import catalog
from pipelines.doctor import __main__ as doctor
from pipelines.doctor import plan, rates
from pipelines.doctor.__main__ import main
from pipelines.doctor.corpus import Corpus, count, voxceleb2
from pipelines.doctor.gpu import gpu
from pipelines.doctor.weights import weights
from pipelines.errors import UserError
from pipelines.params import Params, load

MakeParams = Callable[..., Params]


def real(
    folder: Path,
    corpus: Path,
    mirror: str | None = None,
    reader: str = "voxceleb2",
    path: str = "voxceleb2",
    metadata: Path | None = None,
) -> Params:
    file, taken = folder / "params.yaml", folder / "takedowns.csv"
    taken.write_text("kind,id,date,reason\n")
    file.write_text(
        f"""
name: corpus
paths: {{data: {folder}/data, work: {folder}/work}}
catalog:
  metadata: {metadata or corpus / "metadata"}
  takedowns: {taken}
  sources: [{{name: s, reader: {reader}, path: {path}}}]
download: {{mirror: {mirror or "null"}}}
landmarks: {{backend: mediapipe}}
card: {{title: t, licence: other, description: d}}
"""
    )
    return load(file)


def test_the_plan_of_the_real_corpus_came_true(corpus: Path, tmp_path: Path) -> None:
    """Counted from the annotations, before anything ran; within twice what the run then used."""
    params = real(tmp_path, corpus, mirror=str(corpus / "videos"))
    made = plan.estimate(params, count(params), workers=2)
    # docs/real-run.md, and the bytes of that run's folders.
    used = {"catalog": 1.7, "download": 6.6, "crop": 67.8, "landmarks": 89.2, "shard": 20.3}
    for stage, seconds in used.items():
        assert 0.5 < made[stage].cpu_seconds / seconds < 2, stage
    held = {"crop": 22.0e6 + 2.0e6, "landmarks": 10.8e6, "shard": 87.0e6}
    for stage, size in held.items():
        assert 0.5 < made[stage].bytes / size < 2, stage


def test_the_plan_of_another_corpus_came_true(corpus: Path, tmp_path: Path) -> None:
    """The ready crops, by rates that were measured on the other videos."""
    params = real(tmp_path, corpus, reader="mp4", path=".", metadata=corpus / "voxceleb2_mp4")
    made = plan.estimate(params, count(params), workers=2)
    for stage, seconds in {"crop": 58.9, "landmarks": 75.9, "shard": 14.1}.items():
        assert 0.5 < made[stage].cpu_seconds / seconds < 2, stage
    assert made["download"].bytes == 0


def test_the_catalog_and_the_annotations_count_alike(make_params: MakeParams) -> None:
    params = make_params()
    clips(params, 5)
    (Path(params.catalog.takedowns)).write_text("kind,id,date,reason\nperson,id4,,\n")
    before = count(params)
    assert (before.people, before.videos, before.clips) == (4, 4, 4)
    assert before.clip_seconds == 40
    # One clip from second 10 to 20: the video's end is expected at twice that.
    assert before.video_seconds == pytest.approx(4 * 40)
    catalog.build(params)
    after = count(params)
    assert after.counted_from == "catalog.parquet"
    assert (after.people, after.videos, after.clips) == (4, 4, 4)
    assert (after.clip_seconds, after.video_seconds) == (40, before.video_seconds)
    Path(params.catalog.takedowns).write_text(
        "kind,id,date,reason\n" + "".join(f"person,id{n},,\n" for n in range(5))
    )
    catalog.build(params)
    with pytest.raises(UserError, match="nothing to plan"):
        count(params)


def test_what_a_mirror_s_folder_lacks_is_fetched(
    make_params: MakeParams, make_video: Callable[..., Path], tmp_path: Path
) -> None:
    sections = {"per_minute": 0.1, "max_height": 360}
    clips(make_params(), 30)
    bare = make_params(download=sections)
    params = make_params(download=sections | {"mirror": str(tmp_path / "mirror")})
    none = plan.estimate(bare, count(bare), 1)
    make_video(tmp_path / "mirror" / "video7.mp4", frames=25, side=64)
    own = count(params)
    made = plan.estimate(params, own, 1)
    assert (own.in_place, own.mirror) == (1, (1, 30))
    # 40 s is what the annotations tell of a video's length, and this one has a second.
    assert (own.video_seconds, own.in_place_seconds) == pytest.approx((29 * 40 + 1, 1))
    assert own.megapixels == pytest.approx((29 * 0.2304 + 0.004096) / 30)
    assert made["download"].bytes == pytest.approx(none["download"].bytes * 29 / 30)
    assert made["download"].wall_seconds == 29 * 600
    assert made["download"].note == "1 read in place, 0.1 a minute"
    words = (
        "the mirror's folder holds 1 of the 30 videos looked for in it (3%), and that share of all"
    )
    assert any(words in line for line in made.assumptions)
    for number in range(30):
        make_video(tmp_path / "mirror" / f"video{number}.mp4", frames=25, side=64)
    whole = plan.estimate(params, count(params), 1)
    assert (whole["download"].bytes, whole["download"].note) == (0, "read in place")
    assert whole["download"].wall_seconds < 60
    assert not any("mirror's folder" in line for line in whole.assumptions)


def test_a_mirror_elsewhere_may_hold_any_share(make_params: MakeParams) -> None:
    """The plan says the longest, and what it would be if the mirror held all."""
    small = Corpus("x", 10, 100, 1000, 8000.0, 30_000.0, 0.9)
    params = make_params(download={"per_minute": 1.0, "mirror": "https://mirror.example"})
    made = plan.estimate(params, small, 1)
    assert made["download"].wall_seconds == 6000
    assert made["download"].bytes > 0
    (line,) = (line for line in made.assumptions if "mirror" in line)
    assert "not known" in line and line.endswith("takes 0.0 wall hours and the network's")
    without = plan.estimate(make_params(download={"per_minute": 1.0}), small, 1)
    assert not any("mirror" in line for line in without.assumptions)
    # The variable's value is not asked for by a plan, and it need not be a folder.
    clips(params)
    assert count(make_params(download={"mirror": "{env:MIRROR}"})).mirror is None


def test_the_plan_grows_with_its_parts(make_params: MakeParams) -> None:
    params = make_params(landmarks={"backend": "mediapipe"}, download={"per_minute": 1.0})
    small = Corpus("x", 10, 100, 1000, 8000.0, 30_000.0, 0.9)
    twice = Corpus("x", 10, 200, 2000, 16_000.0, 60_000.0, 0.9)
    one, two = plan.estimate(params, small, 1), plan.estimate(params, twice, 1)
    for a, b in zip(one.stages, two.stages, strict=True):
        assert a.cpu_seconds <= b.cpu_seconds <= 2 * a.cpu_seconds
        assert b.bytes == pytest.approx(2 * a.bytes)
    assert one["download"].wall_seconds == 6000  # 100 videos, one a minute
    four = plan.estimate(params, small, 4)
    assert four["crop"].wall_seconds < one["crop"].wall_seconds / 3
    on_cpu = make_params(landmarks={"backend": "face_alignment"})
    slow = plan.estimate(on_cpu, small, 1)["landmarks"].cpu_seconds
    assert slow == pytest.approx(1.487 * small.frames, rel=0.01)
    on_gpu = make_params(landmarks={"backend": "face_alignment", "device": "cuda"})
    assert plan.estimate(on_gpu, small, 1)["landmarks"].gpu_seconds == small.frames / 100


@pytest.mark.parametrize(
    ("setting", "videos", "used_seconds", "used_bytes"),
    [  # docs/real-run.md, and the demo's training after a takedown
        (
            {
                "content": {"squeezenet": {"weight": 0.5, "url": "x"}},
                "networks": {"image_size": 128, "min_channels": 16, "max_channels": 256},
                **{"epochs": 450, "batch": 4, "k": 2},
            },
            42,
            4339,
            191e6,
        ),
        (
            {
                "content": {"random": {"weight": 0.3}},
                "networks": {"image_size": 64, "min_channels": 16, "max_channels": 128},
                **{"epochs": 60, "batch": 4, "k": 4},
            },
            6,
            114,
            41e6,
        ),
    ],
)
def test_training_took_what_the_plan_says(
    make_params: MakeParams,
    setting: dict[str, Any],
    videos: int,
    used_seconds: float,
    used_bytes: float,
) -> None:
    params = make_params(settings={"paper": setting})
    corpus = Corpus("x", 10, round(videos / 0.98), 1000, 8000.0, 30_000.0, 0.9)
    planned = plan.estimate(params, corpus, 1)["meta_train"]
    assert 0.5 < planned.cpu_seconds / used_seconds < 2
    assert 0.5 < planned.bytes / used_bytes < 2


def test_training_is_priced_as_told(make_params: MakeParams) -> None:
    content = {"content": {"random": {"weight": 1.0}}}
    params = make_params(settings={"paper": content | {"epochs": 2}})
    own = Corpus("x", 10, 100, 1000, 8000.0, 30_000.0, 0.9)
    made = plan.estimate(params, own, 1)["meta_train"]
    # 98 of 100 videos are trained on: split.val is 0.02.
    assert made.cpu_seconds == pytest.approx(35 + 196 * rates.TERAFLOP * (0.79 + 0.142))
    on_gpu = make_params(settings={"paper": content | {"epochs": 2}}, ray={"gpus_per_worker": 1.0})
    assert "samples-per-second" in plan.estimate(on_gpu, own, 1)["meta_train"].note
    blind = plan.estimate(on_gpu, own, 1)
    assert blind.whole == "all but meta_train, evaluate"
    # Three checkpoints of 1.08 GB each, and W of 100 videos.
    assert blind["meta_train"].bytes == pytest.approx(3 * (1.083e9 + 98 * 6144), rel=0.01)
    assert plan.estimate(params, own, 1).whole == "all but evaluate"
    told_rate = plan.estimate(on_gpu, own, 1, 4.0)["meta_train"]
    assert told_rate.gpu_seconds == told_rate.wall_seconds == 49
    free = plan.Prices(0, 0, 3600, 0)
    assert told_rate.money(free) == pytest.approx(49)


def test_all_of_voxceleb2(
    make_params: MakeParams, params_file: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    params = make_params(landmarks={"backend": "mediapipe"})
    whole = voxceleb2(params)
    assert (whole.videos, whole.people) == (145_569, 6_112)
    made = plan.estimate(params, whole, 8)
    # At 20 videos a minute the downloads alone take five days.
    assert made["download"].wall_seconds / 86_400 == pytest.approx(5.05, abs=0.01)
    words = ["--params", params_file(params), "--plan", "--dataset", "voxceleb2-full"]
    assert main([*words, "--price-cpu-hour", "1", "--workers", "8"]) == 0
    said = capsys.readouterr().out
    assert "1,128,246 clips" in said
    assert "cpu hour $1" in said
    assert main([*words, "--workers", "0"]) == 2
    assert main([*words, "--price-gpu-hour", "-1"]) == 2
    for number in ("nan", "inf"):
        assert main([*words, "--samples-per-second", number]) == 2
        assert main([*words, "--price-cpu-hour", number]) == 2


@pytest.mark.parametrize(
    "words",
    [
        ["--dataset", "voxceleb2-full"],
        ["--workers", "2"],
        ["--samples-per-second", "4"],
        ["--price-cpu-hour", "1"],
    ],
)
def test_what_belongs_to_the_plan_is_refused_without_it(
    make_params: MakeParams,
    params_file: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
    words: list[str],
) -> None:
    assert main(["--params", params_file(make_params()), *words]) == 2
    out, err = capsys.readouterr()
    assert err == f"likeness: {words[0]}: only with --plan; add it\n"
    assert out == ""


def test_no_catalog_no_plan(
    make_params: MakeParams, params_file: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--params", params_file(make_params()), "--plan"]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_another_params_yaml_s_catalog_is_not_counted(make_params: MakeParams) -> None:
    params = make_params()
    clips(params, 5)
    catalog.build(params)
    assert count(params).counted_from == "catalog.parquet"
    (source,) = params.catalog.sources
    renamed = params.catalog.model_copy(
        update={"sources": (source.model_copy(update={"name": "another"}),)}
    )
    assert count(params.model_copy(update={"catalog": renamed})).counted_from == "the annotations"


@pytest.mark.parametrize(
    ("options", "workers"),
    [
        ({}, 1),
        ({"direct_num_workers": 3}, 3),
        ({"direct_num_workers": 0}, os.cpu_count()),
        ({"parallelism": 7}, 7),
    ],
)
def test_workers_are_those_that_beam_will_start(
    make_params: MakeParams, options: dict[str, int], workers: int
) -> None:
    assert plan.workers_of(make_params(beam={"options": options})) == workers


def test_the_rebuild_alone_asks_nothing_of_training(
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real(tmp_path, corpus)
    file = tmp_path / "params.yaml"
    with file.open("a") as more:
        more.write(
            "setting: s\nsettings: {s: {content: {vgg19: {weight: 1, url: nowhere.pth}}}}\n"
            "ray: {gpus_per_worker: 1}\nevaluate: {device: cuda}\n"
        )
    base = ["--params", str(file), "--plan"]
    assert main(base) == main([*base, "--rebuild"]) == 0
    whole, dataset = capsys.readouterr().out.split("what it will take")[1:]
    assert "meta_train" in whole and "meta_train" not in dataset
    words = ("nowhere.pth", "ray.gpus_per_worker", "evaluate.device")
    for options in ([], ["--rebuild"]):
        seen = list[Params]()
        monkeypatch.setattr(doctor, "examine", lambda params, seen=seen: seen.append(params) or 0)
        assert main(["--params", str(file), *options]) == 0
        said = "".join(v.line() for check in (weights, gpu) for v in check(seen[0]))
        assert [word in said for word in words] == [not options] * 3
