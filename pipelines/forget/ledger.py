"""forgotten.json, beside takedowns.csv and tracked by git: what held the forgotten, by digest.

It lets a later check say which models saw the data (they name the digest of their dataset's
index), whether a deleted file has come back, and whether a remote still holds an old manifest,
long after the manifests themselves are gone. No identifier stands in it, only a digest of each.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from pipelines import storage
from pipelines.errors import UserError
from pipelines.forget.requests import Request
from pipelines.params import Params

NAME = "forgotten.json"
ABOUT = (
    "Written by `python -m pipelines.forget`. For every line of takedowns.csv, by digest: the "
    "datasets (sha256 of index.parquet, split), the DVC objects (md5) and the files (bytes, "
    "sha256) that held it, and the datasets that were looked at and did not (without). "
    "docs/takedown.md explains."
)


@dataclass
class Held:
    """What held one request."""

    datasets: set[tuple[str, str]] = field(default_factory=set)
    """(digest, split); split "": any."""
    without: set[str] = field(default_factory=set)
    """Digests of datasets that were looked at and did not hold it."""
    objects: set[str] = field(default_factory=set)
    files: set[tuple[int, str]] = field(default_factory=set)

    def was_in(self, digest: str, split: str = "") -> bool | None:
        """Whether a dataset, or a split of it, held the request; None where that is not known."""
        splits = {own for known, own in self.datasets if known == digest}
        if not splits:
            return False if digest in self.without else None
        return not split or "" in splits or split in splits


Ledger = dict[str, Held]
"""By the request's digest."""


def url(params: Params) -> str:
    """Beside takedowns.csv."""
    folder, slash, _ = params.catalog.takedowns.rpartition("/")
    return f"{folder}{slash}{NAME}"


def read(params: Params) -> Ledger:
    """The ledger; empty where there is none. Raises UserError for a damaged one."""
    where = url(params)
    try:
        data = json.loads(storage.read_bytes(where))
        return {entry["item"]: _held(entry) for entry in data["forgotten"]}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{where} is damaged ({error}): get it back with `git checkout {PurePosixPath(where)}`"
        ) from None


def _held(entry: dict[str, Any]) -> Held:
    files = {(int(size), str(sha256)) for size, sha256 in entry["files"]}
    # Ledgers of before named no split.
    datasets = {
        (one, "") if isinstance(one, str) else (one[0], one[1]) for one in entry["datasets"]
    }
    return Held(datasets, set(entry.get("without", ())), set(entry["objects"]), files)


def write(params: Params, ledger: Ledger, requests: Iterable[Request]) -> None:
    """Write the entries of the requests in force; one that was withdrawn needs none."""
    entries = [
        {
            "item": digest,
            "datasets": sorted(held.datasets),
            "without": sorted(held.without),
            "objects": sorted(held.objects),
            "files": sorted(held.files),
        }
        for digest, held in sorted(ledger.items())
        if digest in {request.digest for request in requests}
    ]
    text = json.dumps({"about": ABOUT, "forgotten": entries}, indent=1) + "\n"
    storage.write_bytes(url(params), text.encode())
