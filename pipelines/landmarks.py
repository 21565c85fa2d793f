"""Landmarks: 68 points a frame and a verdict a clip.

Reads crops.parquet, writes landmarks.parquet: one row per `ok` crop. Points and per-frame
measures lie in the work folder under the digest of the clip and the backend, so that another
threshold in params.yaml costs no detection.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from av.error import FFmpegError

from pipelines import clips, detectors, engine, quality, storage
from pipelines.detectors.base import DetectorUnavailable
from pipelines.errors import StopStage, clean_detail, raise_unanswered
from pipelines.job import Item, Job
from pipelines.manifest import ManifestReader
from pipelines.params import Params
from pipelines.schemas import IDENTITY, LANDMARKS
from pipelines.statuses import Status

STAGE = "landmarks"
VERSION = 2
"""Raise when the same clip would give other points or measures."""

CROP_COLUMNS = [*IDENTITY, "status", "path", "sha256", "frames", "face_boxes"]
Row = dict[str, Any]


def limits_of(params: Params) -> quality.Limits:
    """The verdict's thresholds from params.yaml."""
    own = params.landmarks
    return quality.Limits(
        min_confidence=own.min_confidence,
        min_sharpness=own.min_sharpness,
        max_yaw=own.max_yaw,
        max_pitch=own.max_pitch,
        max_roll=own.max_roll,
        min_detected=own.min_detected,
        min_overlap=own.min_overlap,
    )


class LandmarkWorker:
    """Finds the landmarks of all clips of one video; the model is built once per worker."""

    threads = 1

    def __init__(self, params: Params) -> None:
        self._params, self._limits = params, limits_of(params)

    def setup(self) -> None:
        """Load the model and open the crops."""
        own = self._params.landmarks
        try:
            self._detector = detectors.load(own.backend, own.device, own.batch_size)
        except DetectorUnavailable as error:
            raise StopStage(f"landmarks: {error}") from error
        self._crops = ManifestReader(self._params.paths.manifest("crop"), CROP_COLUMNS)

    def _clips(self, item: Item) -> list[Row]:
        rows = self._crops.rows(item.start, item.stop).to_pylist()
        return [row for row in rows if row["status"] == Status.OK]

    def blame(self, item: Item, status: Status, detail: str) -> pa.Table:
        """The rows of clips that could not be looked at."""
        return _table([self._row(clip, status, detail) for clip in self._clips(item)])

    def process(self, item: Item, scratch: Path) -> pa.Table:
        """Detect, measure and judge the clips of one video."""
        return _table([self._clip(clip, scratch) for clip in self._clips(item)])

    def _clip(self, clip: Row, scratch: Path) -> Row:
        own, work = self._params.landmarks, self._params.paths.work
        boxes = clip["face_boxes"]
        name = storage.digest(STAGE, VERSION, own.backend, clip["sha256"], boxes)
        path = f"landmarks/{name[:2]}/{name[:24]}.npz"
        url = storage.join(work, path)
        try:
            data = storage.read_bytes(url)
            arrays = clips.unpack_arrays(data)
        except (FileNotFoundError, ValueError):  # not there yet, or torn: a bad disk heals so
            try:
                crop, said = (
                    storage.below(work, clip["path"]),
                    f"landmarks: the crop of {clip['key']}",
                )
                frames = clips.read_crop(crop, clip["sha256"], said, scratch)
            except FileNotFoundError:
                raise StopStage(
                    f"landmarks: the crop of {clip['key']} is gone from the work folder: "
                    "run `dvc repro -f crop`"
                ) from None
            except FFmpegError as error:
                raise_unanswered(error)
                return self._row(clip, Status.INTERNAL_ERROR, clean_detail(error))
            faces = None if boxes is None else np.array(boxes, np.float32)
            found = self._detector(frames, faces)
            arrays = quality.measure(frames, found, faces).arrays() | {"points": found.points}
            data = clips.pack_arrays(arrays)
            storage.write_bytes(url, data, scratch)
        measures = quality.Measures.from_arrays(arrays)
        status, detail = quality.verdict(measures, self._limits)
        return self._row(
            clip,
            status,
            detail,
            path=path,
            sha256=storage.digest_bytes(data),
            detected=int(measures.detected.sum()),
            **quality.summary(measures),
        )

    def _row(self, clip: Row, status: Status, detail: str, **values: object) -> Row:
        row = dict.fromkeys(LANDMARKS.names) | {name: clip[name] for name in IDENTITY}
        row |= {"status": str(status), "detail": detail, "backend": self._params.landmarks.backend}
        row |= {"crop_path": clip["path"], "crop_sha256": clip["sha256"], "frames": clip["frames"]}
        return row | values


def _table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=LANDMARKS)


def prepare(params: Params) -> Job:
    """One item per video that has crops."""
    own = params.landmarks
    # Here, not in a worker alone: what a worker raises stops the stage (1), this is a mistake (2).
    detectors.check_device(own.backend, own.device)
    items = []
    crops = ManifestReader(params.paths.manifest("crop"), CROP_COLUMNS)
    for start, rows in crops.groups(["source", "person", "video"]):
        ok = rows.filter(pc.equal(rows["status"], "ok"))
        if not len(ok):
            continue
        first = ok.slice(0, 1).to_pylist()[0]
        fingerprint = storage.digest(
            STAGE,
            VERSION,
            own.backend,
            limits_of(params),
            ok.select([*IDENTITY, "path", "sha256", "face_boxes"]).to_pylist(),
        )
        name = f"{first['person']}/{first['video']}"
        items.append(Item(name, fingerprint, start, start + len(rows), len(ok)))
    return Job(
        stage=STAGE,
        params=params,
        schema=LANDMARKS,
        worker=LandmarkWorker(params),
        folder="landmarks",
        items=items,
        unit="clips",
        max_failed=own.max_failed,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m pipelines.landmarks`."""
    return engine.main(prepare, __doc__ or "", argv)


if __name__ == "__main__":
    from pipelines.landmarks import main

    sys.exit(main())
