from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from pipelines import crop, engine, storage
from pipelines.params import Params
from pipelines.records import Records
from pipelines.schemas import CROPS, Status


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
    job = engine.Job(
        stage="crop",
        params=params,
        schema=CROPS,
        worker=crop.CropWorker(params),
        items=[engine.Item("a", "0" * 64, 0, 1, 1), engine.Item("b", "1" * 64, 1, 2, 1)],
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
