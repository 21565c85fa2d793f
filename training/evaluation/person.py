"""One person's part of the evaluation, from frames to numbers; and keeping it for a next try."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines import storage
from pipelines.version import source_digest
from training.episodes import Episodes
from training.evaluation.frames import Shown, read
from training.evaluation.instruments import Instruments, Scores, Seen
from training.evaluation.methods import MADE, NEAREST, REAL, Methods
from training.evaluation.protocol import Part, Protocol, spread

SELF, CROSS = "self", "cross"

Record = dict[str, npt.NDArray[Any]]
"""By path: scores/<mode>/<T>/<method>/<metric> (n,), features/... (n, d), pictures (S, S, 3)."""


def measure(
    protocol: Protocol, part: Part, episodes: Episodes, methods: Methods, instruments: Instruments
) -> Record:
    """Everything that is kept of a person."""
    held = read(episodes, part.video, part.holdout)
    others = read(episodes, part.video, part.others)
    real = instruments.see(held.pictures, held.points)
    other = instruments.see(others.pictures, others.points)
    record: Record = {}
    _keep(record, "real", {}, real)
    driver, driven_by = None, None
    if part.driver is not None:
        by = protocol.parts[part.driver]
        driver = read(episodes, by.video, by.holdout)
        driven_by = instruments.see(driver.pictures, driver.points)
    middle = len(part.holdout) // 2
    record["pictures/target"] = held.pictures[middle]
    record["pictures/landmarks"] = held.drawings[middle]

    for shots, frames in part.sources.items():
        sources = read(episodes, part.video, frames)
        record[f"pictures/{shots}/source"] = sources.pictures[len(frames) // 2]
        for name, render in methods.learn(sources).items():
            pictures = render(held)
            seen = instruments.see(pictures, held.points)
            scores = instruments.reenacted_self(seen, real, held)
            _keep(record, f"{SELF}/{shots}/{name}", scores, seen)
            if name in (*MADE, NEAREST):
                record[f"pictures/{shots}/{name}"] = pictures[middle]
            if name in MADE:
                # For each T and method another moment, as a rater soon knows a picture again.
                at = spread(len(pictures), 2 * len(part.sources))
                place = 2 * list(part.sources).index(shots) + MADE.index(name)
                record[f"study/{shots}/{name}"] = pictures[at[place % len(at)]]
            if driver is not None and driven_by is not None:
                seen = instruments.see(render(driver), driver.points)
                scores = instruments.reenacted_cross(seen, real, driven_by)
                _keep(record, f"{CROSS}/{shots}/{name}", scores, seen)
        for mode in (SELF, CROSS) if driver is not None else (SELF,):
            _keep(record, f"{mode}/{shots}/{REAL}", instruments.real(other, real), other)
    record["study/real"] = np.concatenate([s.pictures for s in _study(part, episodes)])
    return record


def _keep(record: Record, path: str, scores: Scores, seen: Seen) -> None:
    record |= {f"scores/{path}/{name}": values for name, values in scores.items()}
    record |= {f"features/{path}/{name}": values for name, values in seen.features.items()}


def _study(part: Part, episodes: Episodes) -> Iterator[Shown]:
    """Real frames for the user study, in the protocol's order; they may be of several videos."""
    index = episodes.index
    for frame in part.study:
        video = int(np.searchsorted(index.first_clip, index.clip_of(frame), "right")) - 1
        yield read(episodes, index.videos[video], [frame])


# --- kept between tries ----------------------------------------------------------------------


class Kept:
    """People that are done, in the work folder, under a digest of all that decides the numbers."""

    def __init__(self, work: str, *deciding: object) -> None:
        self.folder = storage.join(work, "evaluate", storage.digest(_code(), *deciding)[:16])

    def _url(self, part: Part) -> str:
        return storage.join(self.folder, f"{storage.digest(*part.video)[:16]}.npz")

    def get(self, part: Part) -> Record | None:
        """A person's record, or None where they have to be done."""
        try:
            with np.load(io.BytesIO(storage.read_bytes(self._url(part)))) as arrays:
                return {path: arrays[path] for path in arrays.files}
        except FileNotFoundError:
            return None
        except (ValueError, EOFError, zipfile.BadZipFile):  # a damaged disk: do it again
            return None

    def put(self, part: Part, record: Record) -> None:
        """Keep a person who is done."""
        sink = io.BytesIO()
        np.savez(sink, **record)  # type: ignore[arg-type]
        storage.write_bytes(self._url(part), sink.getvalue())

    def clear(self) -> None:
        """Nothing is needed any more once the results are written."""
        for name in storage.names(self.folder):
            storage.remove(storage.join(self.folder, name))


def _code() -> str:
    """Digest of the sources of `training`: other code may measure other numbers."""
    return source_digest(Path(__file__).parents[1].rglob("*.py"))
