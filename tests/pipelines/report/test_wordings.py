"""The tools' own words, grouped and counted; and the one verdict on each clip."""

import pyarrow as pa
import pytest
from card_run import OF_STAGE, SECRET, add_source, build_run, make_params, write

from pipelines import manifest
from pipelines.errors import UserError
from pipelines.report import clip_table, wordings
from pipelines.report.funnel import Funnel, Step, read_funnel
from pipelines.report.verdicts import read_verdicts
from pipelines.schemas import CROPS, LANDMARKS
from pipelines.statuses import STATUS, Status


def verdicts(rows):
    names = ("key", "source", "person", "video", "utterance", "split", "stage", "status", "detail")
    full = [{"source": "vox", "split": "train", "stage": "download"} | row for row in rows]
    return pa.table({name: [row[name] for row in full] for name in names})


def clip(n, video, detail, status="removed"):
    key = f"id00001_{video}_{n:05d}"
    return {"key": key, "person": "id00001", "video": video, "utterance": f"{n:05d}"} | {
        "status": status,
        "detail": detail,
    }


def pages(rows):
    step = Step("download", "videos", clips_in=len(rows))
    step.rows.update(row["status"] for row in rows)
    step.losses.update(row["status"] for row in rows)
    return {p.status: p for p in wordings.status_pages(Funnel([step], 0), verdicts(rows))}


def test_words_that_differ_in_the_clip_alone_are_one():
    rows = [clip(n, f"video{n % 3}xyz", f"[youtube] video{n % 3}xyz: gone") for n in range(9)]
    rows.append(clip(10, "video9xyz", "HTTP Error 404: Not Found"))
    page = pages(rows)["removed"]
    assert [(w.clips, w.shown) for w in page.wordings] == [
        (9, "[youtube] ‹video›: gone"),
        (1, "HTTP Error 404: Not Found"),
    ]
    assert (page.clips, page.videos, page.others) == (10, 4, 0)
    # One of each wording first, in the words of its own clip.
    assert [row["detail"] for row in page.examples[:2]] == [
        "[youtube] video0xyz: gone",
        "HTTP Error 404: Not Found",
    ]


def test_too_many_wordings_lose_their_numbers_but_http_keeps_its():
    rows = [clip(n, "v1234", f"{n}.5 of 60, HTTP Error 403", "truncated") for n in range(100)]
    page = pages(rows)["truncated"]
    assert [(w.clips, w.shown) for w in page.wordings] == [(100, "# of #, HTTP Error 403")]
    assert len(page.examples) == wordings.EXAMPLES


def test_what_does_not_fit_is_counted():
    words = ["".join(chr(97 + int(d)) for d in f"{n:04d}") for n in range(wordings.MANY + 500)]
    rows = [clip(n, "v1234", word) for n, word in enumerate(words)]
    page = pages(rows)["removed"]
    assert len(page.wordings) == wordings.SHOWN
    assert page.others_clips + sum(w.clips for w in page.wordings) == len(rows)


@pytest.mark.parametrize("status", [s for s in STATUS if s != Status.OK])
def test_commands_are_such_that_the_stage_takes_them(status):
    from pipelines.statuses import parse_statuses

    stages = [stage for stage, own in OF_STAGE.items() if status in own]
    found = wordings.commands(status, stages)
    if status in (Status.EXCLUDED, Status.OUT_OF_RANGE):
        assert found == []
        return
    assert found[-1] == "dvc repro"
    for command in found[:-1]:
        _, _, module, *rest = command.split()
        assert module.removeprefix("pipelines.") in ("download", "crop", "landmarks")
        assert not rest or parse_statuses([rest[1]]) == {status}
    # What the table of statuses promises is what is to be typed.
    assert ("--retry" in STATUS[status].remedy) <= ("--retry" in " ".join(found))


# --- the verdict -----------------------------------------------------------------------------


def test_the_first_stage_to_say_no_counts(made):
    params, _ = made
    rows = read_verdicts(params.paths.data).to_pylist()
    catalog = manifest.read(params.paths.manifest("catalog"), ["key"])
    assert [row["key"] for row in rows] == catalog["key"].to_pylist()
    for step in read_funnel(params).steps:
        found = [row["status"] for row in rows if row["stage"] == step.stage]
        assert {s: found.count(s) for s in set(found)} == dict(step.losses), step.stage
    assert sum(row["stage"] == "shard" for row in rows) == 20
    assert all(row["status"] == "ok" for row in rows if row["stage"] == "shard")


@pytest.mark.parametrize("video", ["vox/id1/v1", "id1/v1"], ids=["now", "of before"])
def test_ready_crops_are_blamed_by_source_and_person(tmp_path, video):
    from pipelines.schemas import CATALOG, DOWNLOADS, INDEX

    params = make_params(tmp_path)
    names = {"source": "vox", "key": "id1_v1_1", "person": "id1", "video": "v1", "utterance": "1"}
    write(params, "catalog", [names | {"status": "ok", "media": "a.mp4"}], CATALOG)
    bad = {"source": "vox", "video": video, "status": "corrupt", "detail": "no frames"}
    write(params, "download", [bad], DOWNLOADS)
    write(params, "crop", [names | {"status": "source_missing"}], CROPS)
    write(params, "landmarks", [], LANDMARKS)
    write(params, "shard", [], INDEX)
    (row,) = read_verdicts(params.paths.data).to_pylist()
    assert (row["stage"], row["status"], row["detail"]) == ("download", "corrupt", "no frames")
    assert [s.losses for s in read_funnel(params).steps if s.losses] == [{"corrupt": 1}]


