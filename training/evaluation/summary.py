"""From people's records to means, intervals and differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.params.training import Evaluate
from training.evaluation.instruments import Metric
from training.evaluation.methods import FF, FT, MEAN, NEAREST, ORDER, REAL, UNTRAINED
from training.evaluation.person import CROSS, SELF, Record
from training.metrics import distribution
from training.metrics.bootstrap import Estimate, estimate, resamples

Values = npt.NDArray[np.float64]

COMPARED = ((FF, NEAREST), (FF, MEAN), (FF, UNTRAINED), (FT, NEAREST), (FT, UNTRAINED), (FT, FF))
"""Pairs whose difference is told: people differ more from each other than methods do."""


class Cell(NamedTuple):
    """Where a number stands."""

    mode: str
    shots: int
    method: str
    metric: str


def _scores(cell: Cell) -> str:
    return "scores/" + "/".join(map(str, cell))


class Summary:
    """All numbers of an evaluation: of people, of all, and between methods."""

    def __init__(
        self,
        people: Sequence[str],
        records: Sequence[Record],
        framewise: Sequence[Metric],
        networks: Sequence[str],
        settings: Evaluate,
    ) -> None:
        self.people, self._records, self.settings = list(people), list(records), settings
        paths = sorted({p for record in records for p in record if p.startswith("scores/")})
        cells = [
            Cell(mode, int(shots), *rest) for _, mode, shots, *rest in (p.split("/") for p in paths)
        ]
        self.shots = sorted({cell.shots for cell in cells})
        self.modes = [mode for mode in (SELF, CROSS) if any(c.mode == mode for c in cells)]
        self.methods = [name for name in ORDER if any(c.method == name for c in cells)]
        order = [metric.name for metric in framewise]
        self.per_person = {
            cell: self._means(cell)
            for cell in sorted(
                cells,
                key=lambda c: (
                    c.mode != SELF,
                    c.shots,
                    ORDER.index(c.method),
                    order.index(c.metric),
                ),
            )
        }
        counts = resamples(len(records), settings.bootstrap, settings.seed)
        self.estimates = {
            cell: estimate(values, counts, settings.confidence)
            for cell, values in self.per_person.items()
        }
        self.differences = dict(self._differences(counts))
        self.frames: dict[tuple[str, int], int] = {}
        for network in networks:
            self._distributions(network)

    def _means(self, cell: Cell) -> Values:
        """A person's mean over the frames that have a value, (P,); NaN for who has none."""
        means = np.full(len(self._records), np.nan)
        for at, record in enumerate(self._records):
            values = record.get(_scores(cell))
            if values is not None and not np.isnan(values).all():
                means[at] = np.nanmean(values)
        return means

    def _differences(self, counts: Values) -> Any:
        for cell in self.per_person:
            for ours, theirs in COMPARED:
                other = cell._replace(method=theirs)
                if cell.mode == SELF and cell.method == ours and other in self.per_person:
                    key = cell._replace(method=f"{ours} - {theirs}")
                    values = self._paired(cell, other)
                    yield key, estimate(values, counts, self.settings.confidence)

    def _paired(self, cell: Cell, other: Cell) -> Values:
        """A person's mean difference over the frames in which both have a value, (P,)."""
        means = np.full(len(self._records), np.nan)
        for at, record in enumerate(self._records):
            ours, theirs = (record.get(_scores(one)) for one in (cell, other))
            if ours is None or theirs is None:
                continue
            difference = ours - theirs
            if not np.isnan(difference).all():
                means[at] = np.nanmean(difference)
        return means

    def _distributions(self, network: str) -> None:
        """Fréchet and kernel distance of all people's frames, for each mode, T and method."""
        frechet, kernel = distribution.names(network)  # type: ignore[arg-type]
        for mode, shots in ((m, t) for m in self.modes for t in self.shots):
            for method in self.methods:
                path = f"features/{mode}/{shots}/{method}/{network}"
                there = [record for record in self._records if path in record]
                if not there:
                    continue
                made = [record[path] for record in there]
                real = [record[f"features/real/{network}"] for record in there]
                frames = min(sum(map(len, made)), sum(map(len, real)))
                if frames < 2:
                    continue
                value = distribution.frechet(np.concatenate(made), np.concatenate(real))
                # Each resampling would cost another decomposition; the kernel's interval tells.
                nan = float("nan")
                self.estimates[Cell(mode, shots, method, frechet)] = Estimate(
                    value, nan, nan, len(there)
                )
                counts = resamples(len(there), self.settings.bootstrap, self.settings.seed)
                self.estimates[Cell(mode, shots, method, kernel)] = distribution.kernel_distance(
                    made, real, counts, self.settings.confidence
                )
                if method != REAL:  # a person may have fewer other frames than held-out ones
                    self.frames[mode, shots] = frames
