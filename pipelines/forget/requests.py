"""takedowns.csv: reading its lines with their numbers, and adding to it."""

from __future__ import annotations

import csv
import datetime
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipelines import storage
from pipelines.errors import UserError, nearest
from pipelines.schemas import PLAIN_NAME
from pipelines.takedowns import KINDS, read_takedowns

COLUMNS = ("kind", "id", "date", "reason")
LONGEST = {"person": 100, "video": 100, "clip": 302}
"""Characters of an id, as the catalog has them; a clip's key joins three."""
_CLIP = re.compile(r"[A-Za-z0-9_-]+_[A-Za-z0-9_-]+_[A-Za-z0-9_-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
YOUTUBE_ID = 11
"""Characters of a video's id at YouTube."""
_FORMULA = ("=", "+", "-", "@")
"""What a spreadsheet takes a cell's text for a formula by."""


@dataclass(frozen=True)
class Request:
    """One line of takedowns.csv."""

    kind: str
    id: str
    line: int = 0
    date: str = ""
    reason: str = ""

    @property
    def digest(self) -> str:
        """Stands for it in the ledger."""
        return storage.digest("takedown", self.kind, self.id)


def read(path: str) -> list[Request]:
    """The requests in force. Raises UserError naming the line that cannot be read."""
    return [Request(kind, name, line) for (kind, name), line in read_takedowns(path).lines.items()]


def read_list(path: str, date: str, reason: str) -> list[Request]:
    """Requests from a file in takedowns.csv's own layout, with or without its header.

    Lines without a date or a reason get those given. Raises UserError naming file and line.
    """
    try:
        text = storage.read_bytes(path).decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"--list {path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"--list {path}: is a folder; name a file") from None
    except UnicodeDecodeError:
        raise UserError(f"--list {path}: not UTF-8 text") from None
    requests = []
    reader = csv.reader(io.StringIO(text), skipinitialspace=True, strict=True)
    try:
        for cells in reader:
            row = [cell.strip() for cell in cells]
            if not any(row) or [cell.lower() for cell in row[:2]] == ["kind", "id"]:
                continue
            kind, name, own_date, own_reason = (*row, "", "", "")[:4]
            try:
                requests.append(request(kind, name, own_date or date, own_reason or reason))
            except UserError as error:
                raise UserError(f"--list {path}:{reader.line_num}: {error}") from None
    except csv.Error as error:
        raise UserError(f"--list {path}:{reader.line_num + 1}: not a row of CSV: {error}") from None
    if not requests:
        raise UserError(f"--list {path}: names nothing; expected lines such as person,id00017")
    return requests


def request(kind: str, name: str, date: str, reason: str) -> Request:
    """A checked request. Raises UserError for what the catalog would not understand."""
    kind = kind.lower()
    if kind not in KINDS:
        raise UserError(f"expected person, video or clip, found {kind!r}{nearest(kind, KINDS)}")
    name = name.replace("/", "_") if kind == "clip" else name
    if not PLAIN_NAME.fullmatch(name) or len(name) > LONGEST[kind]:
        raise UserError(
            f"{kind} {name[:120]!r}: an id has letters, digits, - and _ alone, at most "
            f"{LONGEST[kind]}; give the id, not a link"
        )
    if kind == "clip" and not _CLIP.fullmatch(name):
        # Such a line would match no clip, and whoever asked would stay in.
        likely = "video" if len(name) == YOUTUBE_ID else "person"
        raise UserError(
            f"clip {name!r}: expected person_video_utterance; did you mean --{likely} {name}?"
        )
    try:
        datetime.date.fromisoformat(date)
    except ValueError:
        raise UserError(f"date {date!r}: expected YYYY-MM-DD") from None
    return Request(kind, name, 0, date, _plain(reason))


def _plain(text: str) -> str:
    """One line that no spreadsheet runs as a formula."""
    text = _CONTROL.sub(" ", text).strip()
    return f"'{text}" if text.startswith(_FORMULA) else text


def add(path: str, wanted: Iterable[Request]) -> list[Request]:
    """Append what is not there yet, keeping every byte that is; returns what was added.

    Raises UserError where the file that is there cannot be read.
    """
    if storage.exists(path):
        there = {(old.kind, old.id) for old in read(path)}
        data = storage.read_bytes(path)
    else:
        there, data = set(), (",".join(COLUMNS) + "\n").encode()
    new = [r for r in dict.fromkeys(wanted) if (r.kind, r.id) not in there]
    new = list({(r.kind, r.id): r for r in reversed(new)}.values())[::-1]
    if new:
        header = next(csv.reader(io.StringIO(data.decode("utf-8-sig")), skipinitialspace=True))
        gap = b"" if data.endswith(b"\n") else b"\n"
        storage.write_bytes(path, data + gap + _lines(header, new).encode())
    return new


def _lines(header: Sequence[str], requests: Iterable[Request]) -> str:
    sink = io.StringIO()
    writer = csv.DictWriter(sink, header, restval="", extrasaction="ignore", lineterminator="\n")
    for row in requests:
        writer.writerow({name: getattr(row, name) for name in COLUMNS})
    return sink.getvalue()
