"""What the dataset holds: people, videos, clips, hours, bytes, and how its clips measure.

Read from the manifests batch by batch. Only the names of people and videos are held, never
the rows.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines import storage
from pipelines.manifest import ManifestReader, clip_names
from pipelines.params import Params
from pipelines.shard import SPLITS

FPS = 25
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tar:
    """One shard as the index knows it."""

    name: str
    split: str
    sha256: str
    bytes: int

    @property
    def path(self) -> str:
        """Where it lies in the published dataset."""
        return f"shards/{self.split}/{self.name}.tar"


@dataclass
class Share:
    """What a split holds."""

    people: set[str] = field(default_factory=set)
    """By id alone: whoever has the same in two sources must not be held out of one alone."""
    videos: set[str] = field(default_factory=set)
    """A person in two videos, or two people in one, make two."""
    clips: int = 0
    frames: int = 0
    """At 25 fps: one row of landmarks each."""
    pictures: int = 0
    """Frames stored as JPEG."""
    shards: int = 0
    bytes: int = 0

    @property
    def hours(self) -> float:
        return self.frames / FPS / 3600

    def numbers(self) -> dict[str, int | float]:
        """As the metrics file tells it."""
        return {
            "people": len(self.people),
            "videos": len(self.videos),
            "clips": self.clips,
            "hours": round(self.hours, 3),
            "frames": self.frames,
            "pictures": self.pictures,
            "shards": self.shards,
            "bytes": self.bytes,
        }


@dataclass
class Dataset:
    """Everything the index tells."""

    digest: str
    """sha256 of index.parquet: it names every shard's sha256, so it names the whole."""
    index_bytes: int
    splits: dict[str, Share] = field(default_factory=dict)
    tars: list[Tar] = field(default_factory=list)
    sources: set[str] = field(default_factory=set)

    @property
    def torn(self) -> list[str]:
        """People with clips in several splits, as their publisher has it."""
        seen = Counter(person for share in self.splits.values() for person in share.people)
        return sorted(person for person, splits in seen.items() if splits > 1)

    @property
    def split_words(self) -> str:
        """How people and splits go together, in the words of card, report and metadata."""
        if self.torn:
            words = (
                "Splits are as published, and clips of the same person are in several of them. "
                f"People: {len(self.torn):,}."
            )
        else:
            words = "All clips of a person are in the same split."
        if len(self.sources) > 1:
            words += " Who has the same id in several sources counts as one person."
        return words

    @property
    def total(self) -> Share:
        """All splits together."""
        whole = Share()
        for share in self.splits.values():
            whole.people |= share.people
            whole.videos |= share.videos
            for name in ("clips", "frames", "pictures", "shards", "bytes"):
                setattr(whole, name, getattr(whole, name) + getattr(share, name))
        return whole


def read_dataset(params: Params) -> Dataset:
    """Read the index. Raises UserError where it is missing."""
    url = params.paths.manifest("shard")
    columns = ["source", "person", "video", "split", "shard", "shard_sha256", "shard_bytes"]
    columns += ["frames", "frame_numbers"]
    reader = ManifestReader(url, columns)
    hasher = hashlib.sha256()
    with storage.open_read(url) as file:
        while chunk := file.read(storage.CHUNK):
            hasher.update(chunk)
    dataset = Dataset(hasher.hexdigest(), storage.size(url))
    found: dict[str, Share] = {}
    tars: dict[str, Tar] = {}
    for batch in reader.batches():
        dataset.sources.update(batch["source"].unique().to_pylist())
        for split in batch["split"].unique().to_pylist():
            rows = batch.filter(pc.equal(batch["split"], split))
            share = found.setdefault(split, Share())
            share.people.update(rows["person"].unique().to_pylist())
            names = pc.binary_join_element_wise(rows["source"], rows["person"], rows["video"], "/")
            share.videos.update(names.unique().to_pylist())
            share.clips += len(rows)
            share.frames += pc.sum(rows["frames"]).as_py()
            share.pictures += pc.sum(pc.list_value_length(rows["frame_numbers"])).as_py()
        shards = pa.Table.from_batches([batch]).group_by(
            ["shard", "split", "shard_sha256", "shard_bytes"], use_threads=False
        )
        for row in shards.aggregate([]).to_pylist():
            tar = Tar(row["shard"], row["split"], row["shard_sha256"], row["shard_bytes"])
            tars[tar.name] = tar
    dataset.tars = [tars[name] for name in sorted(tars)]
    for tar in dataset.tars:
        found[tar.split].shards += 1
        found[tar.split].bytes += tar.bytes
    dataset.splits = {split: found[split] for split in SPLITS if split in found}
    return dataset


