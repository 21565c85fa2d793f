"""Which trained files saw the forgotten: each names the digest of the index it was made from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pipelines.lineage import made


def datasets(path: Path) -> set[str] | None:
    """The index digests that a safetensors file leads back to; None where it tells nothing."""
    try:
        facts = made.tensor_header(path)["facts"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
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
