"""The picture grid of an evaluation, like the paper's figure 3."""

from __future__ import annotations

from collections.abc import Sequence

from training.evaluation.methods import MADE, NEAREST
from training.evaluation.person import Record
from training.evaluation.protocol import Part
from training.grid import grid
from training.pixels import Pixels

PEOPLE = 8
"""At most: the first of the protocol, not the best."""


def figure(parts: Sequence[Part], records: Sequence[Record]) -> Pixels:
    """A row for each person and T: a source, the target, its landmarks, nearest source, FF, FT.

    The source is the middle one of T, the target the middle one of the held-out frames.
    """
    rows, labels = [], []
    made = [
        name for name in MADE if any(f"pictures/{t}/{name}" in records[0] for t in parts[0].sources)
    ]
    for part, record in list(zip(parts, records, strict=True))[:PEOPLE]:
        for first, shots in enumerate(part.sources):
            rows.append(
                [
                    record[f"pictures/{shots}/source"],
                    record["pictures/target"],
                    record["pictures/landmarks"],
                    *(record[f"pictures/{shots}/{name}"] for name in (NEAREST, *made)),
                ]
            )
            labels.append(f"{part.video.person}\nT={shots}" if not first else f"T={shots}")
    return grid(rows, ["source", "target", "landmarks", "nearest", *made], labels)
