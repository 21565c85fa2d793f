"""A small dataset that met every status: manifests and tars, written here and not by the stages."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml
from PIL import Image

from pipelines import card, manifest, storage
from pipelines.manifest import ManifestWriter
from pipelines.params import Params, load
from pipelines.schemas import CATALOG, CROPS, DOWNLOADS, INDEX, LANDMARKS
from pipelines.shard import TarWriter, tar_url
from pipelines.statuses import STATUS, Status

HOSTILE = '<script>alert(1)</script> & "quotes" | ``` [x](javascript:alert(2))'
PATHS = ("data", "work", "metrics", "cards", "models", "results")
SECRET = "x0123456789abcdef"
"""What the catalog calls a clip that was taken out."""
BAD_KEY = "txt/id7/v7/00001.txt:3"
"""What the catalog calls an annotation that it could not read."""
OF_STAGE = {
    stage: [s for s, info in STATUS.items() if stage in info.stage.split(", ")]
    for stage in ("catalog", "download", "crop", "landmarks")
}
OF_STAGE["crop"].append(Status.INTERNAL_ERROR)
# 68 points that nobody would take for a face: they only need to be finite.
FACE = np.stack([128 + 60 * np.cos(np.arange(68) / 5), 128 + 60 * np.sin(np.arange(68) / 5)], 1)


def table(rows: list[dict], schema: pa.Schema) -> pa.Table:
    blank = {"string": "", "bool": False}
    empty = {f.name: None if f.nullable else blank.get(str(f.type), 0) for f in schema}
    return pa.Table.from_pylist([empty | row for row in rows], schema=schema)


def write(params: Params, stage: str, rows: list[dict], schema: pa.Schema) -> None:
    with ManifestWriter(params.paths.manifest(stage), schema) as writer:
        writer.write(table(rows, schema))


def jpeg(grey: int) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (256, 256), (grey, grey, grey)).save(sink, "JPEG")
    return sink.getvalue()


def make_params(tmp_path: Path, **of_card: object) -> Params:
    settings = {
        "name": "small",
        "paths": {name: str(tmp_path / name) for name in PATHS},
        "catalog": {"metadata": "m", "sources": [{"name": "vox", "reader": "voxceleb2"}]},
        "shard": {"frames": 4},
        "card": {"title": "Small: a test", "licence": "CC-BY-4.0", "description": "Made up."}
        | {"thumbnails": 6}
        | of_card,
    }
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(settings))
    return load(path)


def build_run(params: Params, people: int = 5, videos: int = 2, clips: int = 2) -> None:
    """Manifests in which every status of every stage was met, and tars of the clips that passed."""
    good = [
        {"source": "vox", "person": f"id{p}", "video": f"v{p}{v}", "utterance": f"{c:05d}"}
        | {"key": f"id{p}_v{p}{v}_{c:05d}", "split": ("train", "train", "val", "test")[p % 4]}
        for p in range(people)
        for v in range(videos)
        for c in range(clips)
    ]
    for clip in good:
        clip["shard"] = f"vox-{clip['split']}-00000"
    catalog, downloads, crops, landmarks = [], [], [], []

    def clip_of(stage: str, status: Status, n: int = 0) -> dict:
        names = {"person": "idx", "video": f"v{stage}{status}", "utterance": f"{n:05d}"}
        return {"source": "vox", "key": "_".join(names.values())} | names

    for status in OF_STAGE["catalog"]:
        if status == Status.EXCLUDED:
            row = {"key": SECRET, "person": "excluded", "video": SECRET, "utterance": SECRET}
            catalog += [row | {"source": "vox", "status": status}] * 2
            continue
        row = {"source": "vox", "key": BAD_KEY} if status == Status.BAD_ANNOTATION else None
        catalog.append((row or clip_of("catalog", status)) | {"status": status, "detail": HOSTILE})
    for status in OF_STAGE["download"]:
        video = SECRET if status == Status.EXCLUDED else f"vdownload{status}"
        downloads.append({"source": "vox", "video": video, "status": status, "detail": HOSTILE})
        if status == Status.EXCLUDED:
            continue
        for n in range(3):  # each lost video costs three clips
            clip = clip_of("download", status, n)
            catalog.append(clip | {"status": "ok"})
            crops.append(clip | {"status": "source_missing", "detail": f"{status}: {HOSTILE}"})
    cut = {"frames": 60, "size": 256, "source_fps": 29.97, "crop_boxes": [[0, 0, 512, 512]]}
    for status in OF_STAGE["crop"]:  # source_missing here: downloaded, but gone since
        clip = clip_of("crop", status)
        catalog.append(clip | {"status": "ok"})
        crops.append(clip | {"status": status, "detail": HOSTILE})
    for status in OF_STAGE["landmarks"]:
        clip = clip_of("landmarks", status)
        catalog.append(clip | {"status": "ok"})
        crops.append(clip | cut | {"status": "ok"})
        measured = {"yaw": 80.0, "face_size": 100.0, "sharpness": 5.0, "confidence": 0.2}
        landmarks.append(clip | measured | {"status": status, "detail": HOSTILE})
    for n, clip in enumerate(good):
        catalog.append(clip | {"status": "ok"})
        named = {k: clip[k] for k in ("key", "source", "person", "video", "utterance")}
        crops.append(named | cut | {"status": "ok"})
        measured = {"yaw": 3.0 * n - 20, "face_size": 120.0, "sharpness": 400.0, "confidence": 0.9}
        landmarks.append(named | measured | {"status": "ok"})
    names = {clip["video"] for clip in catalog if clip["status"] == "ok"}
    known = {row["video"] for row in downloads}
    downloads += [{"source": "vox", "video": v, "status": "ok"} for v in sorted(names - known)]
    write(params, "catalog", catalog, CATALOG)
    write(params, "download", downloads, DOWNLOADS)
    write(params, "crop", crops, CROPS)
    write(params, "landmarks", landmarks, LANDMARKS)
    write(params, "shard", pack(params, good), INDEX)


def pack(params: Params, clips: list[dict]) -> list[dict]:
    """Real tars; returns the rows of the index."""
    points = np.tile(FACE.astype("<f4"), (60, 1, 1))
    points[30] = np.nan  # the middle frame has no face: a neighbour must be shown
    sink = io.BytesIO()
    np.save(sink, points)
    rows = []
    for shard in sorted({clip["shard"] for clip in clips}):
        path = Path(tar_url(params, shard))
        path.parent.mkdir(parents=True, exist_ok=True)
        mine = []
        with path.open("wb") as file:
            writer = TarWriter(file)
            for clip in (clip for clip in clips if clip["shard"] == shard):
                numbers = [0, 20, 30, 59]
                key = clip["key"]
                spans = [writer.add(f"{key}.{n:03d}.jpg", jpeg(40 * n)) for n in range(4)]
                at, size = writer.add(f"{key}.landmarks.npy", sink.getvalue())
                json_at, json_size = writer.add(f"{key}.json", b"{}")
                row = clip | {"frames": 60, "frame_numbers": numbers}
                row |= {"frame_offsets": [s[0] for s in spans]}
                row |= {"frame_sizes": [s[1] for s in spans], "landmarks_offset": at}
                row |= {"landmarks_size": size, "json_offset": json_at, "json_size": json_size}
                mine.append(row)
            writer.close()
        digest = {"shard_sha256": storage.sha256(path), "shard_bytes": path.stat().st_size}
        rows += [row | digest for row in mine]
    return rows


def add_source(params: Params, source: str) -> None:
    """Every clip a second time, in another source, blurred ones sharp; its tars are not made."""
    schemas = {"catalog": CATALOG, "crop": CROPS, "landmarks": LANDMARKS, "shard": INDEX}
    for stage, schema in schemas.items():
        rows = manifest.read(params.paths.manifest(stage)).to_pylist()
        for row in list(rows):
            other = row | {"source": source}
            if other.get("shard"):
                other["shard"] = row["shard"].replace("vox", source)
            if stage == "landmarks":
                other["sharpness"] = 900.0
            rows.append(other)
        write(params, stage, rows, schema)


def build_card(tmp_path: Path) -> tuple[Params, Path]:
    """The small run with its card, and metrics of three stages: whole, missing, damaged."""
    params = make_params(tmp_path)
    build_run(params)
    metrics = {"rows": 50, "items": 9, "items_done_before": 0, "seconds": 2.5, "cpu_seconds": 4.25}
    metrics |= {"rows_per_second": 20.0, "peak_mib": 321}
    metrics["slowest"] = [{"name": HOSTILE, "seconds": 1.5}, {"name": SECRET, "seconds": 1.0}]
    text = json.dumps(metrics).encode()
    storage.write_bytes(storage.join(params.paths.metrics, "crop.json"), text)
    storage.write_bytes(storage.join(params.paths.metrics, "landmarks.json"), b"not json")
    card.build(params)
    return params, Path(params.paths.cards, "small")
