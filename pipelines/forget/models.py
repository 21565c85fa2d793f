"""Which trained files saw the forgotten: each names the digest of the index it was made from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

HEADER_LIMIT = 100_000_000
"""The format's own limit on the header's length."""


def datasets(path: Path) -> set[str] | None:
    """The index digests that a safetensors file leads back to; None where it tells nothing.

    Reads the header alone: eight bytes of length, JSON, in it our facts as JSON.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= HEADER_LIMIT:
                return None
            header = json.loads(file.read(length))
        facts = json.loads(header["__metadata__"]["facts"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # A person adapted from a model carries the model's facts inside its own.
    return set(_digests(facts)) or None


def _digests(facts: Any) -> Iterator[str]:
    values: Iterable[Any] = ()
    if isinstance(facts, dict):
        if isinstance(found := facts.get("index_sha256"), str):
            yield found
        values = facts.values()
    elif isinstance(facts, list):
        values = facts
    for value in values:
        yield from _digests(value)