@pytest.mark.parametrize(("status", "stage"), [("corrupt", "download"), ("ok", "crop")])
def test_a_ready_crop_is_not_blamed_on_a_site_s_video_of_its_name(tmp_path, status, stage):
    from pipelines.schemas import CATALOG, DOWNLOADS, INDEX

    params = make_params(tmp_path)
    name = {"source": "vox", "key": "id1_v1_1", "person": "id1", "video": "v1", "utterance": "1"}
    ready, site = name | {"media": "a.mp4"}, name | {"source": "web"}
    clips = [row | {"status": "ok"} for row in (ready, site)]
    write(params, "catalog", clips, CATALOG)
    said = [("vox/id1/v1", status, "its own"), ("v1", "private", "its namesake's")]
    rows = [{"source": "vox", "video": v, "status": s, "detail": d} for v, s, d in said]
    write(params, "download", rows, DOWNLOADS)
    lost = [name | {"source": s, "status": "source_missing"} for s in ("vox", "web")]
    write(params, "crop", [row | {"detail": "missing"} for row in lost], CROPS)
    write(params, "landmarks", [], LANDMARKS)
    write(params, "shard", [], INDEX)
    own, other = read_verdicts(params.paths.data).to_pylist()
    lost_to = status if stage == "download" else "source_missing"
    assert (own["stage"], own["status"]) == (stage, lost_to)
    assert own["detail"] == ("its own" if stage == "download" else "missing")
    assert (other["status"], other["detail"]) == ("private", "its namesake's")
    losses = {step.stage: step.losses for step in read_funnel(params).steps}
    assert losses["download"]["private"] == 1 and losses[stage][lost_to] == 1


def test_words_that_clips_share_are_held_once(tmp_path):
    from pipelines.schemas import CATALOG, DOWNLOADS

    params, words, clips = make_params(tmp_path), "w" * 200, 3000
    lost = [clip(n, "v1", "") | {"source": "vox"} for n in range(clips)]
    write(params, "catalog", [row | {"status": "ok"} for row in lost], CATALOG)
    video = {"source": "vox", "video": "v1", "status": "removed", "detail": words}
    write(params, "download", [video], DOWNLOADS)
    gone = {"status": "source_missing", "detail": f"removed: {words}"}
    write(params, "crop", [row | gone for row in lost], CROPS)
    write(params, "landmarks", [], LANDMARKS)
    found = read_verdicts(params.paths.data)
    assert found["detail"].to_pylist() == [words] * clips
    assert found["status"].to_pylist() == ["removed"] * clips
    assert found.select(["stage", "status", "detail"]).nbytes < 20 * clips


@pytest.mark.parametrize(("stage", "schema"), [("crop", CROPS), ("landmarks", LANDMARKS)])
def test_manifests_of_other_runs_are_refused(tmp_path, stage, schema):
    params = make_params(tmp_path)
    build_run(params, people=1)
    write(params, stage, [], schema)
    with pytest.raises(UserError, match="different runs; run `dvc repro`"):
        read_verdicts(params.paths.data)


# --- the room there is -----------------------------------------------------------------------


def test_rare_words_lose_their_numbers_before_they_go(made, monkeypatch):
    params, _ = made
    found = read_verdicts(params.paths.data)
    details = [f"blurred by {n}.5" for n in range(len(found))]
    rows = found.set_column(found.column_names.index("detail"), "detail", [details])
    monkeypatch.setattr(clip_table, "WORDS", 40)
    words = clip_table._words(rows)
    assert "blurred by 0.5" in words and "blurred by #" in words
    assert clip_table.UNTOLD not in words
    monkeypatch.setattr(clip_table, "WORDS", 0)
    assert set(clip_table._words(rows)) == {clip_table.UNTOLD}


def test_a_sample_is_the_same_each_time_and_in_order(made):
    params, _ = made
    found = read_verdicts(params.paths.data)
    few = clip_table.sample(found, 10)
    assert few.equals(clip_table.sample(found, 10)) and len(few) == 10
    keys = found["key"].to_pylist()
    places = [keys.index(key) for key in few["key"].to_pylist()]
    assert places == sorted(places)
    assert clip_table.sample(found, len(found)) is found


def test_those_taken_out_are_in_no_list(made):
    params, _ = made
    found = read_verdicts(params.paths.data)
    assert SECRET in found["key"].to_pylist()
    (page,) = [
        p for p in wordings.status_pages(read_funnel(params), found) if p.status == "excluded"
    ]
    assert (page.clips, page.wordings, page.examples, page.commands) == (2, [], [], [])
    assert SECRET not in clip_table.clip_table(params, found)


def test_a_clip_has_the_words_and_measures_of_its_own_source(tmp_path):
    params = make_params(tmp_path)
    build_run(params)
    add_source(params, "wox")
    landmarks = manifest.read(params.paths.manifest("landmarks")).to_pylist()
    blurred = next(row for row in landmarks if row["status"] == "blurred")
    for row in landmarks:
        if row["source"] == "wox":
            row |= {"status": "ok", "detail": ""}
    write(params, "landmarks", landmarks, LANDMARKS)
    found = read_verdicts(params.paths.data)
    sharpness = clip_table._measures(params, found)["sharpness"]
    told = {
        row["source"]: (row["status"], sharp)
        for row, sharp in zip(found.to_pylist(), sharpness, strict=True)
        if row["key"] == blurred["key"]
    }
    assert told == {"vox": ("blurred", 5.0), "wox": ("ok", 900.0)}
