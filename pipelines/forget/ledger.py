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
    "datasets (sha256 of index.parquet), the DVC objects (md5) and the files (bytes, sha256) "
    "that held it. docs/takedown.md explains."
)


@dataclass
class Held:
    """What held one request."""

    datasets: set[str] = field(default_factory=set)
    objects: set[str] = field(default_factory=set)
    files: set[tuple[int, str]] = field(default_factory=set)

    def update(self, other: Held) -> None:
        """Add what another look found."""
        self.datasets |= other.datasets
        self.objects |= other.objects
        self.files |= other.files


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
    return Held(set(entry["datasets"]), set(entry["objects"]), files)


def write(params: Params, ledger: Ledger, requests: Iterable[Request]) -> None:
    """Write the entries of the requests in force; one that was withdrawn needs none."""
    entries = [
        {
            "item": digest,
            "datasets": sorted(held.datasets),
            "objects": sorted(held.objects),
            "files": sorted(held.files),
        }
        for digest, held in sorted(ledger.items())
        if digest in {request.digest for request in requests}
    ]
    text = json.dumps({"about": ABOUT, "forgotten": entries}, indent=1) + "\n"
    storage.write_bytes(url(params), text.encode())
