"""What the requests cover: whose clips, which videos nobody else needs, and by what names.

The annotations say it, and the catalog as it was last built, in case a list has changed since.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines import progress, storage
from pipelines.clip_keys import clip_key
from pipelines.download import video_name
from pipelines.errors import UserError
from pipelines.forget.requests import Request
from pipelines.forget.search import Names
from pipelines.manifest import ManifestReader
from pipelines.params import Params
from pipelines.schemas import IDENTITY
from pipelines.sources import READERS
from pipelines.sources.base import BadRow, SourceError
from pipelines.statuses import Status

Row = Mapping[str, Any]


@dataclass
class Forgotten:
    """The requests, and what follows from them for every clip and every video."""

    requests: Sequence[Request]
    known: set[tuple[str, str]] = field(default_factory=set)
    """(kind, id) of the requests that the annotations or the catalog know."""
    videos: dict[str, Request] = field(default_factory=dict)
    """Videos, as downloads.parquet calls them, that nobody who stays has a clip of."""
    ids: dict[str, Request] = field(default_factory=dict)
    """The same videos by their bare id, and clips as person/video/utterance."""
    shared: set[str] = field(default_factory=set)
    """Videos of theirs that others who stay need too."""
    staying: set[str] = field(default_factory=set)
    """Identifiers of those who stay."""
    unread: list[str] = field(default_factory=list)
    """Sources whose annotations could not be read."""

    def __post_init__(self) -> None:
        self._by_id = {(r.kind, r.id): r for r in reversed(self.requests)}

    def request(self, person: str, video: str, key: str) -> Request | None:
        """The request that takes out a clip."""
        names = (("person", person), ("video", video), ("clip", key))
        return next((self._by_id[name] for name in names if name in self._by_id), None)

    def of_row(self, row: Row) -> Request | None:
        """The request that takes out a row of any manifest, or the facts of a sample."""
        if "person" in row:
            return self.request(row["person"], row["video"], row.get("key", ""))
        # Of a downloads row: the id, or for ready crops source/person/id (of old ones person/id).
        video: str = row["video"]
        who, _, name = video.rpartition("/")
        person = who.rpartition("/")[2]
        return self.videos.get(video) or self.request(person, name, "") or self.ids.get(name)

    def all_of_row(self, row: Row) -> list[Request]:
        """Every request that a row falls under: a clip's own besides its person's."""
        if "person" not in row:
            return [request] if (request := self.of_row(row)) else []
        names = (("person", row["person"]), ("video", row["video"]), ("clip", row.get("key", "")))
        return [self._by_id[name] for name in names if name in self._by_id]

    def names(self) -> Names:
        """All their names, to look for in bytes; labels name the line, never the id."""
        labels = {name: f"{label(r)} (by a name that follows)" for name, r in self.ids.items()}
        labels |= {request.id: label(request) for request in self.requests}
        return Names(labels, self.staying)


def label(request: Request) -> str:
    """What a finding calls a request: reports get kept, so the id is not repeated in them."""
    return f"the {request.kind} of line {request.line}"


def whose(params: Params, requests: Sequence[Request]) -> Forgotten:
    """Read the annotations, and the catalog where there is one, for what the requests cover."""
    forgotten = Forgotten(requests)
    gone: dict[str, Request] = {}
    gone_ids: dict[str, Request] = {}
    stay: set[str] = set()
    stay_ids: set[str] = set()
    staying_people: set[str] = set()
    staying_keys: set[str] = set()
    with_keys = any(request.kind == "clip" for request in requests)
    with progress.simple("annotations", "clips", None) as tick:
        for number, row in enumerate(_rows(params, forgotten), 1):
            if number % 1000 == 0:
                tick(1000)
            person, video, key = row["person"], row["video"], row["key"]
            forgotten.known |= {("person", person), ("video", video), ("clip", key)} & set(
                forgotten._by_id
            )
            request = forgotten.request(person, video, key)
            if request is None:
                stay.add(video_name(dict(row)))
                stay_ids.add(video)
                staying_people.add(person)
                if with_keys:
                    staying_keys.add(key)
            else:
                gone.setdefault(video_name(dict(row)), request)
                gone_ids.setdefault(video, request)
                if request.kind == "clip":
                    forgotten.ids[f"{person}/{video}/{row['utterance']}"] = request
    forgotten.videos = {name: request for name, request in gone.items() if name not in stay}
    forgotten.shared = gone.keys() & stay
    forgotten.ids |= {name: r for name, r in gone_ids.items() if name not in stay_ids}
    forgotten.staying = stay_ids | staying_people | staying_keys
    return forgotten


def _rows(params: Params, forgotten: Forgotten) -> Iterator[Row]:
    """Every annotated clip, and every clip of the catalog that was not taken out before."""
    root = Path(params.catalog.metadata)
    for source in params.catalog.sources:
        try:
            for item in READERS[source.reader](root / source.path):
                if not isinstance(item, BadRow):
                    key = clip_key(item.person, item.video, item.utterance)
                    row = {"source": source.name, "person": item.person, "video": item.video}
                    yield row | {"key": key, "utterance": item.utterance, "media": item.media}
        except (SourceError, OSError) as error:
            forgotten.unread.append(f"{source.name}: {error}")
    url = params.paths.manifest("catalog")
    if not storage.exists(url):
        return
    columns = [*IDENTITY, "media", "status"]
    try:
        for batch in ManifestReader(url, columns).batches():
            for row in batch.to_pylist():
                if row["status"] not in (Status.EXCLUDED, Status.BAD_ANNOTATION):
                    yield row
    except UserError:
        return  # a damaged catalog tells nothing; the annotations have been read


def unknown(forgotten: Forgotten) -> Iterable[Request]:
    """Requests that name nobody in the annotations or the catalog."""
    return (r for r in forgotten.requests if (r.kind, r.id) not in forgotten.known)
