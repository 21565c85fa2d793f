"""Which people, which of their frames, and who drives whom: fixed by the seed and written down.

For each person the video with most frames that show a face is taken. Of these frames `holdout`
are held out, in evenly spread runs of `RUN` neighbours, for jitter is a matter of neighbours; of
the rest T are the sources, for the largest T that is to be had, and smaller T's are a part of
them. A *frame* is numbered as in `training.episodes`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import Any

import numpy as np

from pipelines import storage
from pipelines.errors import UserError
from pipelines.params.training import Evaluate
from training.episodes import Points
from training.index import ShardIndex, VideoKey
from training.metrics import motion

Frames = tuple[int, ...]
Json = dict[str, Any]

RUN = 4
"""Held-out frames that stand next to each other."""

STUDY_FRAMES = 4
"""Real frames for the user study for each T: two triplets, one for FF and one for FT."""


@dataclass(frozen=True, slots=True)
class Part:
    """One person's part."""

    video: VideoKey
    sources: Mapping[int, Frames]
    """T to T frames; each part of the next."""
    holdout: Frames
    """To be rendered; never among the sources."""
    others: Frames
    """Real frames of the same video to set against the held-out ones: at most as many."""
    study: Frames
    """Real frames for the user study, of the person's other videos as far as these have any."""
    driver: int | None = None
    """Whose held-out frames drive this person in cross-reenactment: a place in the protocol."""

    @property
    def person(self) -> str:
        """Told by source: each measures its own, also where an id stands in several."""
        return f"{self.video.source}/{self.video.person}"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Who takes no part, or not with every T."""

    person: str
    shots: Frames
    """T's that could not be had."""
    why: str


@dataclass(frozen=True, slots=True)
class Protocol:
    """Everybody's part."""

    parts: tuple[Part, ...]
    left_out: tuple[LeftOut, ...]


