"""Eight people's annotations, and what the rows of a catalog say of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from utterances import write_utterance

Row = dict[str, Any]

PEOPLE = [f"id{n:05d}" for n in range(8)]


def annotate(
    root: Path, person: str, video: str, utterance: str, frames: int = 3, fv: str = "20.5 (1)"
) -> Path:
    """Write a VoxCeleb2 utterance."""
    lefts = {n: f"0.{n % 9}1" for n in range(7, 7 + frames)}
    return write_utterance(root, person, video, utterance, lefts, fv)


def places(rows: list[Row]) -> dict[str, tuple[str, str]]:
    return {row["key"]: (row["split"], row["shard"]) for row in rows if row["shard"]}


def strings_of(rows: list[Row]) -> str:
    return "\n".join(str(v) for row in rows for v in row.values() if isinstance(v, str))
