"""What became otherwise between two runs: clip by clip, person by person, shard by shard.

Clips are compared by their status and by the sha256 of their crop and landmarks, shards by
their own. Whoever was taken out of one of them is counted and not named, whichever came first.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines import manifest, storage
from pipelines.params import MANIFESTS
from pipelines.report.verdicts import read_verdicts
from pipelines.schemas import IDENTITY
from pipelines.statuses import Status

ABSENT = "absent"
"""What a clip is that the other run's catalog has no row of."""
SAME = "same"
KINDS = ("gained", "lost", "changed", "moved")
"""Ok now and not before; ok before and not now; ok in both with other bytes; another failure."""


@dataclass(frozen=True)
class Side:
    """One of the two runs."""

    folder: str
    digest: str
    """sha256 of its index."""
    annotated: int
    ok: int
    statuses: dict[str, int]
    """Clips by `stage: status`, the last word on each."""


@dataclass(frozen=True)
class Change:
    """A clip that became otherwise."""

    key: str
    source: str
    person: str
    video: str
    utterance: str
    what: str
    before: str
    after: str
    why: str
    """The tool's own words now, or what of it is different."""


@dataclass
class Person:
    """How a person's clips fared."""

    person: str
    before: int = 0
    """Clips that were ok."""
    after: int = 0
    gained: int = 0
    lost: int = 0
    changed: int = 0


@dataclass
class Shards:
    """Tars by name: which are the same byte for byte."""

    identical: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)


@dataclass
class Comparison:
    """All that differs."""

    old: Side
    new: Side
    clips: dict[str, int]
    """Clips by kind of change, `same` among them."""
    taken_out: int
    """Clips of one run that were taken out on request in the other."""
    transitions: list[tuple[str, str, int]]
    """(before, after, clips), the most frequent first; those that stayed are left out."""
    people: list[Person]
    """Who has any change."""
    shards: Shards
    changes: list[Change]

    @property
    def identical(self) -> bool:
        """Whether nothing at all differs, failures included."""
        return self.old.digest == self.new.digest and not self.changes and not self.taken_out

    def plain(self) -> dict[str, Any]:
        """For machines."""
        found = asdict(self)
        names = ("before", "after", "clips")
        found["transitions"] = [dict(zip(names, one, strict=True)) for one in self.transitions]
        return {"identical": self.identical} | found


def compare(old: str, new: str) -> Comparison:
    """Compare two data folders or URLs. Raises UserError where a manifest is missing."""
    before, after = _run(old), _run(new)
    hidden = _hidden(before.verdicts) | _hidden(after.verdicts)
    changes: list[Change] = []
    counts: Counter[str] = Counter()
    people: dict[str, Person] = defaultdict(lambda: Person(""))
    taken_out = 0
    for pair in _pairs(before, after):
        if ABSENT in (pair["before"], pair["after"]) and _veiled(pair) in hidden:
            taken_out += 1
            continue
        change = _change(pair)
        counts[change.what] += 1
        if change.what != SAME:
            changes.append(change)
        if pair["person"]:
            _count(people[pair["person"]], change)
    for name, person in people.items():
        person.person = name
    moved = Counter((c.before, c.after) for c in changes if c.before != c.after)
    return Comparison(
        old=_side(old, before),
        new=_side(new, after),
        clips={kind: counts[kind] for kind in (*KINDS, SAME)},
        taken_out=taken_out,
        transitions=[
            (was, now, clips)
            for (was, now), clips in sorted(moved.items(), key=lambda one: (-one[1], one[0]))
        ],
        people=sorted(
            (p for p in people.values() if p.gained or p.lost or p.changed),
            key=lambda p: (-abs(p.after - p.before), -p.changed, p.person),
        ),
        shards=_shards(before.shards, after.shards),
        changes=sorted(changes, key=lambda c: (KINDS.index(c.what), c.key, c.source)),
    )


# --- reading ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Run:
    verdicts: pa.Table
    clips: pa.Table
    """`verdicts` without those taken out, one row a clip, with the digests of crop and points;
    `name` tells clips apart."""
    shards: dict[str, str]
    digest: str


