"""What the sample corpus holds: which videos, which clips, and what is wrong with which of them."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

from pipelines.sample.portraits import PEOPLE
from pipelines.statuses import Status

HEALTHY, SCENE_CUT, FACELESS, CUT_SHORT, HTML, ABSENT = (
    "healthy", "scene cut", "faceless", "cut short", "html", "absent",
)  # fmt: skip


@dataclass(frozen=True)
class Clip:
    """One annotated utterance, on the 25 fps grid, and what must become of it."""

    person: str
    video: str
    utterance: str
    split: str
    first_frame: int
    frames: int
    stage: str
    """The stage that decides: `download`, `crop` or `landmarks`; empty for `ok`."""
    status: Status
    """Its verdict there. After a failed download the crop says `source_missing`."""


@dataclass(frozen=True)
class Video:
    """One annotated video and how it is made."""

    video: str
    person: str
    material: str
    fps: int
    frames25: int
    """Its length, in frames at 25 fps."""
    fault: str
    """What the server does before or instead of serving it; see `server.SampleServer`."""
    clips: tuple[Clip, ...]


# Ids with the two signs that trip shells and argument parsers, at either end.
_EDGES = {
    (0, 0): ("-", 0),
    (1, 1): ("_", 0),
    (2, 0): ("-", 10),
    (3, 1): ("_", 10),
    (5, 0): ("-", 0),
}

# Lengths of the videos, first frame and length of each utterance, all at 25 fps.
_TIMES = (
    (100, ((3, 44), (52, 46))),
    (110, ((0, 48), (54, 54))),
    (130, ((2, 38), (44, 40), (88, 40))),
)

_BROKEN = (
    # person, material, fault, stage, verdict of its clips
    (0, ABSENT, "", "download", Status.REMOVED),  # the server answers 404
    (1, ABSENT, "410", "download", Status.REMOVED),
    (2, HTML, "", "download", Status.NOT_A_VIDEO),
    (3, CUT_SHORT, "", "download", Status.TRUNCATED),
    (4, FACELESS, "", "landmarks", Status.NO_FACE),
    (4, SCENE_CUT, "", "crop", Status.SCENE_CUT),
)


def videos(seed: int) -> tuple[Video, ...]:
    """Every annotated video of the corpus, sorted by person and name."""
    made = [_healthy(seed, person, n) for person in range(len(PEOPLE)) for n in range(2)]
    made += [_broken(seed, k) for k in range(len(_BROKEN))]
    return tuple(sorted(made, key=lambda v: (v.person, v.video)))


def _healthy(seed: int, person: int, n: int) -> Video:
    frames, times = _TIMES[(person + n) % 3]
    look = PEOPLE[person]
    video = video_id(f"{seed}/{look.person}/{n}", *_EDGES.get((person, n), ("", 0)))
    spans = [(first, count, "", Status.OK) for first, count in times]
    if (person, n) == (1, 0):
        # Annotated on a longer upload than the one the site serves now.
        spans.append((frames + 25, 50, "crop", Status.OUT_OF_RANGE))
    # One video is throttled at first: polite patience gets it.
    fault = "503:2" if (person, n) == (3, 0) else ""
    clips = tuple(
        Clip(look.person, video, f"{k:05d}", look.split, first, count, stage, status)
        for k, (first, count, stage, status) in enumerate(spans, 1)
    )
    fps = 30 if (person + n) % 2 else 25
    return Video(video, look.person, HEALTHY, fps, frames, fault, clips)


def _broken(seed: int, k: int) -> Video:
    person, material, fault, stage, status = _BROKEN[k]
    look = PEOPLE[person]
    video = video_id(f"{seed}/broken/{k}")
    frames, times = _TIMES[0]
    clips = []
    for number, (first, count) in enumerate(times, 1):
        # The scene cuts inside the second clip; the first is sound.
        sound = material == SCENE_CUT and number == 1
        verdict = ("", Status.OK) if sound else (stage, status)
        clips.append(Clip(look.person, video, f"{number:05d}", look.split, first, count, *verdict))
    return Video(video, look.person, material, 25, frames, fault, tuple(clips))


def video_id(text: str, sign: str = "", place: int = 0) -> str:
    """An 11-character id in YouTube's alphabet, with `sign` at `place` if given."""
    word = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode()[:11]
    return word[:place] + sign + word[place + 1 :] if sign else word
