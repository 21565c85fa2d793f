"""VoxCeleb1 and VoxCeleb2: a text file of face boxes per utterance.

Layout: `[dev/|test/][txt/]<person>/<video>/<utterance>.txt`. A header (`Identity`,
`Reference`, `Offset`, `FV Conf`, `ASD Conf`), then `FRAME X Y W H` and a row per frame. Frames
count at 25 per second. VoxCeleb2's boxes are fractions of the picture; VoxCeleb1's are pixels
of the 360-line video.

Published by the Visual Geometry Group, University of Oxford:
https://www.robots.ox.ac.uk/~vgg/data/voxceleb/ (Nagrani et al. 2017, Chung et al. 2018). Its
site offers the annotations under CC BY 4.0; the videos remain their owners'. Read the site's
privacy notice before use.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.sources.base import Annotation, BadRow, RowError, quote
from pipelines.sources.box_rows import fill_gaps, line_of, read_rows
from pipelines.sources.text import BOM, decimal, decode, integer, unread
from pipelines.sources.tree import Leaf, walk

MAX_BYTES = 16 * 2**20  # the longest published utterance is a few minutes: some 300 KB
_COLUMNS = re.compile(rb"^FRAME\b.*$", re.MULTILINE)


@dataclass(frozen=True)
class _Scale:
    other: str
    box_height: int | None
    hint: str

    def first_misfit(self, boxes: npt.NDArray[np.float32]) -> int | None:
        """Return the row that shows that the boxes are of the other dataset; 2 parts the two."""
        large = boxes.max() > 2 or boxes.min() < -2
        if large == (self.box_height is not None):
            return None
        return int(np.argmax(np.abs(boxes).max(axis=1) > 2)) if large else 0


class _Header(NamedTuple):
    offset: int | None
    fv_conf: float | None
    asd_conf: float | None


_FRACTIONS = _Scale(
    "voxceleb1", None, "a value beyond 2 or -2 looks like VoxCeleb1's pixels, not a fraction"
)
_PIXELS = _Scale("voxceleb2", 360, "no value above 2: looks like VoxCeleb2's fractions, not pixels")


def voxceleb2(path: Path) -> Iterator[Annotation | BadRow]:
    """Read a VoxCeleb2 tree; boxes are fractions of the picture."""
    return _read(path, _FRACTIONS)


def voxceleb1(path: Path) -> Iterator[Annotation | BadRow]:
    """Read a VoxCeleb1 tree; boxes are pixels of the 360-line video."""
    return _read(path, _PIXELS)


def _read(path: Path, scale: _Scale) -> Iterator[Annotation | BadRow]:
    for leaf in walk(path, "txt", {".txt"}):
        if isinstance(leaf, BadRow):
            yield leaf
            continue
        try:
            yield _parse(_load(Path(leaf.path)), leaf, scale)
        except RowError as error:
            yield leaf.bad(error, error.line)
        except OSError as error:
            yield leaf.bad(f"the file {unread(error, leaf.path)}")


def _load(path: Path) -> bytes:
    if (size := path.stat().st_size) > MAX_BYTES:
        raise RowError(f"{size} bytes are too many for an utterance's boxes")
    data = path.read_bytes().removeprefix(BOM)
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data


def _parse(data: bytes, leaf: Leaf, scale: _Scale) -> Annotation:
    if not data.strip():
        raise RowError("the file is empty; fetch it again")
    columns = _COLUMNS.search(data)
    if columns is None:
        decode(data)  # the likelier reason for binary rubbish and UTF-16
        raise RowError("no line 'FRAME X Y W H'; the file is cut or of another kind")
    header = data[: columns.start()]
    line = header.count(b"\n") + 1
    if columns.group().split() != [b"FRAME", b"X", b"Y", b"W", b"H"]:
        raise RowError("the columns are not FRAME X Y W H", line)
    stated = _read_header(header, leaf)
    body = data[columns.end() + 1 :]
    frames, boxes = read_rows(body, line + 1)
    if (row := scale.first_misfit(boxes)) is not None:
        raise RowError(f"{scale.hint}; use the reader {scale.other}", line_of(body, line + 1, row))
    boxes = fill_gaps(frames, boxes)
    return Annotation(
        leaf.person,
        leaf.video,
        leaf.utterance,
        first_frame=int(frames[0]),
        frames=len(boxes),
        boxes=boxes,
        box_height=scale.box_height,
        split=leaf.split,
        offset=stated.offset,
        fv_conf=stated.fv_conf,
        asd_conf=stated.asd_conf,
    )


def _read_header(header: bytes, leaf: Leaf) -> _Header:
    """Read `name : value` lines; VoxCeleb2's FV Conf has a second value, a count in brackets."""
    folders = {"Identity": leaf.person, "Reference": leaf.video}
    values: dict[str, str] = {}
    offset = None
    confidences: dict[str, float] = {}
    for number, line in enumerate(header.split(b"\n"), start=1):
        try:
            if not line or line.isspace():
                continue
            name, colon, value = decode(line).partition(":")
            name, value = name.strip(), value.strip()
            if not (name and colon):
                raise RowError(f"{quote(name + colon)} is neither 'name : value' nor FRAME X Y W H")
            if name in values:
                raise RowError(f"{name} is stated twice")
            values[name] = value
            if not value:
                continue
            if name in folders and value != folders[name]:
                raise RowError(
                    f"{name} says {quote(value)} but the file lies under {folders[name]}"
                )
            if name == "Offset":
                offset = integer(name, value)
            elif name in ("FV Conf", "ASD Conf"):
                confidences[name] = decimal(name, value.split()[0])
        except RowError as error:
            raise RowError(str(error), number) from None
    return _Header(offset, confidences.get("FV Conf"), confidences.get("ASD Conf"))
