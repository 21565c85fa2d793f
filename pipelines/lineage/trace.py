"""The two walks: from a file back to clips and links, and from clips forward to files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines import storage
from pipelines.errors import UserError
from pipelines.forget import ledger
from pipelines.forget.requests import Request
from pipelines.lineage import made
from pipelines.lineage.dataset import Asked, Index, Project, count, read_index
from pipelines.lineage.made import Input, Made
from pipelines.params import MANIFESTS
from pipelines.schemas import CATALOG, CROPS, DOWNLOADS, INDEX, LANDMARKS

SCHEMAS = {
    "catalog": CATALOG,
    "download": DOWNLOADS,
    "crop": CROPS,
    "landmarks": LANDMARKS,
    "shard": INDEX,
}
BEFORE = {"download": "catalog", "crop": "download", "landmarks": "crop"}


@dataclass
class Node:
    """A thing and what it was made from."""

    kind: str
    name: str
    sha256: str = ""
    about: str = ""
    note: str = ""
    """What a person should know or do."""
    made_from: list[Node] = field(default_factory=list)
    clips: pa.Table | None = None
    """Of the dataset, where they are known."""

    def all_clips(self) -> list[pa.Table]:
        """The clips that this and everything before it comes from, each dataset once."""
        return list(self._datasets().values())

    def _datasets(self) -> dict[tuple[str, str], pa.Table]:
        found = {} if self.clips is None else {(self.name, self.sha256): self.clips}
        for one in self.made_from:
            found |= one._datasets()
        return found


# --- back ------------------------------------------------------------------------------------


class Backward:
    """Walks back from files of one project."""

    def __init__(self, project: Project, roots: Sequence[str | Path]) -> None:
        self._project, self._roots = project, roots
        self._of_before = False

    def walk(self, path: Path) -> Node:
        """What a file was made from, down to the links. Raises UserError for a stranger's file."""
        if path.suffix in (".parquet", ".tar"):
            if not path.exists():
                raise UserError(f"{path}: no such file")
            return self._manifest(path) if path.suffix == ".parquet" else self._tar(path)
        thing = made.read(path)
        path = thing.path  # the video, where its sidecar was named
        self._of_before = _of_before(self._project, thing)
        sha256 = storage.sha256(path) if path.is_file() else ""
        node = self._made(Input(thing.kind, str(path), sha256, thing.facts), 0)
        if not path.exists():
            node.note = f"no longer there; {path.name}{made.SIDECAR} tells of it"
        return node

    def _made(self, thing: Input, depth: int) -> Node:
        node = Node(thing.kind, thing.name, thing.sha256, made.about(thing.facts))
        dataset = made.dataset_of(thing.facts)
        if dataset:
            node.made_from.append(self._dataset(*dataset))
        for one in made.inputs(thing.facts):
            if one.kind == "index" and dataset and one.sha256 == dataset[0]:
                continue
            if depth < made.DEEPEST:
                node.made_from.append(self._input(one, depth + 1))
        return node

    def _input(self, one: Input, depth: int) -> Node:
        if one.kind == "index":
            return self._dataset(one.sha256, "")
        if not one.facts and one.kind in ("person", "model") and (found := self._lookup(one)):
            one = Input(one.kind, str(found.path), one.sha256, found.facts)
        node = self._made(one, depth)
        clip = self._project.clip_of(one.sha256)
        if clip is None and self._of_before:
            clip = self._project.earlier_clip_of(one.sha256)
        if clip:
            is_clip = "the video of" if clip["whole"] else "is"
            node.note = f"{is_clip} the clip {clip['name']}, from {clip['url']}"
        return node

    def _lookup(self, one: Input) -> Made | None:
        """The file of a parent that only its digest was written down of."""
        for found in made.find(self._roots):
            if isinstance(found, UserError) or found.kind != one.kind or not found.path.is_file():
                continue
            if storage.sha256(found.path) == one.sha256:
                return found
        return None

    def _dataset(self, digest: str, split: str) -> Node:
        index = self._project.indexes.get(digest)
        words = f"split {split}" if split else ""
        if index is None:
            return Node("dataset", words, digest, note=how_to_get(digest))
        clips = index.of(split)
        node = Node("dataset", words or index.url, digest, count(clips), clips=clips)
        node.made_from = self._sources(index, clips)
        return node

    def _tar(self, path: Path) -> Node:
        sha256 = storage.sha256(path)
        for index in self._project.indexes.values():
            clips = index.clips.filter(pc.equal(index.clips["shard_sha256"], sha256))
            if len(clips):
                node = Node("tar", str(path), sha256, count(clips), clips=clips)
                node.made_from = self._sources(index, clips)
                return node
        names = [i.clips["shard"].unique().to_pylist() for i in self._project.indexes.values()]
        if any(path.stem in known for known in names):
            note = "an index holds a tar of this name, but of other bytes"
        else:
            note = "no index at hand holds it"
        return Node("tar", str(path), sha256, note=f"{note}; name another with --index")

    def _manifest(self, path: Path) -> Node:
        try:
            columns = set(pq.read_schema(path).names)
        except (pa.ArrowInvalid, OSError):
            raise UserError(f"{path}: not a readable manifest") from None
        stage = next((s for s, schema in SCHEMAS.items() if set(schema.names) == columns), None)
        if stage is None:
            raise UserError(f"{path}: not a manifest of this version of Likeness")
        if stage == "shard":
            index = read_index(str(path))
            self._project.indexes.setdefault(index.digest, index)
            return self._dataset(index.digest, "")
        rows = pq.read_metadata(path).num_rows
        node = Node(stage, str(path), storage.sha256(path), f"{rows:,} rows")
        node.made_from = self._before(stage)
        return node

    def _before(self, stage: str) -> list[Node]:
        """The manifest that a stage goes by, and so on up to the published lists."""
        if stage == "catalog":
            return self._lists()
        before = BEFORE[stage]
        url = self._project.params.paths.manifest(before)
        return [Node(before, url, made_from=self._before(before))]

    def _sources(self, index: Index, clips: pa.Table) -> list[Node]:
        """The published lists that these clips of an index come from."""
        if index.digest != self._project.current:  # params of today say nothing about it
            return []
        return self._lists(set(clips["source"].unique().to_pylist()))

    def _lists(self, names: set[str] | None = None) -> list[Node]:
        """The published lists of params.yaml; all, or those of these names."""
        catalog = self._project.params.catalog
        return [
            Node("source", s.name, about=f"{s.reader}: {storage.join(catalog.metadata, s.path)}")
            for s in catalog.sources
            if names is None or s.name in names
        ]


