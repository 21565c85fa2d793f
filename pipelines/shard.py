"""Shard: write the clips that passed into WebDataset tars and index every member.

Reads catalog.parquet, crops.parquet and landmarks.parquet, writes
shards/<split>/<source>-<split>-<bucket>.tar and index.parquet. A tar's bytes depend on its
clips alone, so a late download or a takedown rewrites one tar, and tars that are still right
are kept as they are.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from pipelines import clips, engine, storage
from pipelines.errors import StopStage, UserError
from pipelines.job import Item, Job
from pipelines.manifest import ManifestReader
from pipelines.params import Params
from pipelines.schemas import IDENTITY, INDEX, PLAIN_NAME
from pipelines.shard_plan import write_plan
from pipelines.statuses import Status

STAGE = "shard"
VERSION = 2
"""Raise when the same clips would give other tar bytes."""

SPLITS = ("train", "val", "test")
Row = dict[str, Any]


def prepare(params: Params) -> Job:
    """One item per tar."""
    work = params.paths.work
    with storage.scratch_folder(work) as scratch:
        shards = write_plan(params, str(scratch / "plan.parquet"))
        plan = f"plans/{storage.sha256(scratch / 'plan.parquet')[:16]}.parquet"
        storage.publish(scratch / "plan.parquet", storage.join(work, plan))
    settings = (params.shard.frames, params.shard.jpeg_quality)
    items = []
    for name, start, stop, content in shards:
        fingerprint = storage.digest(STAGE, VERSION, *settings, name, content)
        items.append(Item(name, fingerprint, start, stop, stop - start))
    wanted = {item.name for item in items}

    def finish() -> None:
        for split in SPLITS:
            folder = storage.join(params.paths.data, "shards", split)
            storage.sweep_orphans(folder)
            for name in storage.names(folder):
                tar = name.removesuffix(".sha256")
                if tar.endswith(".tar") and tar[0] != "." and tar[:-4] not in wanted:
                    storage.remove(storage.join(folder, name))
        storage.remove(storage.join(work, plan))

    return Job(
        stage=STAGE,
        params=params,
        schema=INDEX,
        worker=ShardWorker(params, storage.join(work, plan)),
        items=items,
        unit="clips",
        max_failed=0.0,
        finish=finish,
        is_done=lambda rows: _intact(params, rows),
    )


def tar_url(params: Params, shard: str) -> str:
    """Where a shard's tar lives; its split stands before the bucket in its name.

    Raises UserError for a name that is none: an index may be somebody else's.
    """
    split = shard.rpartition("-")[0].rpartition("-")[2]
    if not PLAIN_NAME.fullmatch(shard) or split not in SPLITS:
        raise UserError(f"{shard!r} is no shard's name: make the index anew")
    return storage.join(params.paths.data, "shards", split, f"{shard}.tar")


def _intact(params: Params, rows: pa.Table) -> bool:
    """Whether the tar that a record speaks of is still the one under that name."""
    row = rows.slice(0, 1).to_pylist()[0]
    url = tar_url(params, row["shard"])
    try:
        said = storage.read_bytes(url + ".sha256")
        if said != checksum(row) or storage.size(url) != row["shard_bytes"]:
            return False
        if not storage.is_local(url):
            return True
        tar, sidecar = storage.local_path(url), storage.local_path(url + ".sha256")
        # Only a tar touched after its checksum was written is worth reading through.
        untouched = tar.stat().st_mtime_ns <= sidecar.stat().st_mtime_ns
        return untouched or storage.sha256(tar) == row["shard_sha256"]
    except FileNotFoundError:
        return False


def checksum(row: Row) -> bytes:
    """The sidecar of a shard's tar, as `sha256sum --check` reads it."""
    return f"{row['shard_sha256']}  {row['shard']}.tar\n".encode()


