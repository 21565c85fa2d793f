"""Where a run's batches come from, and the place of the next one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pipelines.errors import UserError
from pipelines.params.training import Setting
from training.episodes import Episodes, loader
from training.meta import EpisodeBatch
from training.stream import EpisodeStream, stream_loader


class Indexed:
    """Episodes by random access; goes on in the middle of an epoch."""

    def __init__(
        self,
        setting: Setting,
        index: str,
        shards: str,
        split: str,
        *,
        rank: int,
        world: int,
        workers: int,
        pin_memory: bool,
    ) -> None:
        episodes = episodes_of(setting, index, shards, split)
        self.videos, self.dropped = len(episodes), episodes.index.dropped
        self._loader = loader(
            episodes, setting.batch, rank=rank, world=world, workers=workers, pin_memory=pin_memory
        )

    def batches(self, done: int) -> Iterator[EpisodeBatch]:
        """This rank's batches without end; the loader knows how many steps are done."""
        while True:
            yield from self._loader

    def state(self) -> dict[str, int]:
        """The place behind the last batch that was given. Take it when that batch is used."""
        return self._loader.state_dict()

    def resume(self, state: Mapping[str, int]) -> None:
        """Go on where `state` was taken."""
        self._loader.load_state_dict(dict(state))


class Streamed:
    """Episodes from tars as they come; goes on at the beginning of an epoch."""

    def __init__(
        self,
        setting: Setting,
        index: str,
        shards: str,
        split: str,
        *,
        rank: int,
        world: int,
        workers: int,
        pin_memory: bool,
    ) -> None:
        if setting.batch % world:
            raise UserError(f"batch {setting.batch} has no equal parts for {world} workers")
        self._batch, self._share = setting.batch, setting.batch // world
        self._workers, self._pin_memory = workers, pin_memory
        size = setting.networks.image_size
        self._stream = EpisodeStream(
            index, shards, split, setting.k, size, setting.seed, few_frames=setting.few_frames
        )
        self.videos, self.dropped = len(self._stream), self._stream.index.dropped

    def batches(self, done: int) -> Iterator[EpisodeBatch]:
        """This rank's batches without end, from the epoch in which `done` steps end."""
        self._stream.epoch = done * self._batch // self.videos
        return stream_loader(
            self._stream, self._share, workers=self._workers, pin_memory=self._pin_memory
        )

    def state(self) -> dict[str, int]:
        """There is no place inside a stream."""
        return {}

    def resume(self, state: Mapping[str, int]) -> None:
        """`batches` is told how many steps are done."""


def episodes_of(setting: Setting, index: str, shards: str, split: str) -> Episodes:
    """The setting's episodes of a split. Raises ValueError as `Episodes` does."""
    size = setting.networks.image_size
    return Episodes(
        index, shards, split, setting.k, size, setting.seed, few_frames=setting.few_frames
    )
