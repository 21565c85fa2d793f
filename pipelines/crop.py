"""Crop: cut every clip out of its video, one sequential decode per video.

Reads catalog.parquet and downloads.parquet, writes crops.parquet: one row per `ok` clip of the
catalog. Clips are square 25 fps H.264 with the sound in step, in the work folder under the
digest of what decides them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines import engine, manifest, storage
from pipelines.download import ours, ready_file, video_name
from pipelines.errors import StopStage, clean_detail
from pipelines.job import Item, Job, Span
from pipelines.manifest import ManifestReader
from pipelines.params import Params
from pipelines.params.dataset import Crop
from pipelines.schemas import CROPS, IDENTITY
from pipelines.site.fetch import check_mirror
from pipelines.statuses import Status
from pipelines.video import ClipResult, ClipSpec, CropSettings, crop_clips
from pipelines.video.probe import MediaError, probe

STAGE = "crop"
VERSION = 4
"""Raise when the kernel would give other bytes for the same clip."""

CLIP_COLUMNS = [
    *(*IDENTITY, "status"),
    *("first_frame", "frames", "fps", "segment_start", "boxes", "box_height", "crop_ready"),
    *("url", "media"),
]
VIDEO_COLUMNS = ["source", "video", "status", "detail", "path", "sha256"]
VIDEO_COLUMNS += ["width", "height", "fps"]
Row = dict[str, Any]


def settings_of(params: Params) -> CropSettings:
    """The kernel's settings from params.yaml."""
    crop = params.crop
    return CropSettings(
        size=crop.size,
        policy=crop.policy,
        margin=crop.margin,
        smooth=crop.smooth,
        crf=crop.crf,
        preset=crop.preset,
        audio_rate=crop.audio_rate,
    )


