"""The order of videos: seeded, the same for any number of workers and ranks, resumable.

Epochs follow one another without a seam: step n takes the n-th `batch` videos of the endless
row "shuffled epoch 0, shuffled epoch 1, ...". So each video comes exactly once an epoch, all
batches are full and equal on all ranks, and the batch that is left partial by the end of an
epoch is filled from the beginning of the next; it counts to the epoch it begins in.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

ORDER, FRAMES, SHARDS = range(3)
"""What is shuffled: keeps seeds of different uses apart."""


def shuffled(count: int, *seed: int) -> npt.NDArray[np.intp]:
    """0 .. count - 1 in an order that depends on the seed's numbers (0 or more) alone.

    Sorts raw random bits: NumPy promises those for all time, but not what `permutation` makes
    of them, and a checkpoint may be resumed with another NumPy.
    """
    bits = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(count)
    return np.argsort(bits, kind="stable")


class EpisodeSampler:
    """Batches of (epoch, video) for one rank: its share of the global batches, in order.

    videos: how many there are. batch: episodes a step, of all ranks together. Rank r takes the
    r-th of `world` equal parts of each global batch. Iterating yields the batches that begin
    in what is left of the epoch and moves nothing: `advance` does, once a batch is *used*,
    since workers fetch ahead.
    """

    def __init__(
        self, videos: int, batch: int, seed: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        if videos < 1 or batch < 1 or seed < 0:
            raise ValueError(
                f"videos ({videos}) and batch ({batch}) must be 1 or more, seed ({seed}) 0 or more"
            )
        if not 0 <= rank < world:
            raise ValueError(f"rank is {rank}; of {world} ranks it must be 0 to {world - 1}")
        if batch % world:
            raise ValueError(f"a global batch of {batch} has no equal parts for {world} ranks")
        self.videos, self.batch, self.seed, self.rank, self.world = videos, batch, seed, rank, world
        self.epoch = self.cursor = 0
        self._order: tuple[int, npt.NDArray[np.intp]] | None = None

    def __len__(self) -> int:
        """Batches that begin in what is left of this epoch."""
        return -(-(self.videos - self.cursor) // self.batch)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """This rank's batches until the epoch ends."""
        epoch = self.epoch
        for first in range(self.cursor, self.videos, self.batch):
            yield self._share(epoch, first)

    def _share(self, epoch: int, first: int) -> list[tuple[int, int]]:
        share = self.batch // self.world
        start = first + self.rank * share
        places = (divmod(at, self.videos) for at in range(start, start + share))
        return [(epoch + later, int(self._video(epoch + later, at))) for later, at in places]

    def _video(self, epoch: int, at: int) -> np.intp:
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, shuffled(self.videos, ORDER, self.seed, epoch)
        video: np.intp = self._order[1][at]
        return video

    def advance(self) -> None:
        """One global batch has been used."""
        later, self.cursor = divmod(self.cursor + self.batch, self.videos)
        self.epoch += later

    def state_dict(self) -> dict[str, int]:
        """Where the next batch begins; the same on all ranks."""
        return {"seed": self.seed, "epoch": self.epoch, "cursor": self.cursor}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on there; batch and world may be others. Raises ValueError for another order."""
        if state["seed"] != self.seed:
            raise ValueError(f"the state's seed is {state['seed']}, not {self.seed}")
        if state["epoch"] < 0 or not 0 <= state["cursor"] < self.videos:
            raise ValueError(f"{state} is no place among {self.videos} videos")
        self.epoch, self.cursor = state["epoch"], state["cursor"]
