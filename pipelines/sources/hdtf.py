"""HDTF: spans of talking faces in high-resolution interviews and speeches, with fixed crops.

Layout: one folder with, for each of the lists RD (radio), WDA and WRA (weekly addresses):

    <list>_video_url.txt      name url
    <list>_annotion_time.txt  name.mp4 mm:ss-mm:ss [mm:ss-mm:ss ...]   (spelt so upstream)
    <list>_resolution.txt     name.mp4 lines-of-the-picture
    <list>_crop_wh.txt        name_i.mp4 x width y height              (pixels; i-th span from 0)

`crop_ratio` files are not needed. Times become frames at 25 per second. Names number the videos
of one person (BarbaraLee0, BarbaraLee1), except in RD, where each Radio<n> is another person.

Published by Zhang et al. (CVPR 2021), https://github.com/MRzzm/HDTF: lists without a licence
text of their own at the time of writing; the videos remain their owners'.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipelines.sources.base import (
    Annotation,
    BadRow,
    RowError,
    SourceError,
    bad_row,
    check_identifiers,
    in_order,
    one_box,
    quote,
)
from pipelines.sources.text import integer, names_in, read_list, words

LISTS = ("RD", "WDA", "WRA")
FPS = 25

_TIMES = "_annotion_time.txt"
_TIME = r"(?:([0-9]{1,2}):)?([0-9]{1,3}):([0-9]{2})"
_SPAN = re.compile(f"{_TIME}-{_TIME}")
_YOUTUBE = re.compile(r"https?://(?:[a-z]+\.)?(?:youtube(?:-nocookie)?\.com|youtu\.be)/")
_YOUTUBE_ID = re.compile(
    r"(?:[?&]v=|/(?:embed|shorts|live|v)/|youtu\.be/)([\w-]{11})(?![\w-])", re.A
)
_WEB = re.compile(r"https?://[!-~]+")


class _Table:
    """The values that a file states for each name."""

    def __init__(self, path: Path) -> None:
        self.file = path.name
        self.values: dict[str, set[tuple[str, ...]]] = {}
        for _, line in read_list(path, "fetch the whole HDTF_dataset folder"):
            try:
                name, *values = words(line)
            except RowError:
                continue  # whoever needs this line finds no value and says so
            self.values.setdefault(name.removesuffix(".mp4"), set()).add(tuple(values))

    def get(self, name: str, count: int) -> tuple[str, ...]:
        stated = self.values.get(name, set())
        if not stated:
            raise RowError(f"{self.file} has no readable line for {name}")
        if len(stated) > 1:
            raise RowError(f"{self.file} contradicts itself about {name}")
        (values,) = stated
        if len(values) != count:
            raise RowError(f"{self.file} gives {name} {len(values)} values instead of {count}")
        return values


@dataclass(frozen=True)
class _List:
    """The tables of one of the three lists."""

    name: str
    urls: _Table
    resolutions: _Table
    crops: _Table

    def person(self, name: str) -> str:
        return name if self.name == "RD" else name.rstrip("0123456789") or name

    def video(self, name: str) -> tuple[str, str | None]:
        """Return the video's id, and its URL where that is not YouTube's."""
        (url,) = self.urls.get(name, 1)
        if _YOUTUBE.match(url):
            if (found := _YOUTUBE_ID.search(url)) is None:
                raise RowError(f"{self.urls.file} gives {name} no video: {quote(url)}")
            return found[1], None
        if not _WEB.fullmatch(url):
            raise RowError(f"{self.urls.file} gives {name} no web address: {quote(url)}")
        return name, url

    def box(self, name: str, utterance: str) -> tuple[npt.NDArray[np.float32], int]:
        """Return the crop of a span, and the height of the picture it is measured in."""
        (lines,) = self.resolutions.get(name, 1)
        height = integer(f"the resolution of {name}", lines, low=1)
        values = self.crops.get(utterance, 4)
        x, w, y, h = (integer(f"the crop of {utterance}", value) for value in values)
        return one_box(x, y, w, h), height


def hdtf(path: Path) -> Iterator[Annotation | BadRow]:
    """Read the HDTF folder, whichever of its three lists are there."""
    names = names_in(path) or []
    times = [(name, path / file) for name in LISTS if (file := f"{name}{_TIMES}") in names]
    if not times:
        raise SourceError(f"{path}: no folder with *{_TIMES}; name HDTF's HDTF_dataset folder")
    return in_order(row for name, file in times for row in _read_list(name, file))


def _read_list(name: str, times: Path) -> Iterator[tuple[str, Annotation | BadRow]]:
    folder = times.parent
    tables = _List(
        name,
        *(_Table(folder / f"{name}_{kind}.txt") for kind in ("video_url", "resolution", "crop_wh")),
    )
    for number, line in read_list(times, "make the file readable"):
        where = f"{times.name}:{number}"
        try:
            file, *spans = words(line)
            if not spans:
                raise RowError(f"no time span after {quote(file)}")
        except RowError as error:
            yield where, bad_row(where, error)
            continue
        for index, span in enumerate(spans):
            yield where, _read_span(where, tables, file.removesuffix(".mp4"), index, span)


def _read_span(where: str, tables: _List, name: str, index: int, span: str) -> Annotation | BadRow:
    person, video, utterance = tables.person(name), "", f"{name}_{index}"
    try:
        check_identifiers(person, utterance)
        start, end = _seconds(span)
        video, url = tables.video(name)
        boxes, height = tables.box(name, utterance)
        return Annotation(
            person,
            video,
            utterance,
            first_frame=start * FPS,
            frames=(end - start) * FPS,
            fps=float(FPS),
            boxes=boxes,
            box_height=height,
            crop_ready=True,
            url=url,
        )
    except RowError as error:
        return bad_row(where, error, person, video, utterance)


def _seconds(span: str) -> tuple[int, int]:
    """Parse `mm:ss-mm:ss` or `h:mm:ss-h:mm:ss`."""
    if (found := _SPAN.fullmatch(span)) is None:
        raise RowError(f"{quote(span)} is not a time span mm:ss-mm:ss")
    h0, m0, s0, h1, m1, s1 = (int(part or 0) for part in found.groups())
    if max(s0, s1) > 59:
        raise RowError(f"{quote(span)} has more than 59 seconds in a minute")
    start, end = 3600 * h0 + 60 * m0 + s0, 3600 * h1 + 60 * m1 + s1
    if start >= end:
        raise RowError(f"{quote(span)} ends before it starts")
    return start, end
