"""Annotations as VoxCeleb2 publishes them, for the tests of whatever reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def write_utterance(
    root: Path,
    person: str,
    video: str,
    utterance: str,
    lefts: Mapping[int, object],
    fv: str = "20.5",
    offset: int = -2,
) -> Path:
    """A clip's file; `lefts`: where its box begins, by frame."""
    path = root / person / video / f"{utterance}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    head = f"Identity  : \t{person}\nReference : \t{video}\nOffset    : \t{offset}\n"
    head += f"FV Conf   : \t{fv}\nASD Conf  : \t4.5\n\nFRAME \tX \tY \tW \tH \n"
    body = "".join(f"{n:06d} \t{left} \t0.2 \t0.3 \t0.4 \n" for n, left in lefts.items())
    path.write_text(head + body)
    return path