def spread(count: int, chosen: int) -> list[int]:
    """`chosen` evenly spread places among `count`, or all of them where there are fewer."""
    chosen = min(chosen, count)
    return [(2 * i + 1) * count // (2 * chosen) for i in range(chosen)]


def runs(count: int, chosen: int) -> list[int]:
    """`chosen` places among `count`, in evenly spread runs of `RUN`; without room, as `spread`."""
    wanted, room = -(-chosen // RUN), count // RUN
    if room < wanted:
        return spread(count, chosen)
    places = [RUN * start + i for start in spread(room, wanted) for i in range(RUN)]
    return places[:chosen]


def apart(protocol: Protocol, index: ShardIndex) -> float:
    """Frames of a clip that lie between neighbours, median, where jitter is measured; or NaN."""
    gaps = []
    for part in protocol.parts:
        clips = np.array([index.clip_of(frame) for frame in part.holdout])
        numbers = index.numbers[np.array(part.holdout)]
        gaps.append(np.diff(numbers)[motion.close(clips, numbers)])
    every = np.concatenate(gaps)
    return float(np.median(every)) if len(every) else float("nan")


def choose(
    index: ShardIndex, points: Callable[[int], Points], settings: Evaluate, split: str
) -> Protocol:
    """The protocol of a split; `points` gives a frame's landmarks, NaN where no face was found.

    People come in an order that depends on the seed and their names alone, until there are
    `people` who can take part with one T at least. Raises UserError where nobody can.
    """
    videos: dict[tuple[str, str], list[int]] = {}
    for video, key in enumerate(index.videos):
        videos.setdefault((key.source, key.person), []).append(video)
    parts: list[Part] = []
    left_out: list[LeftOut] = []
    for name in sorted(videos, key=lambda name: storage.digest(settings.seed, *name)):
        if len(parts) == settings.people:
            break
        faces = {
            video: [f for f in index.frames_of(video) if np.isfinite(points(f)).all()]
            for video in videos[name]
        }
        part, missing = _part(index, faces, settings)
        if part:
            parts.append(part)
        if missing:
            left_out.append(missing)
    if not parts:
        raise UserError(
            f"evaluate: nobody in split {split!r} has a video with "
            f"{settings.holdout + min(settings.shots)} stored frames that show a face, for "
            f"holdout {settings.holdout} and T = {min(settings.shots)}; take smaller ones"
        )
    return Protocol(_paired(parts), tuple(left_out))


def _part(
    index: ShardIndex, faces: Mapping[int, list[int]], settings: Evaluate
) -> tuple[Part | None, LeftOut | None]:
    video = max(faces, key=lambda v: len(faces[v]))  # the first of equals
    seen, key = faces[video], index.videos[video]
    held = {seen[at] for at in runs(len(seen), settings.holdout)}
    rest = [frame for frame in seen if frame not in held]
    fitting = sorted({t for t in settings.shots if t <= len(rest)})
    lacking = tuple(sorted(set(settings.shots) - set(fitting)))
    why = (
        f"{len(seen)} stored frames of video {key.video} show a face, "
        f"{settings.holdout} of them are held out"
    )
    missing = LeftOut(f"{key.source}/{key.person}", lacking, why) if lacking else None
    if not fitting:
        return None, missing
    most = [rest[at] for at in spread(len(rest), fitting[-1])]
    sources = {t: tuple(most[at] for at in spread(len(most), t)) for t in fitting}
    others = tuple(rest[at] for at in spread(len(rest), settings.holdout))
    wanted = STUDY_FRAMES * len(settings.shots)
    elsewhere = [
        [frames[at] for at in spread(len(frames), wanted)]
        for v, frames in faces.items()
        if v != video and frames
    ]
    # One of each other video, then the next of each: the paper shows three different sequences.
    study = [f for f in chain.from_iterable(zip_longest(*elsewhere)) if f is not None]
    study = [*study, *others][:wanted]
    return Part(key, sources, tuple(sorted(held)), others, tuple(study)), missing


def _paired(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Each is driven by the next in the seed's order, the last by the first."""
    if len(parts) < 2:
        return tuple(parts)
    return tuple(replace(p, driver=(at + 1) % len(parts)) for at, p in enumerate(parts))


# --- frames.json -----------------------------------------------------------------------------


def to_json(protocol: Protocol, index: ShardIndex, facts: Json) -> bytes:
    """frames.json: frames as [clip key, frame number in the clip]."""

    def named(frames: Frames) -> list[list[Any]]:
        return [[index.keys[index.clip_of(f)].as_py(), int(index.numbers[f])] for f in frames]

    people = [
        {
            **part.video._asdict(),
            "clips": sorted({key for key, _ in named((*part.holdout, *part.others))}),
            "driver": None if part.driver is None else protocol.parts[part.driver].person,
            "sources": {str(t): named(frames) for t, frames in part.sources.items()},
            "holdout": named(part.holdout),
            "others": named(part.others),
            "study": named(part.study),
        }
        for part in protocol.parts
    ]
    left = [{"person": x.person, "shots": list(x.shots), "why": x.why} for x in protocol.left_out]
    document = {**facts, "people": people, "left_out": left}
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def from_json(data: bytes, index: ShardIndex, url: str) -> Protocol:
    """The protocol of an earlier evaluation.

    Raises UserError where its frames are not there or not of whom it says, or where what an
    evaluation needs lacks.
    """
    video_of = np.repeat(np.arange(len(index.videos)), np.diff(index.first_clip))
    owners = (index.videos[video] for video in video_of.tolist())
    # By person too: a key is a clip's own only within its source.
    clips = {
        (of.source, of.person, key): clip
        for clip, (of, key) in enumerate(zip(owners, index.keys.to_pylist(), strict=True))
    }

    def number(of: VideoKey, key: str, frame: int) -> int:
        clip = clips.get((of.source, of.person, key))
        if clip is not None:
            first, last = index.first_frame[clip], index.first_frame[clip + 1]
            for at in np.flatnonzero(index.numbers[first:last] == frame):
                return int(first + at)
        raise ValueError(f"{of.source}/{of.person} has no frame {frame} of a clip {key}")

    def part(p: Json, names: Sequence[str]) -> Part:
        of = VideoKey(p["source"], p["person"], p["video"])
        if of not in index.videos:
            raise ValueError(f"there is no video {of}")

        def numbers(frames: Sequence[tuple[str, int]]) -> Frames:
            return tuple(number(of, key, frame) for key, frame in frames)

        return Part(
            of,
            {int(t): numbers(frames) for t, frames in p["sources"].items()},
            numbers(p["holdout"]),
            numbers(p["others"]),
            numbers(p["study"]),
            None if p["driver"] is None else names.index(p["driver"]),
        )

    try:
        document = json.loads(data)
        people = document["people"]
        names = [f"{p['source']}/{p['person']}" for p in people]
        parts = tuple(part(p, names) for p in people)
        left = [LeftOut(x["person"], tuple(x["shots"]), x["why"]) for x in document["left_out"]]
        _check(parts)
        return Protocol(parts, tuple(left))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        kind = "" if type(error) is ValueError else f"{type(error).__name__} "
        raise UserError(
            f"{url} does not name frames of this split: {kind}{error}; leave "
            "`evaluate.frames` out to choose anew"
        ) from None


def _check(parts: Sequence[Part]) -> None:
    """Raises ValueError where nothing could be measured."""
    if not parts:
        raise ValueError("`people` names nobody")
    for part in parts:
        for name in ("sources", "holdout", "others", "study"):
            if not getattr(part, name):
                raise ValueError(f"`{name}` of {part.person} names none")
        for shots, frames in part.sources.items():
            if not frames or len(frames) != shots:
                raise ValueError(f"`sources` of {part.person} for T = {shots} names {len(frames)}")