def _of_before(project: Project, thing: Made) -> bool:
    """Whether it comes from another state of the dataset, whose crops may have been others."""
    datasets = filter(None, map(made.dataset_of, made.family(thing.facts)))
    return any(digest != project.current for digest, _ in datasets)


def how_to_get(digest: str) -> str:
    """What to do about a dataset whose index is not at hand."""
    return (
        "another state of the dataset than the index at hand. Its card names it: find the commit "
        f"with `git log --oneline -S {digest} -- dataset_cards`, get its index with `dvc get . "
        f"data/{MANIFESTS['shard']} --rev COMMIT -o old.parquet`, and add --index old.parquet"
    )


# --- forward ---------------------------------------------------------------------------------

LEARNED, USED = "learned from it", "was given it"
SPARED, UNKNOWN = "same dataset, other split", "cannot be told"


@dataclass(frozen=True)
class Touched:
    """What a made file has to do with the clips asked for."""

    path: str
    kind: str
    relation: str
    detail: str


@dataclass
class Forward:
    """Everything that clips went into."""

    asked: Asked
    taken_down: bool
    stages: dict[str, dict[str, int]]
    tars: dict[str, list[str]]
    """By the index that holds them."""
    clips: pa.Table | None
    made: list[Touched]
    damaged: list[str]