# --- histograms ------------------------------------------------------------------------------


@dataclass
class Histogram:
    """Counts over fixed bins: what passed and what the landmarks stage turned away."""

    title: str
    unit: str
    edges: Floats
    limits: tuple[float, ...] = ()
    """Thresholds of params.yaml on this axis."""
    log: bool = False
    """Bins grow by a constant factor."""
    kept: npt.NDArray[np.int64] = field(init=False)
    lost: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.kept = np.zeros(len(self.edges) - 1, np.int64)
        self.lost = np.zeros(len(self.edges) - 1, np.int64)

    def add(self, values: Floats, kept: npt.NDArray[np.bool_]) -> None:
        """Count values; those beyond the ends go to the end bins, NaN nowhere."""
        inside = np.clip(values, self.edges[0], np.nextafter(self.edges[-1], 0))
        for counts, chosen in ((self.kept, kept), (self.lost, ~kept)):
            known = inside[chosen & ~np.isnan(inside)]
            counts += np.histogram(known, self.edges)[0]


def read_histograms(params: Params) -> list[Histogram]:
    """Measure every crop that the landmarks stage looked at."""
    own = params.landmarks
    size, line = float(params.crop.size), np.linspace
    angles = line(-90, 90, 37)
    charts = {
        "fps": Histogram("Source frame rate", "fps", np.arange(7.5, 63.5, 1.0)),
        "seconds": Histogram("Clip length", "s", line(0, 24, 49), (params.crop.min_frames / FPS,)),
        "face": Histogram("Face in the crop", "px", line(0, size, 33)),
        "source_face": Histogram("Face in the source", "px", line(0, 640, 33)),
        "sharpness": Histogram(
            "Sharpness", "", 2.0 ** np.arange(1, 13.5, 0.5), (own.min_sharpness,), log=True
        ),
        "confidence": Histogram("Landmark confidence", "", line(0, 1, 41), (own.min_confidence,)),
        "yaw": Histogram("Yaw", "degrees", angles, (-own.max_yaw, own.max_yaw)),
        "pitch": Histogram("Pitch", "degrees", angles, (-own.max_pitch, own.max_pitch)),
        "roll": Histogram("Roll", "degrees", angles, (-own.max_roll, own.max_roll)),
    }
    for _, values, kept in measured(params):
        for name, chart in charts.items():
            chart.add(values[name], kept)
    return list(charts.values())


def measured(
    params: Params,
) -> Iterator[tuple[pa.Array, dict[str, Floats], npt.NDArray[np.bool_]]]:
    """Names and values of the `ok` crops, a batch at a time, with whether their landmarks passed.

    Names are `clip_names`.
    """
    columns = ["source", "key", "status", "frames", "source_fps", "size", "crop_boxes"]
    crops = ManifestReader(params.paths.manifest("crop"), columns)
    measures = ["sharpness", "confidence", "yaw", "pitch", "roll"]
    landmarks = ManifestReader(
        params.paths.manifest("landmarks"), ["status", "face_size", *measures]
    )
    at = 0
    for batch in crops.batches():
        ok = batch.filter(pc.equal(batch["status"], "ok"))
        if not len(ok):
            continue
        # One row of landmarks for each ok crop, in the same order.
        rows = landmarks.rows(at, at + len(ok))
        at += len(ok)
        width = pc.list_element(
            pc.list_element(pc.list_slice(ok["crop_boxes"], 0, 1, return_fixed_size_list=True), 0),
            2,
        )
        face = _floats(rows["face_size"])
        yield (
            clip_names(ok),
            {name: _floats(rows[name]) for name in measures}
            | {
                "fps": _floats(ok["source_fps"]),
                "seconds": _floats(ok["frames"]) / FPS,
                "face": face,
                "source_face": face * _floats(width) / _floats(ok["size"]),
            },
            pc.equal(rows["status"], "ok").to_numpy(),
        )


def _floats(column: pa.Array | pa.ChunkedArray) -> Floats:
    """A column as float64, null as NaN."""
    column = column.cast(pa.float64())
    if isinstance(column, pa.ChunkedArray):
        return np.asarray(column.to_numpy(), np.float64)
    return np.asarray(column.to_numpy(zero_copy_only=False), np.float64)
