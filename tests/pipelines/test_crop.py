from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines import crop, download, engine, manifest, storage
from pipelines.errors import StopStage
from pipelines.job import Item, Job
from pipelines.manifest import ManifestWriter
from pipelines.params import Params
from pipelines.params.dataset import Crop
from pipelines.records import Records
from pipelines.schemas import CATALOG, CROPS, DOWNLOADS
from pipelines.statuses import Status
from pipelines.video import ClipResult, ClipSpec


def rows(status: Status, **values: object) -> pa.Table:
    blank: dict[str, Any] = dict.fromkeys(CROPS.names, None)
    blank |= dict.fromkeys(("key", "source", "person", "video", "utterance", "detail"), "x")
    return pa.Table.from_pylist([blank | {"status": str(status)} | values], schema=CROPS)


@pytest.mark.parametrize(
    ("table", "done"),
    [
        (rows(Status.OK, source_sha256="ab"), True),
        (rows(Status.SOURCE_MISSING), True),  # never fetched: its own status says so
        (rows(Status.SOURCE_MISSING, source_sha256="ab"), False),  # once there, may be again
    ],
)
def test_clips_wait_for_a_video_that_was_once_there(table: pa.Table, done: bool) -> None:
    assert crop._had_its_video(table) is done


def test_a_file_gone_from_the_work_folder_is_made_again(make_params: Callable[..., Params]) -> None:
    params = make_params()
    job = Job(
        stage="crop",
        params=params,
        schema=CROPS,
        worker=crop.CropWorker(params),
        items=[Item("a", "0" * 64, 0, 1, 1), Item("b", "1" * 64, 1, 2, 1)],
        unit="clips",
        max_failed=1.0,
        folder="crops",
    )
    records = Records(params.paths.work, "crop")
    for item in job.items:
        path = f"crops/{item.name}/{item.name}.mp4"
        storage.write_bytes(storage.join(params.paths.work, path), b"clip")
        records.write(item.fingerprint, rows(Status.OK, path=path), 0.1)
    assert engine.pending_items(job, frozenset()) == []
    storage.remove(storage.join(params.paths.work, "crops/b/b.mp4"))
    assert [item.name for item in engine.pending_items(job, frozenset())] == ["b"]


