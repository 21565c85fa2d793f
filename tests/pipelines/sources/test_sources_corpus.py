"""Every published file at hand parses, with counts taken from the files by other means."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from pipelines.sources import READERS
from pipelines.sources.base import Annotation, BadRow
from pipelines.sources.people import read_people


def read(name, path):
    rows = list(READERS[name](path))
    good = [row for row in rows if isinstance(row, Annotation)]
    clips = [(r.person, r.video, r.utterance) for r in good]
    assert clips == sorted(set(clips))
    return good, [row for row in rows if isinstance(row, BadRow)]


def lines(path):
    return [line for line in path.read_text("utf-8-sig").split("\n") if line.strip()]


@pytest.mark.parametrize(
    ("name", "folder"), [("voxceleb2", "voxceleb2"), ("voxceleb1", "genuine/voxceleb1_txt")]
)
def test_voxceleb(corpus, name, folder):
    root = corpus / "metadata" / folder
    files = {f.parts[-3:]: f for f in root.rglob("*.txt")}
    good, bad = read(name, root)
    assert not bad and len(good) == len(files)
    for row in good:
        file = files[row.person, row.video, f"{row.utterance}.txt"]
        text = file.read_text()
        rows = [line.split() for line in text.split("\n") if re.match(r"\d", line)]
        assert row.frames == len(rows) and row.first_frame == int(rows[0][0])
        np.testing.assert_array_equal(row.boxes, np.array([r[1:] for r in rows], np.float32))
        assert row.fv_conf == float(re.search(r"FV Conf\s*:\s*([\d.-]+)", text)[1])
        assert row.split == ("test" if "test" in file.relative_to(root).parts else None)


def test_vox_metadata(corpus):
    path = corpus / "metadata/genuine/vox-metadata.csv"
    clips = Counter()
    test_clips = set()
    for line in lines(path)[1:]:
        video, start, end, *_, partition, person = line.split(",")
        clips[person, video, start, end] += 1
        if partition == "test":
            test_clips.add((person, video, start, end))
    good, bad = read("vox_metadata", path)
    assert len(good) == len(clips) and len(bad) == clips.total() - len(clips)
    assert all("the same clip as" in row.reason for row in bad)
    assert sum(row.split == "test" for row in good) == len(test_clips)


def test_hdtf(corpus):
    folder = corpus / "metadata/genuine/hdtf"
    times = [line.split() for f in folder.glob("*_annotion_time.txt") for line in lines(f)]
    spans = {f"{t[0].removesuffix('.mp4')}_{i}" for t in times for i in range(len(t) - 1)}
    crops = {x.split(".mp4")[0] for f in folder.glob("*_crop_wh.txt") for x in lines(f)}
    heights = dict(x.split() for f in folder.glob("*_resolution.txt") for x in lines(f))
    usable = {s for s in spans & crops if int(heights[s.rsplit("_", 1)[0] + ".mp4"])}
    good, bad = read("hdtf", folder)
    assert {row.utterance for row in good} == usable
    assert sorted(row.utterance for row in bad) == sorted(spans - usable)
    assert all(re.fullmatch(r"[\w-]{11}", row.video) and row.url is None for row in good)


def test_talkinghead1kh(corpus):
    folder = corpus / "metadata/genuine/talkinghead1kh"
    files = list(folder.glob("*_video_tubes.txt"))
    good, bad = read("talkinghead1kh", folder)
    assert not bad and len(good) == sum(len(lines(f)) for f in files)
    listed = {v for f in folder.glob("*_video_ids.txt") for v in lines(f)}
    # train's ids are listed, its tubes are not at hand
    assert {row.video for row in good} <= {v[:11] for v in listed}


def test_mp4(corpus):
    root = corpus / "voxceleb2_mp4"
    good, bad = read("mp4", root)
    assert not bad and {row.media for row in good} == {str(f) for f in root.rglob("*.mp4")}


@pytest.mark.parametrize(
    "file", ["genuine/vox1_meta.csv", "genuine/vox2_meta.csv", "voxceleb2/vox2_meta.csv"]
)
def test_people(corpus, file):
    path = corpus / "metadata" / file
    people, bad = read_people(path)
    rows = lines(path)[1:]
    assert not bad and len(people) == len(rows)
    held_out = sum(row.rstrip().endswith("test") for row in rows)
    assert sum(split == "test" for split in people.values()) == held_out > 0
