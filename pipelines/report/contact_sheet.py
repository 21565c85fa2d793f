"""A few clips as small pictures with their landmarks, for eyes to check.

The clips are spread over people by a stable hash, so that the same dataset always shows the
same ones. Pictures and points are read out of the tars by the index's offsets.
"""

from __future__ import annotations

import base64
import heapq
import io
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from pipelines import storage
from pipelines.errors import UserError
from pipelines.manifest import ManifestReader
from pipelines.params import Params
from pipelines.schemas import LARGEST_CROP
from pipelines.shard import SPLITS, tar_url

SIDE = 128
"""Pixels of a thumbnail."""
DRAWN_AT = 256
"""The lines are drawn at this size and shrunk with the picture, which smooths them."""
MOST = 200
"""More would not fit a page that is meant to be mailed, beside the names of 100,000 clips."""

Row = dict[str, Any]
Points = npt.NDArray[np.float32]
_DAMAGED = (
    *(ValueError, TypeError, AttributeError, EOFError, RecursionError, MemoryError, TokenError),
    *(IndexError, BadZipFile, OSError, SyntaxError, Image.DecompressionBombError),
)
"""What numpy and Pillow raise over bytes that are not what they should be."""

# The landmark picture of Zakharov et al.: first and last point, colour, closed.
LINES: tuple[tuple[int, int, str, bool], ...] = (
    (0, 16, "#ffffff", False),  # jaw
    (17, 21, "#ff0000", False),  # brows
    (22, 26, "#00ff00", False),
    (27, 30, "#0000ff", False),  # nose
    (31, 35, "#0000ff", False),
    (36, 41, "#ff00ff", True),  # eyes
    (42, 47, "#00ffff", True),
    (48, 59, "#ffff00", True),  # outer lip
)


@dataclass(frozen=True)
class Thumbnail:
    """One clip of the sheet."""

    key: str
    source: str
    person: str
    split: str
    data_uri: str
    alt: str


def contact_sheet(params: Params) -> Iterator[Thumbnail]:
    """`card.thumbnails` clips, ordered by split and key.

    Raises UserError where a tar is gone or damaged.
    """
    index = ManifestReader(params.paths.manifest("shard"))
    rows = [index.rows(at, at + 1).to_pylist()[0] for at in chosen_rows(params)]
    for row in sorted(rows, key=lambda row: (SPLITS.index(row["split"]), row["key"])):
        yield _thumbnail(params, row)


def chosen_rows(params: Params) -> list[int]:
    """Row numbers of the index: round after round, one clip of every person."""
    wanted = min(params.card.thumbnails, MOST)
    url = params.paths.manifest("shard")
    people: set[str] = set()
    for batch in ManifestReader(url, ["person"]).batches():
        people.update(batch["person"].unique().to_pylist())
    if not people:
        return []
    # The people whose clips are looked at, and how many of each can be needed at most.
    lucky = set(heapq.nsmallest(wanted, people, key=_rank))
    clips: dict[str, list[tuple[str, int]]] = defaultdict(list)
    at = 0
    for batch in ManifestReader(url, ["person", "key"]).batches():
        names, keys = batch["person"].to_pylist(), batch["key"].to_pylist()
        for row, (person, key) in enumerate(zip(names, keys, strict=True), at):
            if person in lucky:
                clips[person].append((_rank(key), row))
                if len(clips[person]) > 2 * wanted:
                    clips[person] = heapq.nsmallest(wanted, clips[person])
        at += len(batch)
    rounds = [
        (turn, _rank(person), row)
        for person, ranked in clips.items()
        for turn, (_, row) in enumerate(sorted(ranked))
    ]
    return sorted(row for _, _, row in heapq.nsmallest(wanted, rounds))


def _rank(name: str) -> str:
    return storage.digest("contact sheet", name)


def _thumbnail(params: Params, row: Row) -> Thumbnail:
    url = tar_url(params, row["shard"])
    try:
        file = storage.open_read(url)
    except FileNotFoundError:
        raise UserError(f"{url} is missing: run the shard stage again") from None
    with file:
        try:
            points = _points(_read(file, row["landmarks_offset"], row["landmarks_size"]), row)
            at = _best(points[row["frame_numbers"]])
            picture = _picture(_read(file, row["frame_offsets"][at], row["frame_sizes"][at]))
        except _DAMAGED as error:
            if isinstance(error, OSError) and error.errno:  # the disk's or the network's trouble
                raise
            raise UserError(
                f"{url} does not hold what the index says: `python -m pipelines.verify`, then run "
                "the shard stage again"
            ) from error
    number = row["frame_numbers"][at]
    data = draw(picture, points[number])
    return Thumbnail(
        key=row["key"],
        source=row["source"],
        person=row["person"],
        split=row["split"],
        data_uri="data:image/jpeg;base64," + base64.b64encode(data).decode(),
        alt=f"Frame {number} of {row['key']} with its landmarks",
    )


def _points(data: bytes, row: Row) -> Points:
    points: Points = np.load(io.BytesIO(data), allow_pickle=False)
    if points.shape != (row["frames"], 68, 2) or points.dtype != np.float32:
        raise ValueError(f"landmarks are {points.dtype} {points.shape}")
    return points


def _picture(data: bytes) -> Image.Image:
    picture: Image.Image = Image.open(io.BytesIO(data), formats=["JPEG"])
    if max(picture.size) > LARGEST_CROP:  # before it takes memory
        raise ValueError(f"a picture of {picture.size} pixels")
    return picture.convert("RGB")


def _read(file: Any, offset: int, size: int) -> bytes:
    file.seek(offset)
    data: bytes = file.read(size)
    return data


def _best(points: Points) -> int:
    """The stored frame nearest the middle that has landmarks."""
    middle = len(points) // 2
    seen = np.flatnonzero(np.isfinite(points).all(axis=(1, 2)))
    return int(seen[np.abs(seen - middle).argmin()]) if len(seen) else middle


def draw(picture: Image.Image, points: Points) -> bytes:
    """A small JPEG of a crop with its 68 points as the paper's coloured lines."""
    scale = DRAWN_AT / picture.width
    picture = picture.resize((DRAWN_AT, DRAWN_AT), Image.Resampling.LANCZOS)
    if np.isfinite(points).all():
        pen = ImageDraw.Draw(picture)
        for first, last, colour, closed in LINES:
            line = [(float(x), float(y)) for x, y in points[first : last + 1] * scale]
            pen.line(line + line[:1] * closed, fill=colour, width=3, joint="curve")
    sink = io.BytesIO()
    small = picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    small.save(sink, "JPEG", quality=82, optimize=True)
    return sink.getvalue()
