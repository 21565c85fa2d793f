# mypy: allow-subclassing-any
"""Indexed shards to episodes: K source frames and a disjoint target of a video.

Tars are read through mmap at the offsets that index.parquet gives, and only the frames that an
episode shows are decoded. An episode is a function of (seed, epoch, video) alone, whoever reads
it. Needs only torch, numpy, pyarrow and Pillow. `training.stream` is the same for object stores.

Shapes: B episodes, K source frames, pictures 3 x S x S uint8 in the memory order of
channels_last. A *frame* is numbered over all stored frames of the split, in order of videos.
"""

from __future__ import annotations

import hashlib
import mmap
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from training.index import FewFrames, ShardIndex, VideoKey
from training.jpeg import Name, Pixels, decode
from training.meta import EpisodeBatch
from training.rasterize import DRAWN, rasterize
from training.sampler import FRAMES, EpisodeSampler, shuffled

POINTS = 68
RANDOM: int | None = getattr(mmap, "MADV_RANDOM", None)
"""What tells the kernel not to read what lies around: by default it reads up to megabytes."""
MAPS = 256
"""Tars held open by a process: a mapping keeps a file descriptor, and 1,024 is a common limit."""

Points = npt.NDArray[np.float32]
Shown = tuple[bytes, Points, Name]
"""A frame's JPEG, its points (68, 2) in pixels of it, and its name."""


@dataclass(frozen=True, slots=True)
class Episode:
    """One video's episode, with the fields of EpisodeBatch."""

    source: Pixels
    """(K, 3, S, S)"""
    source_landmarks: Pixels
    """(K, 3, S, S): their landmark pictures."""
    target: Pixels
    """(3, S, S)"""
    target_landmarks: Pixels
    """(3, S, S)"""
    rows: int
    """The video's row of W."""


def draw(
    index: ShardIndex, video: int, count: int, seed: Sequence[int], points: Callable[[int], Points]
) -> dict[int, Points]:
    """`count` different frames of a video, by (seed, its name), and what `points` says of each.

    Frames where no face was found are the last choice, and come first, among the sources: their
    landmark pictures are black, and a target without a face teaches G to invent one.
    """
    frames = index.frames_of(video)
    # By its name, so that a new source changes no other video's episodes.
    name = hashlib.sha256("\0".join(index.videos[video]).encode()).digest()
    faces: dict[int, Points] = {}
    faceless: dict[int, Points] = {}
    for at in shuffled(len(frames), FRAMES, *seed, int.from_bytes(name[:8])):
        frame = frames[at]
        found = points(frame)
        (faces if np.isfinite(found[:DRAWN]).all() else faceless)[frame] = found
        if len(faces) == count:
            break
    return dict(islice(faceless.items(), count - len(faces))) | faces


def compose(shown: Sequence[Shown], size: int, row: int) -> Episode:
    """Decode and rasterise K sources and the target, last. Raises ValueError as `_painted`."""
    painted = _painted([shown], 1, len(shown) - 1, size)
    source, source_landmarks, target, target_landmarks = (
        np.moveaxis(field[0], -1, -3) for field in painted
    )
    return Episode(source, source_landmarks, target, target_landmarks, row)


def _painted(episodes: Iterable[Sequence[Shown]], b: int, k: int, size: int) -> list[Pixels]:
    """The fields of a batch but `rows`: (B, K, S, S, 3) twice and (B, S, S, 3) twice.

    Each picture is painted where the batch wants it: fresh memory costs more than drawing.
    Raises ValueError naming a picture that does not decode.
    """
    shapes = ((b, k, size, size, 3), (b, size, size, 3))
    source, source_landmarks, target, target_landmarks = fields = [
        np.zeros(shape, np.uint8) for shape in shapes for _ in range(2)
    ]
    points = np.empty((b, k + 1, POINTS, 2), np.float32)
    sides = np.empty((b, k + 1), np.intp)
    for at, shown in enumerate(episodes):
        pictures = [*source[at], target[at]]
        for frame, ((jpeg, place, name), picture) in enumerate(zip(shown, pictures, strict=True)):
            picture[:], sides[at, frame] = decode(jpeg, size, name)
            points[at, frame] = place
    rasterize(points[:, :k], size, source_size=sides[:, :k], out=source_landmarks)
    rasterize(points[:, k], size, source_size=sides[:, k], out=target_landmarks)
    return fields


