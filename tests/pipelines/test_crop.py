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
