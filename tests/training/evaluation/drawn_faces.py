"""Drawn faces in real tars, a tiny network, and a detector that measures.

The detector of these tests finds the drawn face by its red nose, so that it works on whatever a
method makes of it; the real one has a test of its own on the corpus.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image, ImageDraw

from pipelines.detectors.base import Landmarks
from pipelines.schemas import INDEX
from pipelines.shard import TarWriter
from training import evaluate, trained
from training.losses import ContentLoss
from training.meta import MetaConfig, MetaLearner
from training.networks import NetworkConfig
from training.perceptual import Pixels

SIDE, HOLDOUT, SHOTS = 64, 3, [1, 3]
PEOPLE = {"id1": 6, "id2": 7, "id3": 5, "id4": 2}  # stored frames
OVAL = np.stack([np.cos(np.arange(68) * 2 * np.pi / 68), np.sin(np.arange(68) * 2 * np.pi / 68)], 1)


def points_at(x: float, y: float, wide: float) -> np.ndarray:
    """An oval of landmarks with a nose: (68, 2)."""
    points = OVAL * (wide, 18) + (x, y)
    points[30] = x, y
    return points.astype("<f4")


def face(person: int, at: int) -> tuple[bytes, np.ndarray]:
    """A JPEG of a person's own colour and its landmarks; the head turns from frame to frame."""
    x, y, wide = 32 + 6 * np.sin(at), 32 + 3 * np.cos(at), 14 + 3 * np.sin(0.7 * at)
    picture = Image.new("RGB", (SIDE, SIDE), (20, 60 + 40 * person, 200 - 40 * person))
    pen = ImageDraw.Draw(picture)
    pen.ellipse((x - wide, y - 18, x + wide, y + 18), fill=(60, 90 + 30 * person, 90))
    pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill=(255, 0, 0))
    sink = io.BytesIO()
    picture.save(sink, "JPEG", quality=95, subsampling=0)
    return sink.getvalue(), points_at(x, y, wide)


class Detector:
    """Finds the red nose; the face around it has one shape."""

    name = "test"

    def __call__(self, frames: np.ndarray, boxes: Any) -> Landmarks:
        found = np.full((len(frames), 68, 2), np.nan, np.float32)
        for i, frame in enumerate(frames.astype(int)):
            red = (frame[..., 0] > 150) & (frame[..., 1] < 110) & (frame[..., 2] < 110)
            scale = len(frame) / SIDE
            places = np.argwhere(red) / scale
            if len(places) > 20 * scale**2 and places.std(0).max() < 5:  # one spot, no noise
                y, x = places.mean(0)
                found[i] = points_at(x, y, 14) * scale
        return Landmarks(found, np.ones(len(frames), np.float32))


def make_shards(folder: Path) -> None:
    (folder / "shards" / "test").mkdir(parents=True)
    tar = folder / "shards" / "test" / "vox-test-00000.tar"
    rows: list[dict[str, Any]] = []
    with tar.open("wb") as file:
        writer = TarWriter(file)
        for person, (name, count) in enumerate(PEOPLE.items()):
            key = f"{name}_v_00001"
            shown = [face(person, at) for at in range(count)]
            spans = [writer.add(f"{key}.{at:03d}.jpg", jpeg) for at, (jpeg, _) in enumerate(shown)]
            sink = io.BytesIO()
            np.save(sink, np.stack([p for _, p in shown]))
            landmarks = writer.add(f"{key}.landmarks.npy", sink.getvalue())
            about = writer.add(f"{key}.json", b"{}")
            rows.append(
                {
                    "key": key, "source": "vox", "person": name, "video": "v",
                    "utterance": "00001", "split": "test", "shard": "vox-test-00000",
                    "shard_sha256": "", "shard_bytes": 0, "frames": count,
                    "frame_numbers": list(range(count)),
                    "frame_offsets": [s for s, _ in spans], "frame_sizes": [n for _, n in spans],
                    "landmarks_offset": landmarks[0], "landmarks_size": landmarks[1],
                    "json_offset": about[0], "json_size": about[1],
                }
            )  # fmt: skip
        writer.close()
    for row in rows:
        row["shard_bytes"] = tar.stat().st_size
    pq.write_table(pa.Table.from_pylist(rows, INDEX), folder / "index.parquet")


CONTENT: dict[str, Any] = {"pixels": {"weight": 100.0}}


def make_params(folder: Path, content: dict[str, Any] = CONTENT, **evaluate_: Any) -> Path:
    document = {
        "name": "toy",
        "paths": {
            **{name: str(folder / name) for name in ("work", "metrics", "models", "results")},
            "data": str(folder),
        },
        "catalog": {
            "metadata": "m",
            "sources": [{"name": "vox", "reader": "voxceleb2", "path": "t"}],
        },
        "card": {"title": "t", "licence": "other", "description": "d"},
        "setting": "tiny",
        "settings": {"tiny": {"content": content}},
        "adapt": {"iterations": 1},
        "evaluate": {"shots": SHOTS, "holdout": HOLDOUT, "bootstrap": 50, **evaluate_},
    }
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def make_model(folder: Path, variant: str = "ft", **facts: Any) -> None:
    networks = NetworkConfig(
        image_size=SIDE,
        min_channels=4,
        max_channels=16,
        generator_levels=2,
        residual_blocks=1,
        attention=False,
    )
    learner = MetaLearner(2, ContentLoss((Pixels(), 1.0)), MetaConfig(), networks)
    setting = {
        "about": "a toy of 64 px", "content": CONTENT,
        "meta": {"variant": variant},
    }  # fmt: skip
    given = {"setting": setting, "dataset": {"name": "toy", "index_sha256": "0"}, **facts}
    trained.save_model(str(folder / "models" / "tiny.safetensors"), learner, given)


def run(params: Path, *options: str) -> int:
    return evaluate.main(["--params", str(params), *options])


def copied(rig: Path, folder: Path) -> Path:
    """The same shards and model with room for other results."""
    for name in ("shards", "index.parquet"):
        (folder / name).symlink_to(rig / name)
    (folder / "models").symlink_to(rig / "models")
    return folder


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results" / "tiny" / "results.json").read_text())
