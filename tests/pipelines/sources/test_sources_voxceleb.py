from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.sources import box_rows, voxceleb
from pipelines.sources.base import Annotation, BadRow, SourceError
from pipelines.sources.voxceleb import voxceleb1, voxceleb2

PERSON, VIDEO = "id00017", "-abcdEFGH_1"
HEADER = (
    f"Identity  : \t{PERSON}\nReference : \t{VIDEO}\nOffset    : \t-2\n"
    "FV Conf   : \t19.950\t(1)\nASD Conf  : \t6.650\n\nFRAME \tX \tY \tW \tH \n"
)
ROWS = "000010 \t0.100 \t0.200 \t0.300 \t0.400 \n000011 \t0.110 \t0.210 \t0.310 \t0.410 \n"


def put(root: Path, data: str | bytes, path: str = f"{PERSON}/{VIDEO}/00001.txt") -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data.encode() if isinstance(data, str) else data)
    return file


def read_one(root: Path, data: str | bytes, reader=voxceleb2) -> Annotation | BadRow:
    put(root, data)
    (row,) = reader(root)
    return row


def test_reads_every_field(tmp_path):
    row = read_one(tmp_path, HEADER + ROWS)
    assert (row.person, row.video, row.utterance) == (PERSON, VIDEO, "00001")
    assert (row.first_frame, row.frames, row.fps) == (10, 2, 25.0)
    assert (row.offset, row.fv_conf, row.asd_conf) == (-2, 19.95, 6.65)
    assert row.box_height is None and row.split is None and not row.crop_ready
    expected = np.array([[0.1, 0.2, 0.3, 0.4], [0.11, 0.21, 0.31, 0.41]], np.float32)
    assert row.boxes.dtype == np.float32
    np.testing.assert_array_equal(row.boxes, expected)


def test_pixels_of_the_360_line_video(tmp_path):
    row = read_one(
        tmp_path, HEADER + "000005 \t294 \t65 \t90 \t91 \n000006 \t5 \t-7 \t190 \t191 \n", voxceleb1
    )
    assert row.box_height == 360
    np.testing.assert_array_equal(row.boxes, [[294, 65, 90, 91], [5, -7, 190, 191]])


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.replace("\n", "\r\n"),
        lambda s: s.replace("\n", "\r"),
        lambda s: "\ufeff" + s,
        lambda s: s.replace(" \n", "\n"),
        lambda s: s.rstrip(),
        lambda s: s + "\n\n",
        lambda s: s.replace(" \t", " "),
        lambda s: s.replace("000010", "10"),
        lambda s: s.replace("0.100", "1e-1"),
    ],
)
def test_harmless_differences_read_alike(tmp_path, change):
    plain = read_one(tmp_path, HEADER + ROWS)
    changed = read_one(tmp_path, change(HEADER + ROWS))
    assert (changed.first_frame, changed.frames, changed.fv_conf) == (10, 2, 19.95)
    np.testing.assert_array_equal(changed.boxes, plain.boxes)


def test_missing_header_fields_are_none(tmp_path):
    row = read_one(tmp_path, "Offset : \nFRAME X Y W H\n" + ROWS)
    assert (row.offset, row.fv_conf, row.asd_conf) == (None, None, None)


def test_gaps_are_interpolated(tmp_path):
    row = read_one(tmp_path, HEADER + "10 0 0 0.2 0.2\n12 0.2 0 0.4 0.2\n13 0.2 0 0.4 0.2\n")
    assert (row.first_frame, row.frames) == (10, 4)
    np.testing.assert_allclose(row.boxes[:, 0], [0, 0.1, 0.2, 0.2], atol=1e-7)
    np.testing.assert_allclose(row.boxes[:, 2], [0.2, 0.3, 0.4, 0.4], atol=1e-7)


