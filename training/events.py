"""What the workers of a run tell its driver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Stepped:
    """One step's losses, means over the workers."""

    step: int
    losses: dict[str, float]


@dataclass(frozen=True, slots=True)
class Started:
    """The run begins, or goes on after `step`."""

    step: int
    total: int
    videos: int
    batch: int
    notes: tuple[str, ...] = ()
    """What a person should know: a damaged checkpoint that was passed over."""
    history: tuple[Stepped, ...] = ()
    """Steps up to `step` whose report may have been lost with an earlier driver."""


@dataclass(frozen=True, slots=True)
class Pictured:
    """A grid: rows of (source, landmarks, output, target), each (S, S, 3) uint8."""

    step: int
    rows: list[list[npt.NDArray[np.uint8]]]
    labels: list[str]


@dataclass(frozen=True, slots=True)
class Saved:
    """The checkpoint of this step is safe."""

    step: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """The run cannot go on, for a reason that a person must mend."""

    why: str
    mistake: bool = False
    """The user's mistake rather than the machine's trouble."""


Event = Started | Stepped | Pictured | Saved | Stopped
Report = Callable[[Event], None]
