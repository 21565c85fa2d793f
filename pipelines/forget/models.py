"""What Likeness made and the forgotten went into: by training, or as a file that was given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import UserError
from pipelines.forget.ledger import Ledger
from pipelines.forget.requests import Request
from pipelines.forget.whose import label
from pipelines.lineage import made


@dataclass(frozen=True)
class Sight:
    """What is known of datasets and files of the forgotten."""

    requests: Sequence[Request]
    book: Ledger
    current: str | None
    """Digest of the index that is here: what it holds is found in it."""

    def saw(self, digest: str, split: str) -> tuple[list[Request], list[Request]]:
        """Those whom a split of a dataset held, and those of whom that is not known."""
        answers = {r: self._was_in(r, digest, split) for r in self.requests}
        return [r for r, was in answers.items() if was], [
            r for r, was in answers.items() if was is None
        ]

    def _was_in(self, request: Request, digest: str, split: str) -> bool | None:
        was = self.book.was_in(request, digest, split)
        return False if was is None and digest == self.current else was

    @property
    def given(self) -> Mapping[str, Request]:
        """Deleted files by their sha256."""
        return {
            sha256: request
            for request in self.requests
            if request.digest in self.book
            for _, sha256 in self.book[request.digest].files
        }


def told(path: Path, sight: Sight) -> Iterator[str]:
    """What a model, a person or a sidecar says of its making, as far as the forgotten go.

    Nothing for a file that is none of these.
    """
    is_sidecar = path.name.endswith(made.SIDECAR)
    if path.suffix != made.TENSORS and not is_sidecar:
        return
    try:
        thing = made.read(path.with_name(path.name.removesuffix(made.SIDECAR)))
    except (UserError, OSError):
        yield "does not say what it was made from"
        return
    given = sight.given
    family = list(made.family(thing.facts))
    files = dict.fromkeys(
        given[one.sha256] for facts in family for one in made.inputs(facts) if one.sha256 in given
    )
    if files:
        yield f"was given a file of {_names(files)}"
    datasets = dict.fromkeys(filter(None, map(made.dataset_of, family)))
    if not datasets and not is_sidecar:
        yield "does not say what it was trained on"
    trained: dict[Request, None] = {}
    for dataset in datasets:
        trained |= dict.fromkeys(sight.saw(*dataset)[0])
    if trained:
        how = "made by a network trained" if is_sidecar else "trained"
        yield f"{how} on data of {_names(trained)}"
    for digest, split in datasets:
        if unsure := [r for r in sight.saw(digest, split)[1] if r not in trained]:
            yield (
                f"from the dataset {digest[:16]}, which is not here and not told of in the ledger: "
                f"whether it held {_names(unsure)} cannot be told"
            )


def _names(requests: Iterator[Request] | Sequence[Request] | Mapping[Request, None]) -> str:
    return ", ".join(map(label, requests))