@pytest.mark.parametrize(
    ("data", "line", "reason"),
    [
        ("", None, "empty"),
        (" \n \n", None, "empty"),
        (HEADER, 7, "no rows"),
        (HEADER.replace("FRAME", "ROW"), None, "no line 'FRAME"),
        (HEADER.replace("X \tY", "Y \tX") + ROWS, 7, "columns"),
        (HEADER.replace(PERSON, "id99999") + ROWS, 1, "Identity says 'id99999'"),
        (HEADER.replace(VIDEO, "AAAAAAAAAAA") + ROWS, 2, "Reference says"),
        (HEADER.replace("-2", "two") + ROWS, 3, "Offset is 'two'"),
        (HEADER.replace("-2", "9999999999") + ROWS, 3, "Offset"),
        (HEADER.replace("19.950", "nan") + ROWS, 4, "FV Conf"),
        (HEADER.replace("ASD Conf", "FV Conf") + ROWS, 5, "stated twice"),
        (HEADER.replace("\n\n", "\nrubbish\n") + ROWS, 6, "rubbish"),
        (HEADER + ROWS + ROWS, 10, "frames must rise"),
        (HEADER + ROWS + "000011 0.1 0.1 0.1 0.1\n", 10, "frames must rise"),
        (HEADER + ROWS + "009999 \t0.100 \t0.200 \t0.300 \t0.400 \n", 10, "gap"),
        (HEADER + ROWS + "-00012 0.1 0.1 0.1 0.1\n", 10, "FRAME is '-00012'"),
        (HEADER + ROWS + "99999999999 0.1 0.1 0.1 0.1\n", 10, "FRAME"),
        (HEADER + ROWS + "12.5 0.1 0.1 0.1 0.1\n", 10, "whole number"),
        (HEADER + ROWS + "12 0.1 0.1 nan 0.1\n", 10, "W is 'nan'"),
        (HEADER + ROWS + "12 inf 0.1 0.1 0.1\n", 10, "X is 'inf'"),
        (HEADER + ROWS + "12 0.1 0.1 0.000 0.1\n", 10, "positive"),
        (HEADER + ROWS + "12 0.1 0.1 0.1 -0.1\n", 10, "positive"),
        (HEADER + ROWS + "12 0.1 0.1 1e-99 0.1\n", 10, "positive"),
        (HEADER + ROWS + "12 1e9 0.1 0.1 0.1\n", 10, "beyond"),
        (HEADER + ROWS + "12 1_0 0.1 0.1 0.1\n", 10, "X is '1_0'"),
        (HEADER + ROWS + "12 0x1 0.1 0.1 0.1\n", 10, "X is '0x1'"),
        (HEADER + ROWS + "12 0.1 0.1 0.1\n", 10, "4 values"),
        (HEADER + ROWS + "\n12 0.1 0.1 0.1 0.1 0.1\n", 11, "6 values"),
        (HEADER + ROWS + "# a comment\n", 10, "3 values"),
        (HEADER + ROWS.replace("0.210", "21.00"), 9, "reader voxceleb1"),
        ((HEADER + ROWS).encode("utf-16"), None, "not UTF-8"),
        (HEADER.encode() + ROWS.encode() + b"12 0.1 \xff 0.1 0.1\n", 10, "not UTF-8"),
        (b"\x00" * 999, None, "FRAME"),
    ],
)  # fmt: skip
def test_damage_is_named_by_file_and_line(tmp_path, data, line, reason):
    put(tmp_path, HEADER + ROWS, f"{PERSON}/{VIDEO}/00002.txt")
    put(tmp_path, data)
    bad, good = voxceleb2(tmp_path)
    assert bad.where == f"{PERSON}/{VIDEO}/00001.txt" + (f":{line}" if line else "")
    assert reason in bad.reason and "\n" not in bad.reason
    assert (bad.person, bad.video, bad.utterance) == (PERSON, VIDEO, "00001")
    assert isinstance(good, Annotation)  # the rest goes on


def test_each_reader_knows_the_others_scale(tmp_path):
    row = read_one(tmp_path, HEADER + ROWS, voxceleb1)
    assert "reader voxceleb2" in row.reason and row.where.endswith(".txt:8")


def test_oversized_file(tmp_path):
    file = put(tmp_path, HEADER + ROWS)
    os.truncate(file, voxceleb.MAX_BYTES + 1)
    (row,) = voxceleb2(tmp_path)
    assert "too many" in row.reason


def test_unreadable_file(tmp_path, monkeypatch):
    put(tmp_path, HEADER + ROWS)
    put(tmp_path, HEADER + ROWS, f"{PERSON}/{VIDEO}/00002.txt")
    read_bytes = Path.read_bytes

    def refuse(self):  # chmod does not bind root, who often runs tests
        if self.name == "00001.txt":
            raise PermissionError(13, "Permission denied")
        return read_bytes(self)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    bad, good = voxceleb2(tmp_path)
    assert bad.reason == "the file cannot be read: Permission denied"
    assert isinstance(good, Annotation)


@pytest.mark.parametrize("missing", ["nowhere", "file.txt", "empty", "nul\0"])
def test_nothing_to_read_is_a_source_error(tmp_path, missing):
    (tmp_path / "file.txt").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=missing) as caught:
        list(voxceleb2(tmp_path / missing))
    assert "\n" not in str(caught.value)


box = st.tuples(
    st.integers(-900, 1900), st.integers(-900, 1900), st.integers(1, 1900), st.integers(1, 1900)
)


@given(
    st.lists(box, min_size=1, max_size=40),
    st.integers(0, 999_000),
    st.sampled_from([" \t", "\t", " "]),
    st.sampled_from([" \n", "\n"]),
)
@settings(max_examples=150, deadline=None)
def test_round_trip(tmp_path_factory, boxes, first, between, end):
    lines = (
        between.join([f"{first + i:06d}", *(f"{v / 1000:.3f}" for v in values)])
        for i, values in enumerate(boxes)
    )
    row = read_one(tmp_path_factory.mktemp("t"), HEADER + "".join(line + end for line in lines))
    assert (row.first_frame, row.frames) == (first, len(boxes))
    np.testing.assert_array_equal(row.boxes, (np.array(boxes) / 1000).astype(np.float32))


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_fast_parsers_accept_no_more_than_the_slow_one(data):
    body = bytearray((ROWS + ROWS.replace("00001", "00002")).encode())
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place : place + data.draw(st.integers(0, 2))] = data.draw(
            st.sampled_from([b"", b" ", b"-", b".", b"1", b"\n", b"\t", b"e", b"nan", b"_", b"#"])
        )
    results = []
    for read in (box_rows.read_rows, box_rows._read_slowly):
        try:
            frames, boxes = read(bytes(body), 1)
            results.append((frames.tolist(), boxes.tolist()))
        except box_rows.RowError as error:
            results.append((str(error), error.line))
    assert results[0] == results[1]


@pytest.mark.parametrize("broken", ["file", "folder"])
def test_a_disk_that_does_not_answer_costs_no_rows(tmp_path, monkeypatch, broken):
    put(tmp_path, HEADER + ROWS)

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    if broken == "file":
        monkeypatch.setattr(Path, "read_bytes", fail)
    else:
        scandir = os.scandir
        monkeypatch.setattr(os, "scandir", lambda f: (fail if VIDEO in str(f) else scandir)(f))
    with pytest.raises(SourceError, match=f"{VIDEO}.*: Input/output error; run this again"):
        list(voxceleb2(tmp_path))
