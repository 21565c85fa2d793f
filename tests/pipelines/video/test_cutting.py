"""Which clips are kept, and what is said of the others."""

from fractions import Fraction

import numpy as np
import pytest
from videos import SIDE, Sources, cut, read, write

from pipelines.statuses import Status
from pipelines.video import ClipSpec


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources(tmp_path_factory.mktemp("sources"))


def test_ends_are_honest(sources, tmp_path):
    clips = [ClipSpec(f"{a}", a, n) for a, n in ((100, 25), (101, 26), (102, 40), (130, 5))]
    results = cut(sources["25.mp4"], clips, tmp_path)
    assert results["100"].status == Status.OK and not results["100"].detail
    assert results["101"].status == Status.OK and "repeated 2" in results["101"].detail
    assert read(results["101"].path)[0][-3:] == [124, 124, 124]
    assert results["102"].status == Status.OUT_OF_RANGE and results["102"].path is None
    assert "17 frames" in results["102"].detail
    assert results["130"].detail == "starts at 5.20 s, the video ends at 5.00 s"


def test_the_annotated_face_is_measured(sources, tmp_path):
    boxes = np.array([[10, 10, 20, 24], [10, 10, 30, 21], [10, 10, 26, 40]], np.float32)
    clips = [
        ClipSpec("face", 0, 3, boxes=boxes, box_height=SIDE),
        ClipSpec("ready", 0, 3, boxes=boxes[:1], box_height=SIDE, crop_ready=True),
        ClipSpec("none", 0, 3),
        ClipSpec("empty", 500),
    ]
    results = cut(sources["25.mp4"], clips, tmp_path)
    assert {key: result.face_size for key, result in results.items()} == {
        "face": 21.0, "ready": None, "none": None, "empty": None
    }  # fmt: skip
    assert results["empty"].status == Status.TOO_SHORT


def test_what_cannot_be_a_clip_is_refused(sources, tmp_path):
    clips = [
        ClipSpec("long", 0, 10**9),
        ClipSpec("flat", 0, 9, boxes=np.array([[1, 1, 0, 9]], np.float32), box_height=SIDE),
        ClipSpec("nan", 0, 9, boxes=np.array([[1, 1, np.nan, 9]], np.float32), box_height=SIDE),
        ClipSpec("beyond", 500, 9, fps=None),
        ClipSpec("no segment", 0, 9, fps=None, segment_start=99.0),
    ]
    results = cut(sources["25.mp4"], clips, tmp_path)
    assert {result.status for result in results.values()} == {Status.OUT_OF_RANGE}
    assert results["long"].detail.startswith("longer than 7200 s")
    assert results["flat"].detail == results["nan"].detail == "a box has no extent"
    assert results["beyond"].detail == "starts at 5.80 s, the video ends at 5.00 s"
    assert not list(tmp_path.iterdir())


def test_a_picture_that_stands_still_is_told(sources, tmp_path):
    source = write(tmp_path / "still.mp4", [0, 1, 2, 60, 61, 62], Fraction(1, 25))
    results = cut(source, [ClipSpec("still", 0, 63), ClipSpec("short", 50, 13)], tmp_path)
    assert results["still"].detail == "one frame stands for 2.3 s"
    assert {result.status for result in results.values()} == {Status.OK}
    assert not results["short"].detail


def test_hdr_and_interlaced_pictures_are_told(tmp_path):
    kinds = {"hdr": {"color_trc": 16}, "lines": {"options": {"x264-params": "tff=1"}}}
    found = {}
    for name, settings in kinds.items():
        source = write(tmp_path / f"{name}.mp4", list(range(10)), Fraction(1, 25), **settings)
        found |= cut(source, [ClipSpec(name, 0, 10)], tmp_path / "out")
    assert found["hdr"].detail == "HDR: its colours come out pale"
    assert found["lines"].detail == "interlaced"