class CropWorker:
    """Cuts all clips of one video."""

    threads = 1

    def __init__(self, params: Params) -> None:
        self._params = params
        self._settings = settings_of(params)

    def setup(self) -> None:
        """Open the catalog and read the downloads, a small table."""
        paths = self._params.paths
        self._catalog = ManifestReader(paths.manifest("catalog"), CLIP_COLUMNS)
        self._videos = Videos(self._params)

    def blame(self, item: Item, status: Status, detail: str) -> pa.Table:
        """The rows of clips that could not be cut."""
        return _table([_row(clip, status, detail) for clip in self._clips(item)])

    def process(self, item: Item, scratch: Path) -> pa.Table:
        """Cut the clips of one video and publish them."""
        clips = self._clips(item)
        rows: dict[str, Row] = {}
        for path, video, group in self._by_file(clips):
            if path is None:
                words = f"{video['status']}: {video['detail']}".rstrip(": ")
                for clip in group:
                    rows[_clip_id(clip)] = _row(clip, Status.SOURCE_MISSING, words)
                continue
            try:
                with storage.local_copy(path, scratch) as local:
                    if group[0]["media"] is None and storage.sha256(local) != video["sha256"]:
                        lost = _changed(video)
                    else:
                        rows |= self._cut(item, local, video, group, scratch)
                        continue
            except FileNotFoundError:
                mirror = self._params.download.mirror
                in_mirror = not group[0]["media"] and not ours(video["path"])
                if mirror and in_mirror and "{env:" not in mirror:  # nobody fills it in here
                    check_mirror(mirror)  # a disk that is not mounted is no loss of its videos
                lost = f"{Path(path).name} is gone: run `python -m pipelines.download` again"
            for clip in group:
                if clip["media"] is not None:
                    lost = f"{Status.REMOVED}: {ready_file(clip)} is gone"
                # Tried again by the next run, unless the download already tells of the loss.
                told = clip["media"] is not None and video["detail"]
                known = {} if told else {"source_sha256": video["sha256"]}
                rows[_clip_id(clip)] = _row(clip, Status.SOURCE_MISSING, lost, **known)
        return _table([rows[_clip_id(clip)] for clip in clips])

    def _clips(self, item: Item) -> list[Row]:
        return [
            row
            for span in item.spans
            for row in self._catalog.rows(span.start, span.stop).to_pylist()
            if row["status"] == Status.OK
        ]

    def _by_file(self, clips: list[Row]) -> Iterator[tuple[str | None, Row, list[Row]]]:
        """Groups of clips that share a file: all of a video, or each ready crop alone."""
        paths = self._params.paths
        video = self._videos[video_name(clips[0])]
        if clips[0]["media"] is not None:
            for clip in clips:
                yield storage.join(self._params.catalog.metadata, clip["media"]), video, [clip]
        elif video["status"] != Status.OK:
            yield None, video, clips
        else:
            # A mirror's path is as params.yaml wrote it; ours is relative to the work folder.
            path = video["path"]
            yield storage.below(paths.work, path) if ours(path) else path, video, clips

    def _cut(
        self, item: Item, path: Path, video: Row, clips: list[Row], scratch: Path
    ) -> dict[str, Row]:
        by_key = {_clip_id(clip): clip for clip in clips}
        rows: dict[str, Row] = {}
        try:
            source = self._source(path, video, clips)
            for result in crop_clips(
                path,
                [_spec(clip) for clip in clips],
                self._settings,
                lambda key: scratch / f"{storage.digest(key)[:16]}.mp4",
            ):
                clip = by_key[result.key]
                rows[result.key] = self._publish(item, clip, result, source)
        except MediaError as error:
            # Of a video that was fetched, the download has looked already.
            status = error.status if clips[0]["media"] else Status.DECODE_ERROR
            for key, clip in by_key.items():
                if key not in rows:
                    rows[key] = _row(clip, status, clean_detail(error.detail))
        return rows

    def _source(self, path: Path, video: Row, clips: list[Row]) -> Row:
        """What the manifest says of the file that clips are cut from."""
        if clips[0]["media"] is None:
            facts = {name: video[name] for name in ("width", "height", "fps", "sha256")}
        else:
            seen = probe(path, deep=True)
            facts = {"width": seen.width, "height": seen.height, "fps": seen.fps}
            facts["sha256"] = storage.sha256(path)
        return {f"source_{name}": value for name, value in facts.items()}

    def _publish(self, item: Item, clip: Row, result: ClipResult, source: Row) -> Row:
        if result.status != Status.OK or result.path is None:
            return _row(clip, result.status, clean_detail(result.detail), **source)
        name = storage.digest(item.fingerprint, _clip_id(clip))
        target = f"crops/{name[:2]}/{name[:24]}.mp4"
        row = _row(
            clip,
            Status.OK,
            clean_detail(result.detail),
            path=target,
            sha256=storage.sha256(result.path),
            bytes=result.path.stat().st_size,
            first_frame=result.first_frame,
            frames=result.frames,
            size=self._settings.size,
            has_audio=result.has_audio,
            policy=self._settings.policy,
            crop_boxes=_boxes(result.crop_boxes),
            face_boxes=_boxes(result.face_boxes),
            padding=result.padding,
            face_size=result.face_size,
            scene_score=result.scene_score,
            scene_at=result.scene_at,
            **source,
        )
        storage.publish(result.path, storage.join(self._params.paths.work, target))
        return row


def _changed(video: Row) -> str:
    """What to do about a video that has other bytes than its download recorded."""
    first = f"delete {video['path']} from the work folder and " if ours(video["path"]) else ""
    name = Path(video["path"]).name
    return f"{name} changed since it was recorded: {first}run `python -m pipelines.download` again"


def _clip_id(clip: Row) -> str:
    """Tells clips of one decode apart: two sources may annotate a video under the same keys."""
    return f"{clip['source']}/{clip['key']}"


def _boxes(boxes: np.ndarray[Any, Any] | None) -> list[list[float]] | None:
    return None if boxes is None else np.asarray(boxes, np.float32).round(2).tolist()


def _spec(clip: Row) -> ClipSpec:
    boxes = clip["boxes"]
    return ClipSpec(
        key=_clip_id(clip),
        first_frame=clip["first_frame"],
        frames=clip["frames"],
        fps=clip["fps"],
        segment_start=clip["segment_start"],
        boxes=None if boxes is None else np.array(boxes, np.float32),
        box_height=clip["box_height"],
        crop_ready=clip["crop_ready"],
    )


def _row(clip: Row, status: Status, detail: str, **values: object) -> Row:
    identity = {name: clip[name] for name in IDENTITY}
    row = dict.fromkeys(CROPS.names) | identity | {"status": str(status), "detail": detail}
    return row | values


def _table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=CROPS)


