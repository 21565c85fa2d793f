"""The rows of index.parquet of one split, as flat arrays: which bytes of which tar show what.

V videos of C clips with F stored frames. Needs only numpy and pyarrow.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]+")
"""What a shard's name is made of. As `pipelines.schemas` says, which a GPU box need not have."""

VIDEO = ["source", "person", "video"]
COLUMNS = [*VIDEO, "key", "shard", "shard_bytes", "frames", "landmarks_offset", "landmarks_size"]
COLUMNS += ["frame_numbers", "frame_offsets", "frame_sizes"]

FewFrames = Literal["error", "drop"]


class NoVideos(ValueError):
    """A split without a video that is long enough."""


class EmptySplit(NoVideos):
    """A split without anybody."""


def people_of(path: str | Path, split: str) -> set[str]:
    """Everybody in a split of an index, as source/person."""
    table = pq.read_table(
        path, columns=VIDEO[:2], filters=[("split", "==", split)], page_checksum_verification=True
    )
    pairs = table.group_by(VIDEO[:2], use_threads=False).aggregate([]).to_pylist()
    return {f"{pair['source']}/{pair['person']}" for pair in pairs}


class VideoKey(NamedTuple):
    """What makes a video, and its row of W, its own."""

    source: str
    person: str
    video: str

    def __str__(self) -> str:
        """For people."""
        return "/".join(self)


class ShardIndex:
    """V videos, C clips, F frames of one split."""

    def __init__(self, path: str | Path, split: str, frames: int, few_frames: FewFrames) -> None:
        """Raises ValueError where videos have fewer than `frames` frames, unless dropped.

        Videos stand in order of (source, person, video), which is also the order of W's rows;
        a dropped video has none, and `dropped` counts them.
        """
        columns = _Columns(path, split)
        names, lengths, self.dropped = _long_enough(columns, frames, few_frames)
        if not len(names):
            raise NoVideos(
                f"{path}: no video of split {split!r} has the {frames} frames of K = {frames - 1} "
                "source frames and a target: take a smaller K"
            )

        starts = np.flatnonzero(_begins_video(names))
        videos = names.select(VIDEO).take(pa.array(starts)).to_pydict()
        self.videos = [VideoKey(*name) for name in zip(*videos.values(), strict=True)]
        self.first_clip = np.append(starts, len(names))  # V + 1
        self.keys = names["key"].combine_chunks()
        shards = columns["shard"].dictionary_encode()
        self.shards: list[str] = shards.dictionary.to_pylist()
        self.shard_of: npt.NDArray[np.int32] = shards.indices.to_numpy()  # C, as the next three
        self.rows = _numbers(columns["frames"])
        self.landmarks_offset = _numbers(columns["landmarks_offset"])
        self.landmarks_size = _numbers(columns["landmarks_size"])
        self.bytes = np.zeros(len(self.shards), np.int64)
        self.bytes[self.shard_of] = _numbers(columns["shard_bytes"])
        self.first_frame = np.append(0, np.cumsum(lengths, dtype=np.int64))  # C + 1
        self.numbers = _numbers(columns["frame_numbers"].flatten())  # F, as the next two
        self.offsets = _numbers(columns["frame_offsets"].flatten())
        self.sizes = _numbers(columns["frame_sizes"].flatten())
        self._check(str(path), lengths)
        # Reading took more than is kept, and every worker of a node would hold on to it.
        pa.default_memory_pool().release_unused()

    def _check(self, path: str, lengths: npt.NDArray[np.int64]) -> None:
        """Names are plain, spans lie inside their tar, every stored frame has its landmarks."""
        for name in self.shards:  # they become paths and addresses, and an index is handed on
            if not PLAIN_NAME.fullmatch(name):
                raise ValueError(f"{path}: {name!r} is no shard's name; make the shards anew")
        same = len(self.numbers) == len(self.offsets) == len(self.sizes) == self.first_frame[-1]
        if same:
            starts, limits = self.first_frame[:-1], self.bytes[self.shard_of]
            wrong = _outside(self.offsets, self.sizes, np.repeat(limits, lengths))
            wrong |= (self.numbers < 0) | (self.numbers >= np.repeat(self.rows, lengths))
            wrong = np.logical_or.reduceat(wrong, starts)
            wrong |= _outside(self.landmarks_offset, self.landmarks_size, limits)
        if not same or wrong.any():
            clip = self.keys[int(wrong.argmax())] if same else "a clip"
            raise ValueError(f"{path}: what it says of {clip} cannot be true; make the shards anew")

    def frames_of(self, video: int) -> range:
        """The numbers of a video's stored frames."""
        first, last = self.first_clip[video], self.first_clip[video + 1]
        return range(int(self.first_frame[first]), int(self.first_frame[last]))

    def clip_of(self, frame: int) -> int:
        """The clip that a frame is stored with."""
        return bisect_right(self.first_frame, frame) - 1


