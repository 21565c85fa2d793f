# mypy: allow-subclassing-any
"""Episodes from a plain `webdataset` stream: for object stores, where random access costs.

Every tar is opened where it lies, by the clients that everything of ours uses, and read from its
beginning to its end; the clips of a video, which lie in one tar, are gathered, its frames are
drawn as `training.episodes` draws them, and only these are kept, in a buffer that shuffles
videos. So an episode has the same content as by random access; the order of episodes is another
one, and depends on the numbers of ranks and workers. There is no place inside an epoch to resume
from: start again at an epoch.
"""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import count, groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset as wds
from torch.utils.data import DataLoader, IterableDataset
from webdataset.tariterators import group_by_keys, tar_file_expander

from pipelines import storage
from pipelines.errors import UserError
from training.episodes import Episode, Points, Shown, compose, draw, parse_points, stack, unstack
from training.index import FewFrames, ShardIndex
from training.meta import EpisodeBatch
from training.sampler import SHARDS, shuffled

Sample = dict[str, Any]

PAUSES = (1.0, 5.0, 25.0)
"""Seconds before another try where a store did not answer."""


class EpisodeStream(IterableDataset):
    """Episodes of this rank's and worker's tars, epoch after epoch.

    shards: a folder or URL, with train/, val/ and test/ below it, or a pattern with {} for
    `train/NAME.tar`, as "pipe:aws s3 cp s3://bucket/shards/{} -": a command for webdataset to run.
    epoch: the first one; epochs: how many, None: without end, which is what several ranks need:
    their tars hold unequal numbers of videos. buffer: videos to shuffle among.
    """

    def __init__(
        self,
        index_path: str | Path,
        shards: str | Path,
        split: str,
        k: int = 8,
        size: int = 256,
        seed: int = 0,
        *,
        epoch: int = 0,
        epochs: int | None = None,
        buffer: int = 256,
        few_frames: FewFrames = "error",
    ) -> None:
        if k < 1 or size < 1 or seed < 0 or epoch < 0 or buffer < 1:
            raise ValueError("k, size and buffer must be 1 or more, seed and epoch 0 or more")
        self.k, self.size, self.seed, self.buffer = k, size, seed, buffer
        self.epoch, self.epochs = epoch, epochs
        self.index = ShardIndex(index_path, split, k + 1, few_frames)
        pattern = str(shards) if "{}" in str(shards) else f"{str(shards).rstrip('/')}/{{}}"
        self._urls = [pattern.replace("{}", f"{split}/{name}.tar") for name in self.index.shards]
        first, last = self.index.first_clip[:-1], self.index.first_clip[1:]
        shard_of = self.index.shard_of
        apart = np.maximum.reduceat(shard_of, first) != np.minimum.reduceat(shard_of, first)
        if apart.any():
            name = self.index.videos[int(apart.argmax())]
            raise ValueError(f"the clips of video {name} lie in several shards: no stream has them")
        self._clips = last - first  # of each video

    def __len__(self) -> int:
        """Videos of the split, on all ranks together."""
        return len(self.index.videos)

    def __iter__(self) -> Iterator[Episode]:
        """Raises ValueError for a tar that cannot be read or lacks what the index says."""
        epochs = count(self.epoch)
        for epoch in epochs if self.epochs is None else range(self.epoch, self.epoch + self.epochs):
            yield from self.one_epoch(epoch)

    def one_epoch(self, epoch: int) -> Iterator[Episode]:
        """Every video of this rank's and worker's tars once."""
        order = shuffled(len(self._urls), SHARDS, self.seed, epoch)
        urls = (self._urls[at] for at in order)  # the same on all ranks, then dealt out
        mine = list(wds.split_by_worker(wds.split_by_node(urls)))
        if not mine:
            raise ValueError(
                f"{len(self._urls)} shards are too few for so many ranks and workers: take fewer"
            )
        rng = random.Random(f"{self.seed} {epoch} {mine[0]}")
        return iter(
            wds.DataPipeline(
                wds.SimpleShardList(mine),
                _members,
                group_by_keys,
                lambda samples: self._drawn(samples, mine, epoch),
                # Not full at first: all processes would wait for their store at once, each epoch.
                wds.shuffle(self.buffer, initial=max(1, self.buffer // 8), rng=rng),
                wds.map(lambda drawn: compose(drawn[0], self.size, drawn[1])),
            )
        )

    def _drawn(
        self, samples: Iterator[Sample], urls: list[str], epoch: int
    ) -> Iterator[tuple[list[Shown], int]]:
        """What each video of these tars shows, undecoded, and its row."""
        tars = groupby(samples, key=lambda sample: sample["__url__"])
        seen = set()
        for url, clips in tars:
            seen.add(url)
            for video, found in self._videos(url, clips):
                yield self._draw(video, found, epoch, url), video
        if lacking := [url for url in urls if url not in seen]:
            raise ValueError(f"{lacking[0]} has no clips, but the index says so: make it anew")

    def _videos(self, url: str, clips: Iterator[Sample]) -> Iterator[tuple[int, dict[int, Sample]]]:
        """(video, its clips by number) as soon as the last of its clips has come."""
        numbers = np.flatnonzero(self.index.shard_of == self._urls.index(url))
        left = {self.index.keys[clip].as_py(): int(clip) for clip in numbers}
        waiting: dict[int, dict[int, Sample]] = {}
        for sample in clips:
            clip = left.pop(sample["__key__"], None)
            if clip is None:  # of a video that was dropped
                continue
            video = int(np.searchsorted(self.index.first_clip, clip, "right")) - 1
            found = waiting.setdefault(video, {})
            found[clip] = sample
            if len(found) == self._clips[video]:
                yield video, waiting.pop(video)
        if left:
            raise ValueError(f"{url} lacks {min(left)}, but the index says so: make it anew")

    def _draw(self, video: int, clips: dict[int, Sample], epoch: int, url: str) -> list[Shown]:
        index = self.index

        def member(clip: int, suffix: str) -> bytes:
            try:
                data: bytes = clips[clip][suffix]
            except KeyError:
                name = f"{index.keys[clip]}.{suffix}"
                raise ValueError(f"{url} lacks {name}, but the index says so") from None
            return data

        def name(clip: int, suffix: str) -> str:
            return f"{url}: {index.keys[clip]}.{suffix}"

        tables = {
            clip: parse_points(
                member(clip, "landmarks.npy"),
                int(index.rows[clip]),
                partial(name, clip, "landmarks.npy"),
            )
            for clip in clips
        }

        def points(frame: int) -> Points:
            found: Points = tables[index.clip_of(frame)][index.numbers[frame]]
            return found

        shown: list[Shown] = []
        for frame, at in draw(index, video, self.k + 1, (self.seed, epoch), points).items():
            clip = index.clip_of(frame)
            suffix = f"{frame - index.first_frame[clip]:03d}.jpg"
            # A copy of the points, or the buffer would hold the whole clip's.
            shown.append((member(clip, suffix), at.copy(), partial(name, clip, suffix)))
        return shown


def _members(tars: Iterable[Sample]) -> Iterator[Sample]:
    """Every member of each tar, as webdataset reads them; what goes wrong with a tar names it."""
    for url in (tar["url"] for tar in tars):
        given, pauses = 0, iter(PAUSES)
        while True:
            try:
                with _opened(url) as stream:
                    members = tar_file_expander([{"url": url, "stream": stream}], eof_value=None)
                    for member in islice(members, given, None):
                        yield member
                        given += 1
            except UserError as error:  # no client for such a URL: says which
                raise ValueError(str(error)) from None
            except Exception as error:  # every object store's client has errors of its own
                pause = next(pauses, None) if _may_pass(url, error) else None
                if pause is None:
                    why = _reason(error)
                    raise ValueError(f"{url} cannot be read to its end: {why}") from error
                time.sleep(pause)
            else:
                break
        yield {}  # webdataset's mark of a tar's end, once its command has ended well too


def _may_pass(url: str, error: Exception) -> bool:
    """A store that is busy, a connection that broke: no run of many machines should end by it."""
    if storage.is_local(url) or url.startswith("pipe:"):  # a command sees to its own tries
        return False
    return isinstance(error, OSError) and not isinstance(error, FileNotFoundError | PermissionError)


def _opened(url: str) -> AbstractContextManager[Any]:
    return _piped(url) if url.startswith("pipe:") else storage.open_read(url)


@contextmanager
def _piped(url: str) -> Iterator[Any]:
    """What a command writes. Raises OSError where it failed, whatever became of the tar by that."""
    with wds.gopen(url) as pipe:
        pipe.ignore_errors = True  # it would tell them in a tuple of its own arguments
        try:
            yield pipe
        except Exception:
            _check_ended(pipe)
            raise
        _check_ended(pipe)


def _check_ended(pipe: Any) -> None:
    if pipe.stream.read(1):  # there is more, but nobody wants it: how it ends is our doing
        return
    if status := pipe.proc.wait():
        how = f"with exit status {status}" if status > 0 else f"by signal {-status}"
        raise OSError(f"its command ended {how}")


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):  # an object store's has other words, or none
        return os.strerror(errno.ENOENT)
    said = getattr(error, "strerror", None) or next(iter(error.args), None)
    words = said if isinstance(said, str) else type(error).__name__
    return " ".join(words.split(" @ <")[0].split())  # webdataset appends what it reads from


def stream_loader(
    stream: EpisodeStream, batch: int, *, workers: int = 0, pin_memory: bool = False
) -> Iterator[EpisodeBatch]:
    """Batches of `batch` episodes of this rank; a worker's partial one at the end is left out."""
    batches = DataLoader(
        stream,
        batch_size=batch,
        collate_fn=stack,
        drop_last=True,
        num_workers=workers,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # as training.episodes
    )
    return map(unstack, batches)
