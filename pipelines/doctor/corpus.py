"""How much there is to do: clips, videos and seconds of a catalog, counted, not guessed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from pipelines import storage
from pipelines.catalog import filtered
from pipelines.clip_keys import clip_key
from pipelines.doctor import rates
from pipelines.download import video_name
from pipelines.errors import UserError
from pipelines.manifest import ManifestReader
from pipelines.params import Params
from pipelines.site.fetch import mirror_urls
from pipelines.sources import READERS, metadata_folder
from pipelines.sources.base import BadRow, SourceError
from pipelines.statuses import Status
from pipelines.takedowns import read_takedowns
from pipelines.video.probe import MediaError, Probe, probe

SAMPLE = 24
"""Videos that are looked for in a mirror's folder, at least where there are as many."""


@dataclass(frozen=True)
class Corpus:
    """What a rebuild has to work through."""

    name: str
    people: int
    videos: int
    clips: int
    clip_seconds: float
    video_seconds: float
    """Of all videos together, whole."""
    megapixels: float
    """Of a source frame."""
    in_place: int = 0
    """Videos that are read where they lie: in a mirror's folder, or cut already."""
    in_place_seconds: float = 0.0
    mirror: tuple[int, int] | None = None
    """Videos that a mirror's folder holds, and how many were looked for; None: it was not asked."""
    counted_from: str = ""

    @property
    def frames(self) -> float:
        """Of all clips at 25 fps."""
        return self.clip_seconds * 25


def voxceleb2(params: Params) -> Corpus:
    """All of VoxCeleb2 as its authors state it, at the resolution of params.yaml."""
    return Corpus(
        "VoxCeleb2, full",
        people=6_112,
        videos=145_569,
        clips=1_128_246,
        clip_seconds=2_442 * 3600,
        video_seconds=145_569 * rates.VIDEO_SECONDS,
        megapixels=site_megapixels(params),
        counted_from="the published totals",
    )


def site_megapixels(params: Params) -> float:
    """Of a frame as the site gives it."""
    height = params.download.max_height
    return height * height * rates.ASPECT / 1e6


def count(params: Params) -> Corpus:
    """Count the catalog, or the annotations where it is not built yet.

    Raises UserError where neither can be read.
    """
    people: set[str] = set()
    clips, seconds = 0, 0.0
    ends: dict[str, tuple[float, int]] = {}
    local: set[str] = set()
    built = _is_built(params)
    for row in _catalog(params) if built else _annotations(params):
        people.add(row["person"])
        fps = row["fps"] or 25.0
        length = row["frames"] / fps if row["frames"] else rates.CLIP_SECONDS
        clips, seconds = clips + 1, seconds + length
        name = video_name(row)
        end = (row["segment_start"] or 0.0) + (row["first_frame"] or 0) / fps + length
        last, number = ends.get(name, (0.0, 0))
        if row["media"]:
            local.add(name)
            end = last + length
        ends[name] = (max(last, end), number + 1)
    if not clips:
        raise UserError("the catalog has no clip to work on: nothing to plan")
    # Of n clips scattered evenly the last ends at n/(n+1) of the video.
    lengths = {v: e if v in local else e * (n + 1) / n for v, (e, n) in ends.items()}
    return _with_mirror(
        params,
        Corpus(
            params.name,
            people=len(people),
            videos=len(ends),
            clips=clips,
            clip_seconds=seconds,
            video_seconds=sum(lengths.values()),
            megapixels=224 * 224 / 1e6 if len(local) == len(ends) else site_megapixels(params),
            in_place=len(local),
            in_place_seconds=sum(lengths[video] for video in local),
            counted_from="catalog.parquet" if built else "the annotations",
        ),
        sorted(ends.keys() - local),
    )


def _is_built(params: Params) -> bool:
    """Whether the catalog that is there is of these sources: another params.yaml may share it."""
    url = params.paths.manifest("catalog")
    if not storage.exists(url):
        return False
    there: set[str] = set()
    for batch in ManifestReader(url, ["source"]).batches():
        there.update(batch["source"].unique().to_pylist())
    return there == {source.name for source in params.catalog.sources}


def _catalog(params: Params) -> Iterator[dict[str, Any]]:
    columns = [
        "source",
        "person",
        "video",
        "utterance",
        "first_frame",
        "frames",
        "fps",
        "segment_start",
    ]
    reader = ManifestReader(params.paths.manifest("catalog"), [*columns, "media", "status"])
    for batch in reader.batches():
        yield from (row for row in batch.to_pylist() if row["status"] == Status.OK)


def _annotations(params: Params) -> Iterator[dict[str, Any]]:
    takedowns = read_takedowns(params.catalog.takedowns)
    root = metadata_folder(params.catalog.metadata)
    for source in params.catalog.sources:
        try:
            for item in READERS[source.reader](root / source.path):
                if isinstance(item, BadRow) or filtered(item, params.catalog.filters):
                    continue
                if not takedowns.covering(item, clip_key(item.person, item.video, item.utterance)):
                    yield {
                        "source": source.name,
                        "person": item.person,
                        "video": item.video,
                        "first_frame": item.first_frame,
                        "frames": item.frames,
                        "fps": item.fps,
                        "segment_start": item.segment_start,
                        "media": item.media,
                    }
        except SourceError as error:
            raise UserError(f"catalog.sources.{source.name}: {error}") from None


def _with_mirror(params: Params, corpus: Corpus, videos: list[str]) -> Corpus:
    """Sharpen the guess at the videos by those of them that a mirror's folder holds."""
    mirror = params.download.mirror
    if not videos or mirror is None or not storage.is_local(mirror) or "{env:" in mirror:
        return corpus
    looked_for = videos[:: max(1, len(videos) // SAMPLE)]
    seen = [facts for video in looked_for if (facts := _held(params, mirror, video))]
    corpus = replace(corpus, mirror=(len(seen), len(looked_for)))
    if not seen:
        return corpus
    share = len(seen) / len(looked_for)
    area = fmean(facts.width * facts.height / 1e6 for facts in seen)
    held_seconds = fmean(facts.seconds or 0.0 for facts in seen) * share * len(videos)
    fetched_seconds = (corpus.video_seconds - corpus.in_place_seconds) * (1 - share)
    in_place_seconds = corpus.in_place_seconds + held_seconds
    return replace(
        corpus,
        megapixels=share * area + (1 - share) * corpus.megapixels,
        video_seconds=in_place_seconds + fetched_seconds,
        in_place=corpus.in_place + round(share * len(videos)),
        in_place_seconds=in_place_seconds,
        counted_from=f"{corpus.counted_from} and {len(seen)} videos of the mirror",
    )


def _held(params: Params, mirror: str, video: str) -> Probe | None:
    """A video of a mirror's folder, where it has it and it is one."""
    for url in mirror_urls(mirror, video, params.download.extensions):
        if storage.exists(url):
            try:
                return probe(storage.local_path(url))
            except (MediaError, OSError):
                return None
    return None
