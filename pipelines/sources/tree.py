"""The walk over `<person>/<video>/<utterance>.<suffix>` trees, in order and in flat memory."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipelines.sources.base import BadRow, RowError, SourceError, bad_row, check_identifiers
from pipelines.sources.text import unread, why


@dataclass(frozen=True, slots=True)
class Leaf:
    """One utterance's file."""

    person: str
    video: str
    utterance: str
    split: str | None
    path: str
    root: str

    def bad(self, reason: object, line: int | None = None) -> BadRow:
        """Report this file, and a line of it if known, as unreadable."""
        where = os.path.relpath(self.path, self.root)
        where = where if line is None else f"{where}:{line}"
        return bad_row(where, reason, self.person, self.video, self.utterance)


class _Pending(NamedTuple):
    above: tuple[str, ...]
    entry: os.DirEntry[str]
    split: str


class _Found(NamedTuple):
    parts: tuple[str, ...]
    path: str
    split: str
    problem: str = ""


def walk(root: Path, inner: str, suffixes: Collection[str]) -> Iterator[Leaf | BadRow]:
    """Yield the files of a tree by (person, video, utterance), one person in memory at a time.

    People lie in `root`, or in `[dev/|test/][inner/]` below it (what the publishers' archives
    unpack to); `test` sets the split. Hidden files (`._00001.txt`), `__MACOSX` and files of
    other kinds are passed over; a file of a wanted kind at another depth is a BadRow.
    """
    layout = f"<person>/<video>/<utterance>{'|'.join(sorted(suffixes))}"
    people: dict[str, list[_Pending]] = {}
    for folder, split in _people_folders(root, inner):
        try:
            for entry in _entries(folder):
                people.setdefault(entry.name, []).append(_Pending((), entry, split))
        except OSError as error:
            raise SourceError(f"{folder}: {why(error)}; make the folder readable") from error
    empty = True
    for person in sorted(people):
        last: Leaf | None = None
        for found in sorted(_files(people[person], suffixes), key=_order):
            empty = False
            try:
                if found.problem:
                    raise RowError(found.problem)
                if len(found.parts) != 3:
                    raise RowError(f"not at the depth of {layout}")
                check_identifiers(*found.parts)
                if last and found.parts == (last.person, last.video, last.utterance):
                    raise RowError(f"the same clip as {os.path.relpath(last.path, root)}")
            except RowError as error:
                yield bad_row(os.path.relpath(found.path, root), error, *found.parts[:3])
            else:
                last = Leaf(*found.parts, found.split or None, found.path, str(root))
                yield last
    if empty:
        raise SourceError(f"{root}: holds no {layout}; name the folder that has the people in it")


def _order(found: _Found) -> tuple[tuple[str, ...], bool, str]:
    """Order by identifiers; of a clip in `dev` and `test` the first, the held-out one, is kept."""
    return found.parts, not found.split, found.path


def _people_folders(root: Path, inner: str) -> list[tuple[str, str]]:
    try:
        if not root.exists():
            raise SourceError(f"{root}: no such folder; fetch the data or mend the path")
        if not root.is_dir():
            raise SourceError(f"{root}: not a folder; name the folder that has the people in it")
        folders = []
        for part, split in ((inner, ""), ("dev", ""), ("test", "test")):
            if (folder := root / part).is_dir():
                nested = folder / inner
                folders.append((str(nested if nested.is_dir() else folder), split))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise SourceError(f"{root}: {why(error)}; make the folder readable") from error
    return folders or [(str(root), "")]


def _files(start: Iterable[_Pending], suffixes: Collection[str]) -> Iterator[_Found]:
    pending = list(start)
    while pending:
        above, entry, split = pending.pop()
        wanted = _suffix(entry.name) in suffixes
        parts = (*above, os.path.splitext(entry.name)[0] if wanted else entry.name)  # noqa: PTH122
        try:
            # Links are followed to the depth of the layout and never below: no endless loops.
            is_link, at_files = entry.is_symlink(), len(above) >= 2
            is_folder = entry.is_dir(follow_symlinks=not at_files)
            if is_folder and is_link and _leads_up(entry.path):
                yield _Found(parts, entry.path, split, "a link to a folder above it; not followed")
            elif is_folder and not (wanted and at_files):
                below = (*above, entry.name)
                pending += [_Pending(below, child, split) for child in _entries(entry.path)]
            elif wanted and entry.is_file():
                yield _Found(parts, entry.path, split)
            elif wanted or (is_link and not at_files and not Path(entry.path).exists()):
                yield _Found(parts, entry.path, split, "not a regular file, or a broken link")
        except OSError as error:
            yield _Found(parts, entry.path, split, unread(error, entry.path))


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [e for e in entries if not e.name.startswith(".") and e.name != "__MACOSX"]


def _leads_up(link: str) -> bool:
    target = os.path.realpath(link).rstrip(os.sep) + os.sep
    return (os.path.realpath(Path(link).parent) + os.sep).startswith(target)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 (a million times; Path is slower)