def content(clips: pa.Table) -> Iterator[object]:
    """What decides how clips are cut, as parts of a digest."""
    boxes = clips["boxes"].combine_chunks()
    yield boxes.value_lengths().to_pylist()
    yield boxes.flatten().flatten().to_numpy(zero_copy_only=False).tobytes()
    yield clips.drop_columns(["boxes"]).to_pylist()


MEASURES = ["frames", "face_size", "source_width", "source_height", "scene_score", "scene_at"]


def judged(rows: pa.Table, limits: Crop) -> pa.Table:
    """The rows with the clips turned away that miss a threshold; these keep their measures."""
    measured = rows.select(["status", *MEASURES]).to_pylist()  # boxes are the bulk of a row
    passed = ((at, row) for at, row in enumerate(measured) if row["status"] == Status.OK)
    missed = {at: verdict for at, row in passed if (verdict := _missed(row, limits))}
    if not missed:
        return rows
    told = rows.to_pylist()
    for at, (status, detail) in missed.items():
        gone = dict.fromkeys(("path", "sha256", "bytes"))
        told[at] |= gone | {"status": str(status), "detail": detail}
    return pa.Table.from_pylist(told, rows.schema)


def _missed(row: Row, limits: Crop) -> tuple[Status, str] | None:
    """The first threshold that a clip misses, as its status and the words for it."""
    if row["frames"] < limits.min_frames:
        return Status.TOO_SHORT, f"{row['frames']} frames at 25 fps"
    face = row["face_size"]
    if face is not None and face < limits.min_face:
        size = f"{row['source_width']}x{row['source_height']}"
        return Status.TOO_SMALL, f"the face is {face:.0f} pixels wide in {size}"
    score = row["scene_score"] or 0.0
    if limits.scene_threshold and score > limits.scene_threshold:
        return Status.SCENE_CUT, f"at {row['scene_at']:.2f} s, score {score:.2f}"
    return None


class Videos(Mapping[str, Row]):
    """Downloads by video; as Arrow, since every worker holds all of them."""

    def __init__(self, params: Params) -> None:
        self._table = manifest.read(params.paths.manifest("download"), VIDEO_COLUMNS)
        self._place = {name: at for at, name in enumerate(self._table["video"].to_pylist())}

    def __getitem__(self, name: str) -> Row:
        row: Row = self._table.slice(self._place[name], 1).to_pylist()[0]
        return row

    def __iter__(self) -> Iterator[str]:
        return iter(self._place)

    def __len__(self) -> int:
        return len(self._place)


def _had_its_video(rows: pa.Table) -> bool:
    """Whether no clip waits for a video that was once there and may be again."""
    missing = pc.equal(rows["status"], Status.SOURCE_MISSING.value)
    return not pc.any(pc.and_(missing, pc.is_valid(rows["source_sha256"]))).as_py()


def prepare(params: Params) -> Job:
    """One item per video that has clips to cut."""
    videos = Videos(params)
    settings = settings_of(params)
    catalog = ManifestReader(params.paths.manifest("catalog"), CLIP_COLUMNS)
    items: dict[str, Item] = {}
    for start, rows in catalog.groups(["source", "person", "video"]):
        clips = rows.filter(pc.equal(rows["status"], "ok"))
        if not len(clips):
            continue
        name = video_name(clips.slice(0, 1).to_pylist()[0])
        span = Span(start, start + len(rows), len(clips))
        if (item := items.get(name)) is not None:
            # Another person or source has clips in this video: the same decode cuts them.
            fingerprint = storage.digest(item.fingerprint, *content(clips))
            items[name] = replace(item, fingerprint=fingerprint, also=(*item.also, span))
            continue
        try:
            video = videos[name]
        except KeyError:
            raise StopStage(
                f"crop: downloads.parquet lacks {name}: run the download stage again"
            ) from None
        fingerprint = storage.digest(
            STAGE,
            VERSION,
            settings,
            video["status"],
            video["detail"],
            video["sha256"],
            *content(clips),
        )
        items[name] = Item(name, fingerprint, *span)
    return Job(
        stage=STAGE,
        params=params,
        schema=CROPS,
        worker=CropWorker(params),
        folder="crops",
        is_done=_had_its_video,
        judge=partial(judged, limits=params.crop),
        items=list(items.values()),
        unit="clips",
        max_failed=params.crop.max_failed,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m pipelines.crop`."""
    return engine.main(prepare, __doc__ or "", argv)


if __name__ == "__main__":
    from pipelines.crop import main

    sys.exit(main())