def test_one_decode_serves_two_people_and_rows_keep_the_catalog_s_order(
    make_params: Callable[..., Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    params = make_params()
    clips = [("one", "p1", "shared"), ("one", "p2", "other"), ("one", "p3", "shared")]
    clips.append(("two", "p1", "shared"))  # the same key as the first, from another source
    catalog = [
        dict.fromkeys(CATALOG.names)
        | {"key": f"{person}_{video}_1", "source": source, "person": person, "video": video}
        | {"utterance": "1", "split": "train", "shard": source, "status": "ok", "detail": ""}
        | {"first_frame": 0, "frames": 30, "fps": 25.0, "crop_ready": False}
        for source, person, video in clips
    ]
    videos = [
        dict.fromkeys(DOWNLOADS.names)
        | {"source": "one", "video": video, "status": "ok", "detail": ""}
        | {"path": f"videos/{video}.mp4", "sha256": storage.digest_bytes(b"body"), "bytes": 4}
        for video in ("shared", "other")
    ]
    for stage, schema, table in (("catalog", CATALOG, catalog), ("download", DOWNLOADS, videos)):
        with ManifestWriter(params.paths.manifest(stage), schema) as writer:
            writer.write(pa.Table.from_pylist(table, schema=schema))
    for video in ("shared", "other"):
        storage.write_bytes(storage.join(params.paths.work, f"videos/{video}.mp4"), b"body")
    decodes = []

    def cut(path: Path, specs: list[ClipSpec], *_: object) -> Iterator[ClipResult]:
        decodes.append((path.stem, len(specs)))
        for spec in reversed(specs):  # clips end in any order
            yield ClipResult(spec.key, Status.TOO_SHORT, spec.key)

    monkeypatch.setattr(crop, "crop_clips", cut)
    job = crop.prepare(params)
    job.worker.setup()
    records = Records(params.paths.work, "crop")
    for item in job.items:
        records.write(item.fingerprint, job.worker.process(item, Path()), 0.1)
    assert sorted(decodes) == [("other", 1), ("shared", 3)]
    storage.write_bytes(storage.join(params.paths.work, "videos/other.mp4"), b"bodY")
    replaced = job.worker.process(job.items[1], Path())
    assert replaced["status"].to_pylist() == ["source_missing"]
    assert replaced["source_sha256"].to_pylist() == [storage.digest_bytes(b"body")], (
        "so that it is tried again"
    )
    words = "other.mp4 changed since it was recorded: delete videos/other.mp4 from the work folder"
    assert replaced["detail"][0].as_py().startswith(words)
    job.worker._videos = {"other": videos[1] | {"path": "gone/other.mp4"}}
    job.worker._params = params.model_copy(
        update={"download": params.download.model_copy(update={"mirror": "gone"})}
    )
    with pytest.raises(StopStage, match=r"download\.mirror: gone: no such folder; mount it"):
        job.worker.process(job.items[1], Path())
    engine.run(job)
    found = manifest.read(job.manifest).to_pylist()
    assert [(r["source"], r["person"], r["video"]) for r in found] == clips
    assert [r["detail"] for r in found] == [f"{r['source']}/{r['key']}" for r in found]


def test_of_ready_crops_only_those_that_are_gone_are_missing(
    make_params: Callable[..., Params], make_video: Callable[..., Path], without_beam: object
) -> None:
    params = make_params(crop={"min_frames": 1, "size": 32, "scene_threshold": 0.0})
    tree = Path(params.catalog.metadata)
    catalog = [
        dict.fromkeys(CATALOG.names)
        | {"key": f"p_v_{n}", "source": "mine", "person": "p", "video": "v", "utterance": str(n)}
        | {"split": "train", "shard": "mine", "status": "ok", "detail": "", "first_frame": 0}
        | {"fps": 25.0, "crop_ready": True, "media": f"p/v/{n}.{suffix}"}
        for n, suffix in enumerate(("mp4", "mkv"))
    ]
    for row in catalog:
        make_video(tree / row["media"], frames=4)
    with ManifestWriter(params.paths.manifest("catalog"), CATALOG) as writer:
        writer.write(pa.Table.from_pylist(catalog, schema=CATALOG))

    def made() -> list[tuple[str, str]]:
        engine.run(download.prepare(params))
        job = crop.prepare(params)
        engine.run(job)
        assert engine.pending_items(job, frozenset()) == []
        found = manifest.read(job.manifest).to_pylist()
        return [(row["status"], row["detail"]) for row in found]

    there, lost = ("ok", ""), ("source_missing", "removed: 1.mkv is gone")
    assert made() == [there, there]
    (tree / "p" / "v" / "1.mkv").rename(tree / "elsewhere")
    assert made() == [there, lost]
    (tree / "elsewhere").rename(tree / "p" / "v" / "1.mkv")
    assert made() == [there, there]
    (tree / "p" / "v" / "1.mkv").write_text("<html></html>")
    assert made() == [there, ("not_a_video", "an HTML page")]


def test_a_threshold_turns_clips_away_and_cuts_nothing_anew(
    make_params: Callable[..., Params], make_video: Callable[..., Path], without_beam: object
) -> None:
    def params(**crop: Any) -> Params:
        return make_params(crop={"size": 32, "min_frames": 1, "min_face": 0} | crop)

    tree = Path(params().catalog.metadata)
    boxes = [[4.0, 4.0, 20.0, 24.0]]
    catalog = [
        dict.fromkeys(CATALOG.names)
        | {"key": f"p_v_{n}", "source": "mine", "person": "p", "video": "v", "utterance": str(n)}
        | {"split": "train", "shard": "mine", "status": "ok", "detail": "", "first_frame": 0}
        | {"fps": 25.0, "crop_ready": False, "media": f"p/v/{n}.mp4", "frames": 4 + n}
        | {"boxes": boxes, "box_height": 64}
        for n in range(2)
    ]
    for row in catalog:
        make_video(tree / row["media"], frames=8)
    with ManifestWriter(params().paths.manifest("catalog"), CATALOG) as writer:
        writer.write(pa.Table.from_pylist(catalog, schema=CATALOG))
    engine.run(download.prepare(params()))

    def made(**limits: Any) -> tuple[int, list[dict[str, Any]]]:
        job = crop.prepare(params(**limits))
        pending = engine.pending_items(job, frozenset())
        summary = engine.run(job)
        rows = manifest.read(job.manifest).to_pylist()
        assert summary.statuses == Counter(row["status"] for row in rows)
        return len(pending), rows

    before, whole = made()
    assert before == 1 and [row["status"] for row in whole] == ["ok", "ok"]
    kept = sorted(Path(params().paths.work, "crops").rglob("*.mp4"))
    again, short = made(min_frames=5)
    assert again == 0
    assert [(r["status"], r["detail"]) for r in short] == [
        ("too_short", "4 frames at 25 fps"), ("ok", "")
    ]  # fmt: skip
    assert short[0]["path"] is short[0]["sha256"] is short[0]["bytes"] is None
    assert short[1] == whole[1]
    again, small = made(min_face=21)
    assert again == 0 and {row["status"] for row in small} == {"too_small"}
    assert small[0]["detail"] == "the face is 20 pixels wide in 64x64"
    assert made() == (0, whole)
    assert sorted(Path(params().paths.work, "crops").rglob("*.mp4")) == kept


@pytest.mark.parametrize(("threshold", "status"), [(0.55, "scene_cut"), (0.6, "ok"), (0, "ok")])
def test_a_scene_cut_is_judged_by_its_score(threshold: float, status: str) -> None:
    row = dict.fromkeys(CROPS.names, "x") | dict.fromkeys(("crop_boxes", "face_boxes"))
    row |= {"status": "ok", "detail": "interlaced", "path": "a", "scene_score": 0.58}
    row |= dict.fromkeys(("bytes", "first_frame", "frames", "size", "source_fps"), 50)
    row |= {"has_audio": True, "padding": 0.0, "face_size": None, "scene_at": 2.4}
    row |= {"source_width": 64, "source_height": 64}
    table = pa.Table.from_pylist([row], schema=CROPS)
    (found,) = crop.judged(table, Crop(scene_threshold=threshold)).to_pylist()
    detail = "at 2.40 s, score 0.58" if status == "scene_cut" else "interlaced"
    assert (found["status"], found["detail"]) == (status, detail)
