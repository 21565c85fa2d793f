"""A table of many rows inside a page: columns of names and numbers, packed into short text.

Names stand in the page once each and in plain text, so that whoever searches its bytes for a
person or a video finds them; a row holds their numbers, in digits of base 90 that neither JSON
nor HTML needs to escape. 100,000 clips take some 3 MB. `templates/table.js` unpacks and shows
them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Floats = npt.NDArray[np.float64]
Packed = dict[str, Any]

BASE = 90
DIGITS = np.frombuffer(
    bytes(code for code in range(ord("#"), ord("~") + 1) if chr(code) not in "<\\"), np.uint8
)
LEVELS = BASE * BASE - 1
"""What two digits tell apart, beside "unknown"."""
ID_COLUMNS = ("person", "video", "utterance")
"""Joined by `_` they are a clip's key; empty ones are left out."""


@dataclass(frozen=True)
class Names:
    """A column of words."""

    name: str
    label: str
    values: Sequence[str] | pa.Array | pa.ChunkedArray
    filter: str = ""
    """choice: from a list; start: by the first letters; nothing: not asked for."""
    shown: bool = True

    def packed(self) -> Packed:
        """For the page's script: the distinct words, sorted, and each row's number."""
        array = self.values
        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks()
        encoded = pa.array(array, pa.string()).dictionary_encode()
        words = encoded.dictionary.to_pylist()
        order = sorted(range(len(words)), key=words.__getitem__)
        rank = np.empty(len(words), np.int64)
        rank[order] = np.arange(len(words))
        numbers = rank[encoded.indices.to_numpy()] if len(words) else np.empty(0, np.int64)
        width = 0
        while BASE**width < len(words):
            width += 1
        return {
            "name": self.name,
            "label": self.label,
            "filter": self.filter,
            "shown": self.shown,
            "values": [words[at] for at in order],
            "width": width,
            "packed": digits(numbers, width),
        }


@dataclass(frozen=True)
class Numbers:
    """A column of numbers; NaN is unknown. Those beyond the last step are shown as `≥`."""

    name: str
    label: str
    values: Floats
    low: float
    step: float
    places: int
    """Decimals shown."""

    def packed(self) -> Packed:
        """For the page's script: 0 for unknown, else 1 + steps above `low`."""
        known = ~np.isnan(self.values)
        steps = np.zeros(len(self.values), np.int64)
        scaled = np.round((self.values[known] - self.low) / self.step)
        steps[known] = 1 + np.clip(scaled, 0, LEVELS - 1).astype(np.int64)
        return {
            "name": self.name,
            "label": self.label,
            "filter": "range",
            "shown": True,
            "low": self.low,
            "step": self.step,
            "places": self.places,
            "most": LEVELS,
            "width": 2,
            "packed": digits(steps, 2),
        }


def digits(numbers: npt.NDArray[np.int64], width: int) -> str:
    """Each number as `width` digits, the highest first."""
    powers = BASE ** np.arange(width - 1, -1, -1, dtype=np.int64)
    text: str = DIGITS[numbers[:, None] // powers % BASE].tobytes().decode("ascii")
    return text


def pack(columns: Sequence[Names | Numbers], rows: int, of: int) -> str:
    """The table as JSON that may stand inside a <script> element.

    of: how many rows there are, should these be a sample.
    """
    table = {"rows": rows, "of": of, "unit": "clips", "columns": [one.packed() for one in columns]}
    return as_json(table)


def as_json(value: object) -> str:
    """Compact JSON without `<`, which alone could end a <script> element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


# --- read back -------------------------------------------------------------------------------

_BLOCK = re.compile(r'<script type="application/json" id="rows"[^>]*>(.*?)</script>', re.DOTALL)


def rows_of(page: str) -> Iterator[dict[str, str]]:
    """The rows of a page's table, words only, each with its `key`; nothing for other pages."""
    found = _BLOCK.search(page)
    if not found:
        return
    table = json.loads(found[1])
    words = {one["name"]: _words(one, table["rows"]) for one in table["columns"] if "values" in one}
    for values in zip(*words.values(), strict=True):
        row = dict(zip(words, values, strict=True))
        yield row | {"key": "_".join(row[name] for name in ID_COLUMNS if row.get(name))}


def _words(column: Packed, rows: int) -> list[str]:
    values: list[str] = column["values"]
    width: int = column["width"]
    back = np.zeros(128, np.int64)
    back[DIGITS] = np.arange(BASE)
    text = np.frombuffer(column["packed"].encode("ascii"), np.uint8).reshape(rows, width)
    numbers = back[text] @ BASE ** np.arange(width - 1, -1, -1, dtype=np.int64)
    return [values[number] for number in numbers.tolist()]
