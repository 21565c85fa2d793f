"""Where clips go: the split that their person is in, and the shard of it that holds their video."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from pipelines.params import Params
from pipelines.splits import stable_number

Clips = Counter[tuple[str, str, bool]]
"""How many clips of a source, by person, split, and whether that was drawn."""


@dataclass(frozen=True)
class Places:
    """Which split and which of its shards the clips of a source go to."""

    source: str
    held_out: Mapping[str, str]
    """People whom another source holds out, with their split there."""
    splits: Mapping[str, frozenset[str]]
    """By person."""
    buckets: Mapping[str, int]
    """Shards by split."""

    def split(self, person: str, split: str, drawn: bool) -> str:
        """What others publish of a person counts where nobody says a word here."""
        return self.held_out.get(person, split) if drawn else split

    def place(self, person: str, split: str, drawn: bool, video: str) -> tuple[str, str]:
        """The split and shard of a clip; a row that was not to be read has none."""
        if not (split := self.split(person, split, drawn)):
            return "", ""
        return split, f"{self.source}-{split}-{bucket_of(video, self.buckets[split]):05d}"


def places_of(source: str, clips: Mapping[str, Clips], params: Params) -> Places:
    """The places of a source's clips, once those of all sources have been counted."""
    held_out: dict[str, str] = {}
    if params.catalog.split.use_published:
        for other in clips.keys() - {source}:
            for person, split, drawn in clips[other]:
                if not drawn and held_out.get(person) != "test":
                    held_out[person] = split
    places = Places(source, held_out, {}, {})
    counts: Counter[str] = Counter()
    splits: dict[str, set[str]] = {}
    for (person, split, drawn), number in clips[source].items():
        final = places.split(person, split, drawn)
        counts[final] += number
        splits.setdefault(person, set()).add(final)
    buckets = {split: max(1, -(-n // params.shard.clips)) for split, n in counts.items()}
    return replace(places, splits={p: frozenset(s) for p, s in splits.items()}, buckets=buckets)


def torn_people(places: Iterable[Places]) -> set[str]:
    """People whose clips are in several splits."""
    splits: dict[str, frozenset[str]] = {}
    for placed in places:
        for person, own in placed.splits.items():
            splits[person] = splits.get(person, frozenset()) | own
    return {person for person, every in splits.items() if len(every) > 1}


def bucket_of(video: str, buckets: int) -> int:
    """Which of a source's shards holds a video.

    Jump consistent hash (Lamping and Veach 2014, arXiv 1406.2294): where a source has grown to one
    shard more, the new one takes its part of the videos, and no video moves between the others.
    """
    key = stable_number("bucket", video)
    bucket, jump = -1, 0
    while jump < buckets:
        bucket = jump
        key = (key * 2862933555777941757 + 1) % 2**64
        jump = int((bucket + 1) * (2**31 / ((key >> 33) + 1)))
    return bucket
