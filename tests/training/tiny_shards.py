"""Tars of a few small videos whose pictures and landmarks tell which frame they are."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.schemas import INDEX
from pipelines.shard import TarWriter
from training.episodes import Episodes

SIDE, STEP = 32, 3
PEOPLE = {  # person -> video -> stored frames of its clips
    "id2": {"c": [4, 3]},
    "id1": {"a": [5], "b": [3, 1, 6]},
    "id3": {"a": [7], "d": [5, 2]},
}
SHARD = {"c": 0, "a": 1, "b": 1, "d": 0}
ROWS = [("id1", "a"), ("id1", "b"), ("id2", "c"), ("id3", "a"), ("id3", "d")]

People = dict[str, dict[str, list[int]]]


def points(row: int, clip: int, frame: int) -> np.ndarray[Any, Any]:
    """Landmarks that tell their frame."""
    rng = np.random.default_rng((row, clip, frame))
    return rng.uniform(0, SIDE, (68, 2)).astype("<f4")


def jpeg(row: int, clip: int, at: int) -> bytes:
    """A picture of one colour that tells its frame."""
    sink = io.BytesIO()
    colour = (40 * row + 8, 40 * clip + 8, 16 * at + 8)
    Image.new("RGB", (SIDE, SIDE), colour).save(sink, "JPEG", quality=95, subsampling=0)
    return sink.getvalue()


def which(picture: np.ndarray[Any, Any]) -> tuple[int, int, int]:
    """(row, clip, position) of the frame that a picture shows."""
    red, green, blue = picture.reshape(3, -1).mean(axis=1)
    return int(red // 40), int(green // 40), int(blue // 16)


class Shards:
    """Tars and their index in a folder."""

    def __init__(self, folder: Path, people: People, faceless: set[tuple[int, int, int]]) -> None:
        self.folder, self.index = folder / "shards", folder / "index.parquet"
        (self.folder / "train").mkdir(parents=True)
        names = sorted((person, video) for person in people for video in people[person])
        rows: list[dict[str, Any]] = []
        for shard in sorted(set(SHARD.values())):
            path = self.tar(shard)
            with path.open("wb") as file:
                writer, first = TarWriter(file), len(rows)
                for person, video in names:
                    if SHARD[video] == shard:
                        row = names.index((person, video))
                        for clip, stored in enumerate(people[person][video]):
                            rows.append(
                                self._add(writer, person, video, row, clip, stored, faceless)
                            )
                writer.close()
            for row_ in rows[first:]:
                row_ |= {"shard": path.stem, "shard_bytes": path.stat().st_size}
        pq.write_table(pa.Table.from_pylist(rows, schema=INDEX), self.index)

    def tar(self, shard: int) -> Path:
        return self.folder / "train" / f"test-train-{shard:05d}.tar"

    def _add(
        self,
        writer: TarWriter,
        person: str,
        video: str,
        row: int,
        clip: int,
        stored: int,
        faceless: set[tuple[int, int, int]],
    ) -> dict[str, Any]:
        key = f"{person}_{video}_{clip:05d}"
        spans = [writer.add(f"{key}.{at:03d}.jpg", jpeg(row, clip, at)) for at in range(stored)]
        table = np.stack([points(row, clip, frame) for frame in range(stored * STEP)])
        for at in range(stored):
            if (row, clip, at) in faceless:
                table[at * STEP] = np.nan
        sink = io.BytesIO()
        np.save(sink, table)
        landmarks = writer.add(f"{key}.landmarks.npy", sink.getvalue())
        facts = writer.add(f"{key}.json", b"{}\n")
        return {
            "key": key,
            "source": "test",
            "person": person,
            "video": video,
            "utterance": f"{clip:05d}",
            "split": "train",
            "shard_sha256": "",
            "frames": stored * STEP,
            "frame_numbers": [at * STEP for at in range(stored)],
            "frame_offsets": [offset for offset, _ in spans],
            "frame_sizes": [size for _, size in spans],
            "landmarks_offset": landmarks[0],
            "landmarks_size": landmarks[1],
            "json_offset": facts[0],
            "json_size": facts[1],
        }

    def open(self, k: int = 4, size: int = SIDE, seed: int = 0, **options: Any) -> Episodes:
        return Episodes(self.index, self.folder, "train", k, size, seed, **options)

    def edit(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change every row of the index."""
        rows = pq.read_table(self.index).to_pylist()
        for row in rows:
            change(row)
        pq.write_table(pa.Table.from_pylist(rows, schema=INDEX), self.index)


MakeShards = Callable[..., Shards]


@pytest.fixture
def make_shards(tmp_path: Path) -> MakeShards:
    def make(people: People = PEOPLE, faceless: set[tuple[int, int, int]] | None = None) -> Shards:
        return Shards(tmp_path, people, faceless or set())

    return make


@pytest.fixture
def shards(make_shards: MakeShards) -> Shards:
    return make_shards()
