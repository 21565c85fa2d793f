"""Who is to train on and who is held out: as published, or drawn by the seed, person by person."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from functools import lru_cache

from pipelines.params.dataset import Split


@lru_cache(maxsize=1024)  # neighbours share person and video
def stable_number(*parts: object) -> int:
    """A number of 64 bits that depends on the parts alone."""
    text = ":".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def stable_fraction(*parts: object) -> float:
    """The same in [0, 1)."""
    return stable_number(*parts) / 2**64


def split_of(person: str, published: str | None, split: Split) -> tuple[str, bool]:
    """train, val or test, and whether it was drawn.

    As published for the clip or its person, else the same for all clips of a person.
    """
    if split.use_published and published in ("val", "test"):
        return published, False
    at = stable_fraction("split", split.seed, person)
    if at < split.test:
        return "test", True
    return "val" if at < split.test + split.val else "train", True


def misfit(table: Mapping[str, str | None], people: Collection[str] = ()) -> str:
    """Why a table of people cannot give these their published splits; empty when it can.

    table: train, val or test, or None where it does not say, by person. Whom it does not know
    is drawn by the seed, a test person too: of a wrong table nobody would notice. It may know
    some of them, or many more: a table may list the held-out alone, a tree be a piece of a dataset.
    """
    if not table:
        return "no line of it can be read as a person"
    if not any(table.values()):
        return "it does not say who is dev and who is test: the column Set is missing or empty"
    known = sum(person in table for person in people)
    if known < min(len(table), len(people)) / 2:
        return f"it knows {known} of the {len(people)} people met: it looks like another dataset's"
    return ""


REMEDY = "in `people` name the publisher's own table, or leave it out and the seed draws all"
