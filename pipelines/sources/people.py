"""Who the people are: `vox1_meta.csv` and `vox2_meta.csv`, in the forms found in the wild.

Layout: a row per person: VoxCeleb id, VGGFace id (for VoxCeleb1 the name), gender, nationality
(VoxCeleb1 only), set (dev or test). Tabs or commas, stray blanks, BOM, CRLF, quotes, with or
without a header.

Published by the Visual Geometry Group beside VoxCeleb; terms as in `voxceleb.py`.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from pipelines.sources.base import BadRow, RowError, bad_row, check_identifiers, quote
from pipelines.sources.text import decode, read_list

_TITLES = {
    "id": re.compile(r"(voxceleb[12]?[ _]?|speaker[ _]?)?id"),
    "name": re.compile(r"vggface[12]?[ _]?id|name"),
    "gender": re.compile(r"gender|sex"),
    "nationality": re.compile(r"nationality|country"),
    "set": re.compile(r"set|split|partition"),
}
_NO_HEADER = {
    5: {"id": 0, "name": 1, "gender": 2, "nationality": 3, "set": 4},
    4: {"id": 0, "name": 1, "gender": 2, "set": 3},
}
_GENDERS = {"m": "m", "male": "m", "f": "f", "female": "f", "": None}
_SPLITS = {"dev": "train", "train": "train", "": None, "val": "val", "test": "test"}


@dataclass(frozen=True, slots=True)
class Person:
    """One row; None where the file says nothing."""

    id: str
    name: str | None
    gender: str | None
    """m or f, as published."""
    nationality: str | None
    split: str | None
    """train (the publishers' dev), val or test."""


def read_people(path: Path) -> tuple[dict[str, Person], list[BadRow]]:
    """Read a table of people by id; every row below the header is a Person or a BadRow.

    A BadRow names its person where the row tells the id.
    """
    people: dict[str, Person] = {}
    bad: list[BadRow] = []
    columns: dict[str, int] = {}
    width: int | None = None
    lines = read_list(path, "fetch the table of people or mend the path")
    for index, (number, line) in enumerate(lines):
        cells: list[str] = []
        try:
            cells = _cells(line)
            if index == 0 and (columns := _header(cells)):
                width = len(cells)
                continue
            person = _person(cells, columns or _NO_HEADER.get(len(cells), {}), width)
            if person.id in people:
                raise RowError(f"{person.id} is listed twice")
            people[person.id] = person
        except RowError as error:
            place = (columns or _NO_HEADER.get(len(cells), {})).get("id", len(cells))
            bad.append(bad_row(f"{path.name}:{number}", error, *cells[place : place + 1]))
    return people, bad


def _cells(line: bytes) -> list[str]:
    text = decode(line)
    try:
        cells = next(csv.reader([text], delimiter="\t" if "\t" in text else ","))
    except csv.Error as error:
        raise RowError(f"not a row of CSV: {error}") from error
    return [cell.strip() for cell in cells]


def _header(cells: list[str]) -> dict[str, int]:
    """Map the columns of a header to their places; empty if this is a row of data."""
    titles = [cell.lower() for cell in cells]
    columns = {
        column: place
        for column, title in _TITLES.items()
        for place, cell in enumerate(titles)
        if title.fullmatch(cell)
    }
    return columns if "id" in columns else {}


def _person(cells: list[str], columns: dict[str, int], width: int | None) -> Person:
    if not columns or (width is not None and len(cells) != width):
        expected = "4 or 5" if width is None else f"the {width} of the header"
        raise RowError(f"{len(cells)} values, not {expected}")
    row = {column: cells[place] for column, place in columns.items()}
    check_identifiers(row["id"])
    gender, split = row.get("gender", "").lower(), row.get("set", "").lower()
    if gender not in _GENDERS:
        raise RowError(f"gender is {quote(gender)}, not m or f")
    if split not in _SPLITS:
        raise RowError(f"set is {quote(split)}, not dev or test")
    return Person(
        row["id"],
        row.get("name") or None,
        _GENDERS[gender],
        row.get("nationality") or None,
        _SPLITS[split],
    )
