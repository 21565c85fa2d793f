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
    "sha256) that held it, the datasets that were looked at and did not (without), and how many "
    "names follow from it. `people`: by dataset, digests of everybody and their split, since no "
    "index of before outlasts `dvc gc`. docs/takedown.md explains."
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
    names: int = 0
    """Ids of videos and clips that followed from it, by the annotations of then."""

    def was_in(self, digest: str, split: str = "") -> bool | None:
        """Whether a dataset, or a split of it, held the request; None where that is not known."""
        splits = {own for known, own in self.datasets if known == digest}
        if not splits:
            return False if digest in self.without else None
        return not split or "" in splits or split in splits


class Ledger(dict[str, Held]):
    """What held each request, by the request's digest, and who was in which dataset."""

    def __init__(self, *entries: Any) -> None:
        super().__init__(*entries)
        self.people: dict[str, dict[str, str]] = {}
        """By dataset: split by `person`."""

    def was_in(self, request: Request, dataset: str, split: str = "") -> bool | None:
        """Whether a dataset, or a split of it, held a request; None where that is not known."""
        held = self.get(request.digest)
        was = held.was_in(dataset, split) if held else None
        if was is not None or request.kind != "person" or dataset not in self.people:
            return was
        own = self.people[dataset].get(person(request.id))
        return own is not None and split in ("", own)


def person(name: str) -> str:
    """Stands for a person in `people`."""
    return Request("person", name).digest[:16]


def url(params: Params) -> str:
    """Beside takedowns.csv."""
    folder, slash, _ = params.catalog.takedowns.rpartition("/")
    return f"{folder}{slash}{NAME}"


def read(params: Params) -> Ledger:
    """The ledger; empty where there is none. Raises UserError for a damaged one."""
    where = url(params)
    try:
        data = json.loads(storage.read_bytes(where))
        ledger = Ledger({entry["item"]: _held(entry) for entry in data["forgotten"]})
        ledger.people = {str(k): dict(v) for k, v in data.get("people", {}).items()}
        return ledger
    except FileNotFoundError:
        return Ledger()
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
    without, names = set(entry.get("without", ())), int(entry.get("names", 0))
    return Held(datasets, without, set(entry["objects"]), files, names)


def write(params: Params, ledger: Ledger, requests: Iterable[Request]) -> None:
    """Write the entries of the requests in force; one that was withdrawn needs none."""
    entries = [
        {
            "item": digest,
            "datasets": sorted(held.datasets),
            "without": sorted(held.without),
            "objects": sorted(held.objects),
            "files": sorted(held.files),
            "names": held.names,
        }
        for digest, held in sorted(ledger.items())
        if digest in {request.digest for request in requests}
    ]
    people = {dataset: dict(sorted(found.items())) for dataset, found in ledger.people.items()}
    document = {"about": ABOUT, "forgotten": entries, "people": people}
    text = json.dumps(document, indent=1) + "\n"
    storage.write_bytes(url(params), text.encode())