def forward(project: Project, asked: Asked, roots: Sequence[str | Path]) -> Forward:
    """Find what holds the clips, and what learned from them or was given them."""
    # What was forgotten is in no index any more; the ledger still knows where it was.
    book, request = ledger.read(project.params), Request(asked.kind, asked.id)
    past = book.get(request.digest, ledger.Held())
    tables = {digest: asked.rows(index.clips) for digest, index in project.indexes.items()}
    held = {digest: table for digest, table in tables.items() if len(table)}
    files = {sha256: "a file that was deleted" for _, sha256 in past.files}
    files |= {s: k for table in held.values() for s, k in project.files_of(table).items()}
    found = list(made.find(roots))
    if any(_of_before(project, thing) for thing in found if not isinstance(thing, UserError)):
        files = project.earlier_files_of(asked) | files
    touched: dict[Path, Touched] = {}
    grew = True
    while grew:
        grew = False
        for thing in found:
            if isinstance(thing, UserError) or thing.path in touched:
                continue
            if relation := _relation(thing, tables, files, partial(book.was_in, request)):
                touched[thing.path] = Touched(str(thing.path), thing.kind, *relation)
                if thing.kind == "person" and relation[0] in (LEARNED, USED):
                    # Videos know their person by its digest alone.
                    files[storage.sha256(thing.path)] = str(thing.path)
                    grew = True
    order = (LEARNED, USED, UNKNOWN, SPARED)
    by_weight = sorted(touched.values(), key=lambda one: (order.index(one.relation), one.path))
    return Forward(
        asked=asked,
        taken_down=project.is_taken_down(asked),
        stages={stage: dict(n) for stage, n in project.known_as(asked).items()},
        tars={
            project.indexes[digest].url: sorted(
                f"{s}.tar" for s in table["shard"].unique().to_pylist()
            )
            for digest, table in held.items()
        },
        clips=pa.concat_tables(held.values()) if held else None,
        made=by_weight,
        damaged=[str(one) for one in found if isinstance(one, UserError)],
    )


def _relation(
    thing: Made,
    tables: dict[str, pa.Table],
    files: dict[str, str],
    was_in: Callable[..., bool | None],
) -> tuple[str, str] | None:
    """How a file relates to the clips; None: it has nothing to do with them."""
    spared: tuple[str, str] | None = None
    unknown: tuple[str, str] | None = None
    for facts in made.family(thing.facts):
        for one in made.inputs(facts):
            if one.sha256 in files:
                return USED, f"as its {one.kind}: {files[one.sha256]}"
        dataset = made.dataset_of(facts)
        if dataset is None:
            continue
        digest, split = dataset
        if digest not in tables:
            if was_in(digest, split):
                words = f"from {split or 'all'} of the dataset {digest[:16]}, as the ledger tells"
                return LEARNED, words
            if was_in(digest):
                spared = SPARED, f"from {split}, and these clips were in another"
                continue
            if was_in(digest) is False:
                continue
            unknown = UNKNOWN, f"from the dataset {digest}, whose index is not at hand"
            continue
        splits = set(tables[digest]["split"].to_pylist())
        if thing.kind == "evaluation" and split in splits:
            return USED, f"from {split} of the dataset {digest[:16]}, to be measured on"
        if split in splits or (splits and not split):
            return LEARNED, f"from {split or 'all'} of the dataset {digest[:16]}"
        if splits:
            spared = SPARED, f"from {split}, and these clips are in {', '.join(sorted(splits))}"
    return unknown or spared


def as_json(node: Node) -> dict[str, Any]:
    """A node as plain values."""
    plain: dict[str, Any] = {
        key: getattr(node, key) for key in ("kind", "name", "sha256", "about", "note")
    }
    plain["from"] = [as_json(one) for one in node.made_from]
    return {key: value for key, value in plain.items() if value}
