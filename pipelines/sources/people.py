"""Who the people are: `vox1_meta.csv` and `vox2_meta.csv`, in the forms found in the wild.

Layout: a row per person: VoxCeleb id, VGGFace id (for VoxCeleb1 the name), gender, nationality
(VoxCeleb1 only), set (dev or test). Tabs or commas, stray blanks, BOM, CRLF, quotes, with or
without a header.

Published by the Visual Geometry Group beside VoxCeleb; terms as in `voxceleb.py`.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from pipelines.sources.base import BadRow, RowError, bad_row, check_identifiers, quote
from pipelines.sources.text import decode, read_list

_TITLES = {
    "id": re.compile(r"(voxceleb[12]?[ _]?|speaker[ _]?)?id"),
    "set": re.compile(r"set|split|partition"),
}
_NO_HEADER = {5: {"id": 0, "set": 4}, 4: {"id": 0, "set": 3}}
_SPLITS = {"dev": "train", "train": "train", "": None, "val": "val", "test": "test"}
People = dict[str, str | None]
"""By id: train (the publishers' dev), val or test; None where the table says nothing."""


def read_people(path: Path) -> tuple[People, list[BadRow]]:
    """Read who is held out; every row below the header is a person or a BadRow.

    A BadRow names its person where the row tells the id.
    """
    people: People = {}
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
            person, split = _person(cells, columns or _NO_HEADER.get(len(cells), {}), width)
            if person in people:
                raise RowError(f"{person} is listed twice")
            people[person] = split
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


def _person(cells: list[str], columns: dict[str, int], width: int | None) -> tuple[str, str | None]:
    if not columns or (width is not None and len(cells) != width):
        expected = "4 or 5" if width is None else f"the {width} of the header"
        raise RowError(f"{len(cells)} values, not {expected}")
    person = cells[columns["id"]]
    check_identifiers(person)
    split = cells[columns["set"]].lower() if "set" in columns else ""
    if split not in _SPLITS:
        raise RowError(f"set is {quote(split)}, not dev or test")
    return person, _SPLITS[split]