class ShardWorker:
    """Writes one tar."""

    threads = 1

    def __init__(self, params: Params, plan: str) -> None:
        self._params, self.plan = params, plan

    def setup(self) -> None:
        """Open the plan."""
        self._plan = ManifestReader(self.plan)

    def blame(self, item: Item, status: Status, detail: str) -> pa.Table:
        """A tar is whole or not there: no row can stand for a part of it."""
        raise StopStage(f"shard: {item.name}: {status}: {detail}")

    def process(self, item: Item, scratch: Path) -> pa.Table:
        """Write the tar of one shard and index its members."""
        path = scratch / f"{item.name}.tar"
        rows: list[Row] = []
        with path.open("wb") as file:
            writer = TarWriter(file)
            for clip in self._plan.rows(item.start, item.stop).to_pylist():
                rows.append(self._add(writer, clip, scratch))
            writer.close()
        sha256, size = storage.sha256(path), path.stat().st_size
        facts = {"shard_sha256": sha256, "shard_bytes": size}
        url = tar_url(self._params, item.name)
        # The checksum goes first and comes last: while it stands, it tells the truth.
        storage.remove(url + ".sha256")
        storage.publish(path, url)
        storage.write_bytes(url + ".sha256", checksum(facts | {"shard": item.name}))
        return pa.Table.from_pylist([row | facts for row in rows], schema=INDEX)

    def _add(self, writer: TarWriter, clip: Row, scratch: Path) -> Row:
        work, settings = self._params.paths.work, self._params.shard
        numbers = clips.even_numbers(clip["frames"], settings.frames)
        try:
            crop, said = storage.below(work, clip["crop_path"]), f"shard: the crop of {clip['key']}"
            frames = clips.read_crop(crop, clip["crop_sha256"], said, scratch, numbers)
            packed = storage.read_bytes(storage.below(work, clip["path"]))
        except FileNotFoundError as error:
            raise StopStage(
                f"shard: {clip['key']}: {Path(str(error.filename)).name} is gone from the work "
                "folder: run the stages that made it again (`dvc repro -f crop landmarks`)"
            ) from None
        if storage.digest_bytes(packed) != clip["sha256"]:
            storage.remove(storage.below(work, clip["path"]))
            raise StopStage(
                f"shard: the landmarks of {clip['key']} were changed by their disk since they were "
                "made; they are deleted: run `dvc repro -f landmarks`, and look after the disk"
            )
        arrays = clips.unpack_arrays(packed)
        key = clip["key"]
        spans = [
            writer.add(f"{key}.{at:03d}.jpg", _jpeg(frame, settings.jpeg_quality))
            for at, frame in enumerate(frames)
        ]
        landmarks = io.BytesIO()
        np.save(landmarks, arrays["points"].astype("<f4"), allow_pickle=False)
        landmarks_span = writer.add(f"{key}.landmarks.npy", landmarks.getvalue())
        facts = _facts(clip, numbers)
        text = json.dumps(facts, sort_keys=True, indent=1, allow_nan=False) + "\n"
        json_span = writer.add(f"{key}.json", text.encode())
        return {name: clip[name] for name in [*IDENTITY, "split", "shard", "frames"]} | {
            "frame_numbers": numbers,
            "frame_offsets": [offset for offset, _ in spans],
            "frame_sizes": [size for _, size in spans],
            "landmarks_offset": landmarks_span[0],
            "landmarks_size": landmarks_span[1],
            "json_offset": json_span[0],
            "json_size": json_span[1],
        }


def _facts(clip: Row, numbers: list[int]) -> Row:
    """What KEY.json tells: identity, where in the source, box, quality, provenance."""
    boxes = clip["crop_boxes"]
    return {
        "key": clip["key"],
        "source": clip["source"],
        "person": clip["person"],
        "video": clip["video"],
        "utterance": clip["utterance"],
        "split": clip["split"],
        "fps": 25,
        "first_frame": clip["first_frame"],
        "frames": clip["frames"],
        "frame_numbers": numbers,
        "start_seconds": clip["first_frame"] / 25,
        "crop": {"policy": clip["policy"], "size": clip["size"], "boxes": boxes}
        | {"padding": _short(clip["padding"])},
        "source_video": {
            "width": clip["source_width"],
            "height": clip["source_height"],
            "fps": _short(clip["source_fps"]),
            "sha256": clip["source_sha256"],
        },
        "quality": {
            name: _short(clip[name])
            for name in ("confidence", "sharpness", "face_size", "yaw", "pitch", "roll")
        }
        | {"detected": clip["detected"]},
        "annotation": {name: _short(clip[name]) for name in ("offset", "fv_conf", "asd_conf")},
        "landmarks": {"backend": clip["backend"], "points": 68},
    }


def _short(value: float | None) -> float | None:
    return None if value is None or value != value else round(value, 4)


def _jpeg(frame: clips.Frames, quality: int) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(frame).save(sink, "JPEG", quality=quality, subsampling=0)
    return sink.getvalue()


class TarWriter:
    """A plain ustar writer that knows where each member's bytes lie; no clock, no owner."""

    def __init__(self, file: io.BufferedWriter) -> None:
        self._file = file

    def add(self, name: str, data: bytes) -> tuple[int, int]:
        """Append a member; returns (offset of its bytes in the tar, their number)."""
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = len(data), 0o644, 0
        self._file.write(info.tobuf(tarfile.PAX_FORMAT))
        offset = self._file.tell()
        self._file.write(data)
        self._file.write(bytes(-len(data) % tarfile.BLOCKSIZE))
        return offset, len(data)

    def close(self) -> None:
        """Write the end-of-archive blocks, padded to tar's record size."""
        self._file.write(bytes(2 * tarfile.BLOCKSIZE))
        self._file.write(bytes(-self._file.tell() % tarfile.RECORDSIZE))


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m pipelines.shard`."""
    return engine.main(prepare, __doc__ or "", argv)


if __name__ == "__main__":
    from pipelines.shard import main

    sys.exit(main())