class _Columns:
    """Columns of a split's clips, sorted by name, read one by one: all at once take gigabytes."""

    def __init__(self, path: str | Path, split: str) -> None:
        """Raises ValueError for what is no index, EmptySplit where the split holds nobody."""
        self._path = path
        with self._readable():
            self._file = pq.ParquetFile(path, page_checksum_verification=True)
        if missing := {*COLUMNS, "split"} - set(self._file.schema_arrow.names):
            raise ValueError(f"{path} is no index of shards: it lacks {', '.join(sorted(missing))}")
        with self._readable():
            inside = pc.equal(self._file.read(["split"])["split"], split)
            rows = np.flatnonzero(inside.to_numpy())
            if not len(rows):
                raise EmptySplit(f"{path}: split {split!r} holds nobody: see `catalog.split`")
            names = self._file.read([*VIDEO, "key"]).take(pa.array(rows))
        order = pc.sort_indices(names, [(name, "ascending") for name in names.column_names])
        self.names, self._rows = names.take(order), rows[order.to_numpy()]

    def __getitem__(self, name: str) -> pa.Array:
        with self._readable():
            return self._file.read([name])[name].take(pa.array(self._rows)).combine_chunks()

    def keep(self, wanted: npt.NDArray[np.bool_]) -> None:
        """Go on with some of the clips."""
        self.names, self._rows = self.names.filter(pa.array(wanted)), self._rows[wanted]

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except pa.ArrowException as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"{self._path}: not a readable index ({reason}); make it anew"
            ) from error


def _outside(offsets: Any, sizes: Any, limits: Any) -> npt.NDArray[np.bool_]:
    """Which spans are not within [0, limit); written so that no sum can overflow."""
    inside = (offsets >= 0) & (offsets <= limits)
    outside: npt.NDArray[np.bool_] = ~(inside & (sizes >= 0) & (sizes <= limits - offsets))
    return outside


def _begins_video(table: pa.Table) -> npt.NDArray[np.bool_]:
    """For every clip of a sorted table, whether it is the first of its video."""
    begins = np.ones(len(table), bool)
    if len(table) > 1:
        columns = [table[name].combine_chunks() for name in VIDEO]
        changes = [pc.not_equal(c[1:], c[:-1]).to_numpy(zero_copy_only=False) for c in columns]
        begins[1:] = np.logical_or.reduce(changes)
    return begins


def _long_enough(
    columns: _Columns, frames: int, few_frames: FewFrames
) -> tuple[pa.Table, npt.NDArray[np.int64], int]:
    """Names and stored frames of the clips of videos that store `frames` frames in all; and how
    many videos do not."""
    if few_frames not in ("error", "drop"):
        raise ValueError(f"few_frames is {few_frames!r}; it must be error or drop")
    names = columns.names
    lengths = _numbers(pc.list_value_length(columns["frame_numbers"])).astype(np.int64)
    video_of = np.cumsum(_begins_video(names)) - 1
    totals = np.bincount(video_of, lengths).astype(np.int64)
    short = totals < frames
    if few_frames == "error" and short.any():
        first = int(np.flatnonzero(short)[0])
        clip = names.select(VIDEO).slice(int(np.searchsorted(video_of, first)), 1)
        name = VideoKey(**clip.to_pylist()[0])
        others = f" (and {short.sum() - 1} videos more)" if short.sum() > 1 else ""
        raise ValueError(
            f"video {name} has {totals[first]} stored frames{others}, but K = {frames - 1} source "
            f"frames and a target need {frames}: take a smaller K, or few_frames='drop'"
        )
    wanted = ~short[video_of] & (lengths > 0)
    columns.keep(wanted)
    return columns.names, lengths[wanted], int(short.sum())


def _numbers(column: pa.Array) -> Any:
    """A column of numbers as one array."""
    return column.to_numpy(zero_copy_only=False)