def parse_points(npy: bytes | memoryview, rows: int, name: Name) -> Points:
    """A view of KEY.landmarks.npy, (rows, 68, 2), in pixels of the stored picture.

    Raises ValueError for anything else; nothing is ever unpickled.
    """
    values = rows * POINTS * 2
    header = bytes(npy[: max(len(npy) - 4 * values, 0)])
    shape = f"'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {POINTS}, 2)"
    if not header.startswith(b"\x93NUMPY") or shape.encode() not in header:
        raise ValueError(
            f"{name()} is no array of {rows} x {POINTS} landmarks: make its shard anew"
        )
    return np.frombuffer(npy, "<f4", values, len(header)).reshape(rows, POINTS, 2)


class Episodes(Dataset):
    """Episodes of a split at (epoch, video); see the module. Safe to fork and to pickle.

    index_path: index.parquet; shards_folder: the folder of train/, val/ and test/, on this
    machine; k: source frames; size: S, other than stored: resized, points too; few_frames:
    what becomes of videos with fewer than K + 1 frames. Raises ValueError for these, for tars
    that are missing and for tars of another length than the index says.
    """

    def __init__(
        self,
        index_path: str | Path,
        shards_folder: str | Path,
        split: str,
        k: int = 8,
        size: int = 256,
        seed: int = 0,
        *,
        few_frames: FewFrames = "error",
    ) -> None:
        if k < 1 or size < 1 or seed < 0:
            raise ValueError(
                f"k ({k}) and size ({size}) must be 1 or more, seed ({seed}) 0 or more"
            )
        self.k, self.size, self.seed = k, size, seed
        self.index = ShardIndex(index_path, split, k + 1, few_frames)
        self._paths = [Path(shards_folder, split, f"{name}.tar") for name in self.index.shards]
        self._maps: OrderedDict[int, mmap.mmap] = OrderedDict()
        for shard, path in enumerate(self._paths):
            self._check_length(shard, path.stat().st_size if path.is_file() else None)

    @property
    def videos(self) -> list[VideoKey]:
        """Video i has row i of W."""
        return self.index.videos

    def __len__(self) -> int:
        """Videos."""
        return len(self.index.videos)

    def __getitem__(self, place: tuple[int, int]) -> Episode:
        """The episode of (epoch, video)."""
        epoch, video = place
        return compose(self._shown(self._drawn(epoch, video)), self.size, video)

    def draw(self, epoch: int, video: int) -> list[int]:
        """The K source frames and the target, last, that the video shows in an epoch."""
        return list(self._drawn(epoch, video))

    def _drawn(self, epoch: int, video: int) -> dict[int, Points]:
        if epoch < 0 or not 0 <= video < len(self):
            raise IndexError(f"no episode ({epoch}, {video}) among {len(self)} videos")
        return draw(self.index, video, self.k + 1, (self.seed, epoch), self.points)

    def read(self, video: int, frames: Sequence[int]) -> Episode:
        """An episode of given frames, the target last."""
        return compose(
            self._shown({frame: self.points(frame) for frame in frames}), self.size, video
        )

    def __getitems__(self, places: Sequence[tuple[int, int]]) -> list[torch.Tensor]:
        """The episodes of a batch's places, as `stack` would have them."""
        shown = (self._shown(self._drawn(epoch, video)) for epoch, video in places)
        fields = _painted(shown, len(places), self.k, self.size)
        rows = torch.tensor([video for _, video in places])
        return [*map(torch.from_numpy, fields), rows]

    def _shown(self, drawn: dict[int, Points]) -> list[Shown]:
        # All of them before any is decoded: one after the other, each finds the caches cold.
        return [(self.jpeg(frame), at, partial(self.name, frame)) for frame, at in drawn.items()]

    def jpeg(self, frame: int) -> bytes:
        """A frame as it is stored."""
        start, size = int(self.index.offsets[frame]), int(self.index.sizes[frame])
        tar = self._map(int(self.index.shard_of[self.index.clip_of(frame)]))
        if RANDOM is not None:  # one request to the disk instead of one a page
            ahead = start % mmap.PAGESIZE
            tar.madvise(mmap.MADV_WILLNEED, start - ahead, size + ahead)
        return tar[start : start + size]

    def points(self, frame: int) -> Points:
        """A frame's landmarks (68, 2), in pixels of the stored picture."""
        index, clip = self.index, self.index.clip_of(frame)
        start, size = int(index.landmarks_offset[clip]), int(index.landmarks_size[clip])
        tar = memoryview(self._map(int(index.shard_of[clip])))
        table = parse_points(
            tar[start : start + size],
            int(index.rows[clip]),
            lambda: f"{index.keys[clip]}.landmarks.npy",
        )
        points: Points = table[index.numbers[frame]]
        return points

    def name(self, frame: int) -> str:
        """The tar and the member that hold a frame."""
        clip = self.index.clip_of(frame)
        member = f"{self.index.keys[clip]}.{frame - self.index.first_frame[clip]:03d}.jpg"
        return f"{self._paths[self.index.shard_of[clip]]}: {member}"

    def _map(self, shard: int) -> mmap.mmap:
        """The tar, opened when this process first needs it."""
        tar = self._maps.get(shard)
        if tar is None:
            with self._paths[shard].open("rb") as file:
                tar = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._check_length(shard, len(tar))
            if RANDOM is not None:
                tar.madvise(RANDOM)
            self._maps[shard] = tar
            if len(self._maps) > MAPS:
                self._maps.popitem(last=False)  # closes when nothing looks into it any more
        else:
            self._maps.move_to_end(shard)
        return tar

    def _check_length(self, shard: int, length: int | None) -> None:
        expected = self.index.bytes[shard]
        if length != expected:
            is_now = "is missing" if length is None else f"has {length} bytes, not {expected}"
            raise ValueError(
                f"{self._paths[shard]} {is_now}, as the index says: fetch or make it anew"
            )

    def __getstate__(self) -> dict[str, Any]:
        """Maps stay with the process that opened them."""
        return self.__dict__ | {"_maps": OrderedDict()}


