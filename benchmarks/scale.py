"""What the drivers of the stages after the catalog cost, and what they hold, as clips grow.

    python -m benchmarks.scale [--sizes 100000,1000000] [--folder DIR]

Writes manifests as if all stages had run (a million clips take some 40 MB of DIR; all is deleted)
and one tar under the names of all. A third of the videos is gone, each in words of its own, as
after years; some clips of the others are too small. Then, each in a process of its own, so that
peak memory is its own: the preparation of each stage up to its first item, the whole card, and the
index as a training worker opens it. `nothing` is the start of Python and imports. CPU seconds are
of the work, imports apart.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from pipelines.manifest import ManifestWriter
from pipelines.params import Params, load
from pipelines.schemas import CATALOG, CROPS, DOWNLOADS, INDEX, LANDMARKS
from pipelines.shard import TarWriter, tar_url

CLIPS_A_VIDEO, VIDEOS_A_PERSON = 7, 24  # VoxCeleb2: 1,128,246 clips, 150,480 videos, 6,112 people
CLIPS_A_SHARD, FRAMES = 500, 200
GONE, SMALL = 3, 50  # one video in so many is gone, one clip in so many is too small
WORDS = (
    "ERROR: [youtube] {}: Video unavailable. This video is no longer available because the YouTube "
    "account associated with this video has been terminated due to multiple third-party claims"
)
STEPS = ("nothing", "download", "crop", "landmarks", "shard", "card", "training index")
Columns = dict[str, list[Any]]


# --- the manifests ---------------------------------------------------------------------------


def write_params(folder: Path) -> Params:
    """The params of a dataset below `folder`."""
    (folder / "takedowns.csv").write_text("kind,id,date,reason\n")
    document = {
        "name": "scale",
        "paths": {name: f"{folder}/{name}" for name in ("data", "work", "metrics", "cards")},
        "catalog": {
            "metadata": str(folder),
            "takedowns": f"{folder}/takedowns.csv",
            "sources": [{"name": "scale", "reader": "voxceleb2"}],
        },
        "card": {"title": "scale", "licence": "cc0-1.0", "description": "none", "thumbnails": 1},
    }
    path = folder / "params.yaml"
    path.write_text(json.dumps(document))
    return load(path)


def clips_of(numbers: range) -> Columns:
    """Names, places and verdicts of clips by their numbers."""
    videos = [n // CLIPS_A_VIDEO for n in numbers]
    people = [f"id{video // VIDEOS_A_PERSON:05d}" for video in videos]
    names = [f"video{video:06d}" for video in videos]
    gone = [video % GONE == 0 for video in videos]
    same = zip(people, names, numbers, strict=True)
    return {
        "key": [f"{person}_{video}_{n:07d}" for person, video, n in same],
        "source": ["scale"] * len(numbers),
        "person": people,
        "video": names,
        "utterance": [f"{n:07d}" for n in numbers],
        "split": ["train"] * len(numbers),
        "shard": [f"scale-train-{n // CLIPS_A_SHARD:05d}" for n in numbers],
        "status": ["ok"] * len(numbers),
        "detail": [""] * len(numbers),
        "digest": [f"{n:064d}" for n in numbers],
        "gone": gone,
    }


def table(columns: Columns, schema: pa.Schema) -> pa.Table:
    """Rows of a manifest; what is not given is null."""
    rows = len(columns["status"])
    values = [columns.get(field.name, [None] * rows) for field in schema]
    arrays = [pa.array(v, f.type) for v, f in zip(values, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def of_all(value: object, columns: Columns) -> list[object]:
    """One value for every row."""
    return [value] * len(columns["status"])


def catalog_rows(clips: Columns) -> Columns:
    """All clips."""
    facts = {"first_frame": 0, "frames": FRAMES, "fps": 25.0, "crop_ready": False}
    return clips | {name: of_all(value, clips) for name, value in facts.items()}


def download_rows(clips: Columns) -> Columns:
    """A row for each video of which these clips are the first."""
    gone = dict(zip(clips["video"], clips["gone"], strict=True))
    names = list(gone)
    return {
        "source": ["scale"] * len(names),
        "video": names,
        "status": ["removed" if gone[name] else "ok" for name in names],
        "detail": [WORDS.format(name) if gone[name] else "" for name in names],
        "path": [None if gone[name] else "videos/a.mp4" for name in names],
        "sha256": [None if gone[name] else f"{name:>064}" for name in names],
    }


def crop_rows(clips: Columns) -> Columns:
    """All clips: of what is gone, too small, or cut."""
    box, face = [[0, 0, 256, 256]], [[60, 60, 120, 120]] * 8
    facts = {"frames": FRAMES, "size": 256, "policy": "clip", "crop_boxes": box}
    facts |= {"face_boxes": face, "source_width": 640, "source_height": 360, "source_fps": 25.0}
    statuses, details = [], []
    for video, utterance, gone in zip(
        *(clips[n] for n in ("video", "utterance", "gone")), strict=True
    ):
        small = int(utterance) % SMALL == 0
        statuses.append("source_missing" if gone else "too_small" if small else "ok")
        details.append("removed: " + WORDS.format(video) if gone else "")
    paths = [f"crops/{digest}.mp4" for digest in clips["digest"]]
    own = {"status": statuses, "detail": details, "path": paths, "sha256": clips["digest"]}
    return clips | own | {name: of_all(value, clips) for name, value in facts.items()}


def landmark_rows(clips: Columns) -> Columns:
    """The clips that were cut."""
    facts = {"backend": "mediapipe", "frames": FRAMES, "detected": FRAMES, "confidence": 0.9}
    facts |= {"sharpness": 200.0, "face_size": 120.0, "yaw": 5.0, "pitch": 0.0, "roll": 0.0}
    own = {"path": [f"landmarks/{digest}.npz" for digest in clips["digest"]]}
    own |= {"crop_path": [f"crops/{digest}.mp4" for digest in clips["digest"]]}
    own |= {"sha256": clips["digest"], "crop_sha256": clips["digest"]}
    return kept(clips | own | {name: of_all(value, clips) for name, value in facts.items()})


def kept(columns: Columns) -> Columns:
    """The clips that were cut."""
    both = zip(columns["gone"], columns["utterance"], strict=True)
    good = [not gone and int(utterance) % SMALL != 0 for gone, utterance in both]
    return {
        name: [value for value, keep in zip(values, good, strict=True) if keep]
        for name, values in columns.items()
    }


def write_tars(params: Params, clips: int) -> dict[str, object]:
    """One clip's tar under the names of all; what the index says of each clip."""
    sink = io.BytesIO()
    Image.new("RGB", (256, 256), "gray").save(sink, "JPEG")
    points = io.BytesIO()
    np.save(points, np.full((FRAMES, 68, 2), 128, "<f4"))
    first = Path(tar_url(params, "scale-train-00000"))
    first.parent.mkdir(parents=True)
    with first.open("wb") as file:
        writer = TarWriter(file)
        spans = [writer.add(f"a.{n:03d}.jpg", sink.getvalue()) for n in range(params.shard.frames)]
        landmarks, about = (
            writer.add("a.landmarks.npy", points.getvalue()),
            writer.add("a.json", b"{}"),
        )
        writer.close()
    for number in range(1, -(-clips // CLIPS_A_SHARD)):
        Path(tar_url(params, f"scale-train-{number:05d}")).symlink_to(first)
    numbers = np.linspace(0, FRAMES - 1, len(spans)).round().astype(int).tolist()
    return {
        "shard_sha256": "0" * 64, "shard_bytes": first.stat().st_size, "frames": FRAMES,
        "frame_numbers": numbers, "frame_offsets": [at for at, _ in spans],
        "frame_sizes": [size for _, size in spans],
        "landmarks_offset": landmarks[0], "landmarks_size": landmarks[1],
        "json_offset": about[0], "json_size": about[1],
    }  # fmt: skip


def write_manifests(params: Params, clips: int) -> None:
    """All five, a portion at a time."""
    stored = write_tars(params, clips)

    def index_rows(columns: Columns) -> Columns:
        return kept(columns | {name: of_all(value, columns) for name, value in stored.items()})

    for stage, schema, rows in (
        ("catalog", CATALOG, catalog_rows), ("download", DOWNLOADS, download_rows),
        ("crop", CROPS, crop_rows), ("landmarks", LANDMARKS, landmark_rows),
        ("shard", INDEX, index_rows),
    ):  # fmt: skip
        with ManifestWriter(params.paths.manifest(stage), schema) as writer:
            for portion in portions(clips):
                writer.write(table(rows(clips_of(portion)), schema))


def portions(clips: int) -> Iterator[range]:
    """Numbers of clips, whole videos together."""
    step = 3000 * CLIPS_A_VIDEO
    for start in range(0, clips, step):
        yield range(start, min(start + step, clips))


# --- what is measured, each in its own process -----------------------------------------------


def work_of(step: str, params: Params) -> Callable[[], object]:
    """Import what a step needs, and return the work itself."""
    if step == "training index":
        from training.index import ShardIndex

        index = params.paths.manifest("shard")
        return lambda: ShardIndex(index, "train", 9, "drop")

    from pipelines import card, crop, download, landmarks, shard

    stages = {"download": download, "crop": crop, "landmarks": landmarks, "shard": shard}
    if step == "card":
        return lambda: card.build(params)
    return (lambda: stages[step].prepare(params)) if step in stages else lambda: None


def run_step(step: str, folder: Path) -> None:
    """Run one step in this process and print its cost as JSON."""
    work = work_of(step, load(folder / "params.yaml"))
    cpu = time.process_time()
    held = work()
    cost = {
        "cpu": time.process_time() - cpu,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "held": resident(),
    }
    del held
    print(json.dumps(cost))


def resident() -> float:
    """MiB of this process in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def measure(folder: Path, clips: int) -> None:
    """Print the table rows of one size."""
    write_manifests(write_params(folder), clips)
    for step in STEPS:
        command = [sys.executable, "-m", "benchmarks.scale", "--step", step, str(folder)]
        root = Path(__file__).resolve().parents[1]
        done = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True)
        cost = json.loads(done.stdout.splitlines()[-1])
        each = f"{1e6 * cost['cpu'] / clips:.0f}"
        print(
            f"| {clips:,} | {step} | {cost['cpu']:.1f} | {each} | {cost['peak']:.0f} "
            f"| {cost['held']:.0f} |",
            flush=True,
        )


def sizes(text: str) -> list[int]:
    """`1000,20000` as numbers; of a ValueError argparse makes one line."""
    found = [int(size) for size in text.split(",")]
    if min(found) < 1:
        raise ValueError
    return found


def main() -> None:
    """Measure every size asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes", type=sizes, default="100000,1000000", help="clips, joined by commas"
    )
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where manifests go")
    parser.add_argument("--step", nargs=2, metavar=("STEP", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        run_step(options.step[0], Path(options.step[1]))
        return
    print("| clips | step | CPU s | CPU us a clip | peak MiB | MiB held after it |")
    print("|---|---|---:|---:|---:|---:|")
    for clips in options.sizes:
        folder = Path(tempfile.mkdtemp(prefix="likeness-bench-", dir=options.folder))
        try:
            measure(folder, clips)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
