"""takedowns.csv: who was taken out. The catalog honours it; others ask it what is in force."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipelines import storage
from pipelines.errors import UserError, nearest
from pipelines.schemas import PLAIN_NAME
from pipelines.sources.base import Annotation

KINDS = ("person", "video", "clip")


@dataclass(frozen=True)
class Takedowns:
    """Identifiers that must not appear in anything made after the catalog."""

    lines: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Where each kind and identifier is first named."""

    def covering(self, row: Annotation, key: str) -> list[tuple[str, str]]:
        """The kinds and identifiers by which a clip was taken out."""
        named = ("person", row.person), ("video", row.video), ("clip", key)
        return [one for one in named if one in self.lines]

    def named_in(self, text: str) -> list[tuple[str, str]]:
        """The kinds and identifiers of those taken out that a text names."""
        names = "|".join(map(re.escape, dict.fromkeys(name for _, name in self.lines)))
        whole = rf"(?<![A-Za-z0-9-])(?:{names})(?![A-Za-z0-9-])"
        found = set(re.findall(whole, text.replace("/", "_"))) if names else set()
        return [(kind, name) for kind, name in self.lines if name in found]


def read_takedowns(path: str) -> Takedowns:
    """Read takedowns.csv: columns kind (person, video, clip), id, date, reason.

    Raises UserError naming the line: a takedown that cannot be read must stop the rebuild.
    """
    try:
        data = storage.read_bytes(path)
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing; make it with the header line kind,id,date,reason"
        ) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not UTF-8 text") from None
    lines: dict[tuple[str, str], int] = {}
    reader = csv.DictReader(io.StringIO(text), skipinitialspace=True, strict=True)
    try:
        if not {"kind", "id"} <= set(reader.fieldnames or []):
            raise UserError(f"{path}:1: expected the header kind,id,date,reason")
        for row in reader:
            kind, name = (row["kind"] or "").strip().lower(), (row["id"] or "").strip()
            # A clip may be written as its key or as person/video/utterance.
            name = name.replace("/", "_") if kind == "clip" else name
            # An address in place of an id would match nothing, in silence.
            if kind not in KINDS or not PLAIN_NAME.fullmatch(name):
                hint = nearest(kind, KINDS) if kind not in KINDS else ""
                raise UserError(
                    f"{path}:{reader.line_num}: expected person, video or clip and an id, "
                    f"found {kind!r}, {name!r}{hint}"
                )
            lines.setdefault((kind, name), reader.line_num)
    except csv.Error as error:  # an open quote would swallow the lines below it
        raise UserError(f"{path}:{reader.line_num + 1}: not a row of CSV: {error}") from None
    return Takedowns(lines)