def collate(episodes: Sequence[Episode]) -> EpisodeBatch:
    """Episodes of the same K and S as a batch of uint8 pictures."""
    return unstack(stack(episodes))


def stack(episodes: Sequence[Episode]) -> list[torch.Tensor]:
    """The fields' tensors, pictures as (..., S, S, 3): plain ones, that a DataLoader can pin."""
    *pictures, rows = (
        [getattr(episode, field.name) for episode in episodes] for field in fields(Episode)
    )
    stacks = (np.stack([np.moveaxis(x, -3, -1) for x in column]) for column in pictures)
    return [*map(torch.from_numpy, stacks), torch.tensor(rows)]


def unstack(tensors: Sequence[torch.Tensor]) -> EpisodeBatch:
    """What `stack` made, as a batch."""
    source, source_landmarks, target, target_landmarks = (x.movedim(-1, -3) for x in tensors[:-1])
    return EpisodeBatch(source, source_landmarks, target, target_landmarks, tensors[-1])


def _as_it_is(batch: list[torch.Tensor]) -> list[torch.Tensor]:
    return batch


class EpisodeLoader:
    """Batches read ahead by workers, and the place of the next *unused* batch.

    An iteration gives what is left of the epoch. While batch n is being used the state already
    says n + 1: save it after the step.
    """

    def __init__(
        self,
        episodes: Episodes,
        sampler: EpisodeSampler,
        *,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        if sampler.videos != len(episodes):
            raise ValueError(f"a sampler of {sampler.videos} videos, but {len(episodes)} videos")
        self.episodes, self.sampler = episodes, sampler
        self._loader = DataLoader(
            episodes,
            batch_sampler=sampler,
            collate_fn=_as_it_is,
            num_workers=workers,
            prefetch_factor=2 if workers else None,
            persistent_workers=workers > 0,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # else it draws from torch's own, and training differs
        )

    def __len__(self) -> int:
        """Batches left of this epoch."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[EpisodeBatch]:
        """Batches until the epoch ends."""
        for tensors in self._loader:
            self.sampler.advance()
            yield unstack(tensors)

    def state_dict(self) -> dict[str, int]:
        """The sampler's."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on at a state; takes effect with the next iteration."""
        self.sampler.load_state_dict(state)


def loader(
    episodes: Episodes,
    batch: int,
    *,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    pin_memory: bool = False,
) -> EpisodeLoader:
    """A rank's share of global batches of `batch` episodes, in an order of the episodes' seed."""
    sampler = EpisodeSampler(len(episodes), batch, episodes.seed, rank, world)
    return EpisodeLoader(episodes, sampler, workers=workers, pin_memory=pin_memory)
