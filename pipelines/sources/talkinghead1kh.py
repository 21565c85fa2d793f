"""TalkingHead-1KH tubes: face crops in chunks of YouTube videos; VFHQ is listed the same way.

Layout: `{train,small,val,vfhq}_video_tubes.txt`, rows `name, H, W, start, end, l, t, r, b`: the
frames start..end, both included, at the video's own rate, and a box in pixels of an H x W
picture. The name says where the frames count from:

    <video>_<NNNN>        the NNNN-th chunk of 60 s, cut by stream copy: it begins at the first
                          keyframe at or after 60 * NNNN seconds
    <video>_S<a>_E<b>     VFHQ: the whole video; a and b repeat start and end

No identities are published: each video counts as a person. `*_video_ids.txt` list downloads,
not clips. `small` is a sample of `train`, so it is passed over where both are there.

Published by Wang et al. (CVPR 2021), https://github.com/tcwang0509/TalkingHead-1KH: lists under
MIT, the videos by their authors under CC BY 3.0. VFHQ (Xie et al. 2022) has terms of its own:
https://liangbinxie.github.io/projects/vfhq/.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pipelines.sources.base import (
    Annotation,
    BadRow,
    RowError,
    SourceError,
    bad_row,
    in_order,
    one_box,
    quote,
)
from pipelines.sources.text import decode, integer, names_in, read_lines, read_list, unread

CHUNK_SECONDS = 60.0
_TUBES = "_video_tubes.txt"
_IDS = "_video_ids.txt"
_CHUNK = re.compile(r"([A-Za-z0-9_-]{11})_([0-9]{4,6})")
_WHOLE = re.compile(r"([A-Za-z0-9_-]{11})_S([0-9]{1,9})_E([0-9]{1,9})")


def talkinghead1kh(path: Path) -> Iterator[Annotation | BadRow]:
    """Read one tubes file, or every one in a folder."""
    return in_order(_read_all(path))


def _read_all(path: Path) -> Iterator[tuple[str, Annotation | BadRow]]:
    names = names_in(path)
    if names is None:
        if path.name.endswith(_IDS):
            raise SourceError(f"{path}: lists video ids, which name no clips; use *{_TUBES}")
        yield from _read_file(path, read_list(path, f"fetch *{_TUBES} or mend the path"))
        return
    for name in _choose(path, names):
        try:
            lines = read_lines(path / name)
        except OSError as error:
            yield name, bad_row(name, f"the file {unread(error, path / name)}")
        else:
            yield from _read_file(path / name, lines)


def _choose(folder: Path, names: list[str]) -> list[str]:
    tubes = [name for name in names if name.endswith(_TUBES) and not name.startswith(".")]
    if not tubes:
        ids = any(name.endswith(_IDS) for name in names)
        only = "only lists of video ids, which name no clips" if ids else f"no *{_TUBES}"
        raise SourceError(f"{folder}: holds {only}; unzip upstream's data_list.zip here")
    whole = f"train{_TUBES}" in tubes
    return [name for name in tubes if not (whole and name == f"small{_TUBES}")]


def _read_file(
    file: Path, lines: list[tuple[int, bytes]]
) -> Iterator[tuple[str, Annotation | BadRow]]:
    split = "val" if file.name.startswith("val_") else None
    for number, line in lines:
        where = f"{file.name}:{number}"
        yield where, _read_tube(where, line, split)


def _read_tube(where: str, line: bytes, split: str | None) -> Annotation | BadRow:
    video = ""
    try:
        cells = [cell.strip() for cell in decode(line).split(",")]
        if len(cells) != 9:
            raise RowError(f"{len(cells)} values, not the 9 of name, H, W, start, end, l, t, r, b")
        height, _width = (integer("H or W", cell, low=1) for cell in cells[1:3])
        start = integer("start", cells[3], low=0)
        end = integer("end", cells[4], low=start)
        left, top, right, bottom = (integer("l, t, r or b", cell) for cell in cells[5:])
        video, chunk, segment_start = _parse_name(cells[0], start, end)
        return Annotation(
            video,
            video,
            # The box belongs to the name, as upstream: two faces may share the same frames.
            f"{chunk}_S{start}_E{end}_L{left}_T{top}_R{right}_B{bottom}",
            first_frame=start,
            frames=end - start + 1,
            fps=None,
            segment_start=segment_start,
            boxes=one_box(left, top, right - left, bottom - top),
            box_height=height,
            crop_ready=True,
            split=split,
        )
    except RowError as error:
        return bad_row(where, error, video, video)


def _parse_name(name: str, start: int, end: int) -> tuple[str, str, float]:
    """Return the video, the chunk and the second at or after which its frames count."""
    if (chunk := _CHUNK.fullmatch(name)) is not None:
        return chunk[1], chunk[2], CHUNK_SECONDS * int(chunk[2])
    if (whole := _WHOLE.fullmatch(name)) is None:
        raise RowError(f"the name {quote(name)} is neither <video>_<NNNN> nor <video>_S<a>_E<b>")
    if (int(whole[2]), int(whole[3])) != (start, end):
        raise RowError(f"the name {quote(name)} contradicts the frames {start}..{end}")
    return whole[1], "whole", 0.0
