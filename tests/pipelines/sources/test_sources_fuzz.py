"""Whatever is in the files: no reader raises but SourceError, and nothing is lost."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.sources import READERS
from pipelines.sources.base import Annotation, SourceError, is_safe

VOX = (
    b"Identity  : \tp\nReference : \tv\nOffset    : \t0\nFV Conf   : \t19.950\t(1)\n"
    b"ASD Conf  : \t6.650\n\nFRAME \tX \tY \tW \tH \n"
    b"000266 \t0.222 \t0.219 \t0.177 \t0.314 \n000267 \t0.223 \t0.217 \t0.176 \t0.312 \n"
)
CSV = b"video_id,start,end,bbox,fps,width,height,partition,person_id\n" + b"".join(
    b"WMh3ye5tBsE,%d,3994,624-48-1018-553,25,1280,720,train,id10005\n" % n for n in (1, 2, 2)
)
TIMES = b"AnnLee0.mp4 00:05-00:10 00:20-00:30\nBobRay.mp4 01:00-02:00 \n"
URLS = b"AnnLee0 https://www.youtube.com/watch?v=-_abcdEFG_1\nBobRay https://example.org/a\n"
CROPS = b"AnnLee0_0.mp4 1 2 3 4\nAnnLee0_1.mp4 1 2 3 4\nBobRay_0.mp4 1 2 3 4\n"
LINES = b"AnnLee0.mp4 720\nBobRay.mp4 1080\n"
TUBES = (
    b"--Y9imYnfBw_0000, 720, 1280, 0, 271, 504, 63, 792, 351\n"
    b"jha2eiMFP7A_S4386_E4534, 1080, 1920, 4386, 4534, 499, 0, 1684, 1067\n"
)
FRAGMENTS = [b"", b" ", b"\n", b"\r", b"\t", b"-", b".", b",", b"_", b":", b"/", b'"', b"0", b"9"]
FRAGMENTS += [
    b"1e9",
    b"nan",
    b"inf",
    b"\0",
    b"\x1c",
    b"\xff",
    b"\xef\xbb\xbf",
    b"9" * 30,
    "٣".encode(),
]


@st.composite
def damaged(draw, seed):
    """Arbitrary bytes, or real-looking ones with a few places struck."""
    if draw(st.integers(0, 4)) == 0:
        return draw(st.binary(max_size=300))
    data = bytearray(seed)
    for _ in range(draw(st.integers(0, 5))):
        place = draw(st.integers(0, len(data)))
        data[place : place + draw(st.integers(0, 3))] = draw(st.sampled_from(FRAGMENTS))
    return bytes(data)


def lines_of(data):
    return [x.strip() for x in data.removeprefix(b"\xef\xbb\xbf").splitlines() if x.strip()]


def read(name, path):
    rows = list(READERS[name](path))
    for row in rows:
        if not isinstance(row, Annotation):
            (row.where + row.reason).encode()
            assert row.reason and row.reason.isprintable()
            assert all(i == "" or is_safe(i) for i in (row.person, row.video, row.utterance))
            continue
        assert all(map(is_safe, (row.person, row.video, row.utterance)))
        assert np.isfinite(row.boxes).all() and (row.boxes[:, 2:] > 0).all()
        assert row.boxes.shape in {(1, 4), (row.frames, 4)} and row.boxes.dtype == np.float32
        assert 0 <= row.first_frame < 2**31 and 1 <= row.frames < 2**31
        assert row.box_height is None or row.box_height > 0
    good = [(r.person, r.video, r.utterance) for r in rows if isinstance(r, Annotation)]
    assert good == sorted(set(good))
    return rows


@given(damaged(VOX), st.sampled_from(["voxceleb1", "voxceleb2"]))
@settings(max_examples=400, deadline=None)
def test_voxceleb(tmp_path_factory, data, name):
    root = tmp_path_factory.getbasetemp() / "fuzz_voxceleb"
    (root / "p/v").mkdir(parents=True, exist_ok=True)
    (root / "p/v/u.txt").write_bytes(data)
    (root / "p/v/w.txt").write_bytes(VOX)
    assert [row.utterance for row in read(name, root)] == ["u", "w"]


@given(damaged(CSV))
@settings(max_examples=300, deadline=None)
def test_vox_metadata(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    path.write_bytes(data)
    try:
        rows = read("vox_metadata", path)
    except SourceError:
        return
    assert len(rows) == len(lines_of(data)) - 1


@given(damaged(TUBES))
@settings(max_examples=300, deadline=None)
def test_talkinghead1kh(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "val_video_tubes.txt"
    path.write_bytes(data)
    assert len(read("talkinghead1kh", path)) == len(lines_of(data))


@given(damaged(TIMES), damaged(URLS), damaged(CROPS), damaged(LINES))
@settings(max_examples=300, deadline=None)
def test_hdtf(tmp_path_factory, times, urls, crops, lines):
    folder = tmp_path_factory.getbasetemp() / "fuzz_hdtf"
    folder.mkdir(exist_ok=True)
    (folder / "WDA_annotion_time.txt").write_bytes(times)
    (folder / "WDA_video_url.txt").write_bytes(urls)
    (folder / "WDA_crop_wh.txt").write_bytes(crops)
    (folder / "WDA_resolution.txt").write_bytes(lines)
    expected = 0
    for line in lines_of(times):
        try:
            line.decode()
            expected += max(1, len(line.split()) - 1)
        except UnicodeDecodeError:
            expected += 1
    assert len(read("hdtf", folder)) == expected


@given(st.lists(st.text(st.sampled_from("ab.-é \n"), min_size=1, max_size=4), max_size=4))
@settings(max_examples=100, deadline=None)
def test_mp4_tree(tmp_path_factory, parts):
    parts = [part for part in parts if not part.startswith(".")]
    root = tmp_path_factory.mktemp("fuzz_mp4", numbered=True)
    (root / "p/v").mkdir(parents=True)
    (root / "p/v/u.mp4").touch()
    file = root.joinpath(*parts, "x.mp4")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    rows = list(READERS["mp4"](root))
    fits = len(parts) == 2 and all(re.fullmatch("[ab-]+", part) for part in parts)
    assert [isinstance(r, Annotation) for r in rows].count(True) == 1 + fits and len(rows) == 2
