"""The landmarks stage with a detector that draws its answer: rows, verdicts, and what heals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import detectors, engine, landmarks, manifest, storage
from pipelines.clips import unpack_arrays
from pipelines.detectors.base import Landmarks
from pipelines.errors import StopStage
from pipelines.params import Params
from pipelines.schemas import CROPS, LANDMARKS

Row = dict[str, Any]
Finished = Callable[..., Params]
pytestmark = pytest.mark.usefixtures("without_beam")

ANY_POSE = {"max_yaw": 90.0, "max_pitch": 90.0, "max_roll": 90.0, "min_sharpness": 0.0}


class Drawn:
    """Finds points that follow from the pixels; nobody in clips of six frames."""

    name = "drawn"

    def __init__(self) -> None:
        self.looked_at = 0

    def __call__(self, frames: np.ndarray, boxes: np.ndarray | None) -> Landmarks:
        self.looked_at += 1
        brightness = frames.mean(axis=(1, 2, 3), dtype=np.float64)
        face = np.random.default_rng(0).uniform(8, 24, (68, 2))
        points = (face + brightness[:, None, None] / 256).astype(np.float32)
        if len(frames) == 6:
            points[:] = np.nan
        found = np.isfinite(points[:, 0, 0])
        return Landmarks(points, np.where(found, np.float32(0.9), np.float32(0)))


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    drawn = Drawn()
    monkeypatch.setattr(detectors, "load", lambda *_: drawn)
    return drawn


@pytest.fixture
def params(finished: Finished, detector: Drawn) -> Params:
    """Crops, and nothing of the stages after them."""
    made = finished(landmarks=ANY_POSE)
    for path in Path(made.paths.work, "landmarks").iterdir():
        path.unlink()
    return made


def build(params: Params) -> list[Row]:
    engine.run(landmarks.prepare(params))
    table = manifest.read(params.paths.manifest("landmarks"))
    assert table.schema.equals(LANDMARKS)
    return table.to_pylist()


def npz(params: Params) -> list[Path]:
    return sorted(Path(params.paths.work, "landmarks").rglob("*.npz"))


def test_a_row_for_every_crop_and_an_array_for_every_frame(params: Params) -> None:
    rows = build(params)
    crops = manifest.read(params.paths.manifest("crop")).to_pylist()
    assert [r["key"] for r in rows] == [c["key"] for c in crops if c["status"] == "ok"]
    assert {row["status"] for row in rows} == {"ok", "no_face"}
    for row in rows:
        assert (row["status"] == "no_face") == (row["frames"] == 6), row["key"]
        assert row["detected"] == (0 if row["frames"] == 6 else row["frames"])
        data = storage.read_bytes(storage.below(params.paths.work, row["path"]))
        assert row["sha256"] == storage.digest_bytes(data)
        assert unpack_arrays(data)["points"].shape == (row["frames"], 68, 2)


def test_other_limits_detect_nothing_again(
    params: Params, finished: Finished, detector: Drawn
) -> None:
    before = build(params)
    looked_at = detector.looked_at
    again = build(finished(landmarks=ANY_POSE | {"min_confidence": 0.95}))
    assert {row["status"] for row in again} == {"low_confidence", "no_face"}
    assert detector.looked_at == looked_at
    assert [row["sha256"] for row in again] == [row["sha256"] for row in before]


@pytest.mark.parametrize("kept", [0, 1, 50, -1])
def test_torn_arrays_are_measured_again(params: Params, detector: Drawn, kept: int) -> None:
    """Torn by a bad disk in a run that was stopped before its record was written."""
    before, files = build(params), npz(params)
    whole = [path.read_bytes() for path in files]
    looked_at = detector.looked_at
    files[0].write_bytes(whole[0][:kept])
    for path in Path(params.paths.work, "records").rglob("*.arrow"):
        path.unlink()
    assert build(params) == before
    assert detector.looked_at == looked_at + 1
    assert [path.read_bytes() for path in files] == whole


def test_the_remedy_that_shard_names_holds(
    params: Params, detector: Drawn, without_beam: list[list[str]]
) -> None:
    """Delete the file, run the stage again: its video alone is looked at, with the same rows."""
    before, files = build(params), npz(params)
    whole = files[0].read_bytes()
    files[0].unlink()
    assert build(params) == before
    assert len(without_beam[-1]) == 1
    assert files[0].read_bytes() == whole


def test_a_crop_that_is_gone_stops_the_stage_with_the_remedy(params: Params) -> None:
    row = manifest.read(params.paths.manifest("crop")).to_pylist()[0]
    storage.remove(storage.join(params.paths.work, row["path"]))
    with pytest.raises(StopStage, match=rf"crop of {row['key']} is gone .* `dvc repro -f crop`"):
        build(params)


def test_a_crop_that_its_disk_has_changed_is_deleted_and_told(params: Params) -> None:
    row = manifest.read(params.paths.manifest("crop")).to_pylist()[0]
    crop = Path(params.paths.work, row["path"])
    crop.write_bytes(crop.read_bytes()[:-1])
    with pytest.raises(StopStage, match=f"the crop of {row['key']} was changed by its disk"):
        build(params)
    assert not crop.exists()


def test_a_crop_that_cannot_be_read_is_a_row(
    params: Params, write_manifest: Callable[..., None]
) -> None:
    crops = manifest.read(params.paths.manifest("crop")).to_pylist()
    row = crops[0]
    storage.write_bytes(storage.join(params.paths.work, row["path"]), b"no video")
    row["sha256"] = storage.digest_bytes(b"no video")
    write_manifest(params, "crop", CROPS, crops)
    settings = params.model_copy(
        update={"landmarks": params.landmarks.model_copy(update={"max_failed": 1.0})}
    )
    rows = build(settings)
    assert (rows[0]["key"], rows[0]["status"]) == (row["key"], "internal_error")
    assert rows[0]["detail"] and rows[1]["status"] == "ok"
