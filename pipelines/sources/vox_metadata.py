"""`vox-metadata.csv`: the VoxCeleb1 clips that most talking-head papers trained on.

Layout: one CSV with a header: `video_id, start, end, bbox, fps, width, height, partition,
person_id`. A clip is the frames [start, end) at `fps`, with one box `left-top-right-bottom` in
pixels of a `width` x `height` picture; the box may leave it. The published file repeats some
300 rows, three of them in train and in test: one of each is kept, the test one.

Published by Siarohin et al. (2019) in https://github.com/AliaksandrSiarohin/video-preprocessing,
derived from VoxCeleb1, whose terms apply (see `voxceleb.py`).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from pipelines.sources.base import (
    Annotation,
    BadRow,
    RowError,
    SourceError,
    bad_row,
    check_identifiers,
    in_order,
    one_box,
    quote,
)
from pipelines.sources.text import decimal, decode, integer, names_in, read_list

COLUMNS = ("video_id", "start", "end", "bbox", "fps", "height", "partition", "person_id")
_SPLITS = {"train": None, "test": "test"}
_BOX = re.compile(r"(-?[0-9.]+)-(-?[0-9.]+)-(-?[0-9.]+)-(-?[0-9.]+)")


def vox_metadata(path: Path) -> Iterator[Annotation | BadRow]:
    """Read the table, or the `vox-metadata.csv` in a folder; it fits in memory."""
    table = path / "vox-metadata.csv" if names_in(path) is not None else path
    lines = read_list(table, "fetch vox-metadata.csv or mend the path")
    try:
        header = [name.strip() for name in _cells(lines[0][1])] if lines else []
    except RowError as error:
        raise SourceError(f"{table}: {error}") from error
    if missing := [name for name in COLUMNS if name not in header]:
        raise SourceError(f"{table}: no column {', '.join(missing)}; is it vox-metadata.csv?")
    rows = (
        (where := f"{table.name}:{number}", _read_row(line, header, where))
        for number, line in lines[1:]
    )
    return in_order(rows)


def _cells(line: bytes) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([decode(line)]))]
    except csv.Error as error:
        raise RowError(f"not a row of CSV: {error}") from error


def _read_row(line: bytes, header: list[str], where: str) -> Annotation | BadRow:
    person = video = utterance = ""
    try:
        cells = _cells(line)
        if len(cells) != len(header):
            raise RowError(f"{len(cells)} values, but the header has {len(header)} columns")
        row = dict(zip(header, cells, strict=True))
        person, video = row["person_id"], row["video_id"]
        check_identifiers(person, video)
        start = integer("start", row["start"], low=0)
        end = integer("end", row["end"], low=start + 1)
        utterance = f"{start:06d}-{end:06d}"
        if (fps := decimal("fps", row["fps"])) <= 0:
            raise RowError(f"fps is {row['fps']}, not positive")
        if not 1 <= fps <= 1000:
            raise RowError(f"fps is {row['fps']}, not within 1..1000")
        if row["partition"] not in _SPLITS:
            raise RowError(f"partition is {quote(row['partition'])}, not train or test")
        if (box := _BOX.fullmatch(row["bbox"])) is None:
            raise RowError(f"bbox is {quote(row['bbox'])}, not left-top-right-bottom")
        left, top, right, bottom = (decimal("bbox", edge) for edge in box.groups())
        return Annotation(
            person,
            video,
            utterance,
            first_frame=start,
            frames=end - start,
            fps=fps,
            boxes=one_box(left, top, right - left, bottom - top),
            box_height=integer("height", row["height"], low=1),
            split=_SPLITS[row["partition"]],
        )
    except RowError as error:
        return bad_row(where, error, person, video, utterance)