def _run(data: str) -> _Run:
    index = storage.join(data, MANIFESTS["shard"])
    verdicts = read_verdicts(data)
    listed = verdicts.filter(pc.not_equal(verdicts["status"], Status.EXCLUDED))
    listed = listed.append_column("name", manifest.clip_names(listed))
    # A clip annotated twice has a second row of the same name, which is a bad annotation.
    first = pa.array(range(len(listed)), pa.int64())
    names = listed.select(["name"]).append_column("row", first)
    rows = names.group_by("name", use_threads=False).aggregate([("row", "min")])["row_min"]
    clips = listed.take(rows.sort())
    for stage in ("crop", "landmarks"):
        own = manifest.read(storage.join(data, MANIFESTS[stage]), ["source", "key", "sha256"])
        at = pc.index_in(clips["name"], manifest.clip_names(own).combine_chunks())
        clips = clips.append_column(stage, own["sha256"].take(at))
    tars = manifest.read(index, ["shard", "shard_sha256"])
    shards = dict(zip(tars["shard"].to_pylist(), tars["shard_sha256"].to_pylist(), strict=True))
    return _Run(verdicts, clips, shards, storage.digest_bytes(storage.read_bytes(index)))


def _pairs(before: _Run, after: _Run) -> Iterator[dict[str, Any]]:
    """Every clip of either run, with what it was and what it is."""
    told = ("status", "split", "detail", "crop", "landmarks")
    old_names, new_names = (run.clips["name"].combine_chunks() for run in (before, after))
    at = pc.index_in(new_names, old_names)
    gone = pc.invert(pc.is_in(old_names, new_names))
    columns = [*IDENTITY, *told]
    now = after.clips.select(columns)
    for name in told:
        now = now.append_column(f"old_{name}", before.clips[name].take(at))
    went = before.clips.filter(gone).select(columns)
    for table, here in ((now, True), (went, False)):
        for batch in table.to_batches(max_chunksize=4096):
            for row in batch.to_pylist():
                if not here:
                    row |= {f"old_{name}": row[name] for name in told} | dict.fromkeys(told)
                yield row | {
                    "before": row["old_status"] or ABSENT,
                    "after": row["status"] or ABSENT,
                }


def _hidden(verdicts: pa.Table) -> set[str]:
    """What stands for those who were taken out: `source/digest`."""
    out = verdicts.filter(pc.equal(verdicts["status"], Status.EXCLUDED))
    return set(manifest.clip_names(out).to_pylist())


def _veiled(clip: dict[str, Any]) -> str:
    """The same of a clip, whether it was taken out or not."""
    return f"{clip['source']}/x{hashlib.sha256(clip['key'].encode()).hexdigest()[:16]}"


# --- judging ---------------------------------------------------------------------------------


def _change(pair: dict[str, Any]) -> Change:
    before, after = pair["before"], pair["after"]
    why = pair["detail"] or ""
    if before == after == Status.OK:
        differs = [
            words
            for name, words in (
                ("crop", "cut differently"),
                ("landmarks", "other landmarks"),
                ("split", f"from {pair['old_split']} to {pair['split']}"),
            )
            if pair[name] != pair[f"old_{name}"]
        ]
        what, why = ("changed" if differs else SAME), ", ".join(differs)
    elif after == Status.OK:
        what = "gained"
    elif before == Status.OK:
        what = "lost"
    else:
        what = SAME if before == after else "moved"
    identity = {name: pair[name] for name in IDENTITY}
    return Change(**identity, what=what, before=before, after=after, why=why)


def _count(person: Person, change: Change) -> None:
    person.before += change.before == Status.OK
    person.after += change.after == Status.OK
    if change.what in ("gained", "lost", "changed"):
        setattr(person, change.what, getattr(person, change.what) + 1)


def _shards(old: dict[str, str], new: dict[str, str]) -> Shards:
    both = sorted(old.keys() & new.keys())
    return Shards(
        identical=[name for name in both if old[name] == new[name]],
        changed=[name for name in both if old[name] != new[name]],
        new=sorted(new.keys() - old.keys()),
        gone=sorted(old.keys() - new.keys()),
    )


def _side(folder: str, run: _Run) -> Side:
    pairs = zip(run.verdicts["stage"].to_pylist(), run.verdicts["status"].to_pylist(), strict=True)
    counts = Counter(f"{stage}: {status}" for stage, status in pairs)
    ok = counts["shard: ok"]
    return Side(folder, run.digest, len(run.verdicts), ok, dict(sorted(counts.items())))
