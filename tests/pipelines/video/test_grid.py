"""The time grid, and where annotations of other frame rates lie on it."""

from contextlib import closing
from fractions import Fraction
from itertools import pairwise

import av
import pytest
from videos import MS, Sources, cut, ragged, read, shown, slot, slots_of, write

from pipelines.video import ClipSpec
from pipelines.video.frames import FrameReader
from pipelines.video.grid import FrameTimes, slot_at


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources(tmp_path_factory.mktemp("sources"))


def test_slots_never_fall_and_halves_go_away_from_zero():
    slots = [slot_at(i, Fraction(1, 1000)) for i in range(-100, 100)]
    assert all(b - a in (0, 1) for a, b in pairwise(slots))
    assert [slot_at(i, Fraction(1, 50)) for i in (-3, -1, 0, 1, 3)] == [-2, -1, 0, 1, 2]


def test_frames_of_other_annotation_rates(sources, tmp_path):
    source = sources["29.97.mp4"]
    slots = slots_of(source)
    thirty = cut(source, [ClipSpec("a", 30, 60, fps=30.0)], tmp_path)["a"]
    assert (thirty.first_frame, thirty.frames) == (25, 50)
    native = cut(source, [ClipSpec("a", 30, 60, fps=None)], tmp_path)["a"]
    assert (native.first_frame, native.frames) == (slots[30], slots[90] - slots[30])
    assert read(native.path)[0] == shown(slots, slots[30], native.frames)
    segment = cut(source, [ClipSpec("a", 3, 30, fps=None, segment_start=0.9)], tmp_path)["a"]
    with av.open(str(source)) as container:
        packets = sorted((p.pts, p) for p in container.demux(video=0) if p.size)
    key = next(
        i for i, (_, p) in enumerate(packets) if p.is_keyframe and p.pts * p.time_base >= 0.9
    )
    assert segment.first_frame == slots[key + 3]
    whole = cut(source, [ClipSpec("a", None, None)], tmp_path)["a"]
    assert read(whole.path)[0] == shown(slots, 0, slots[-1])


@pytest.mark.parametrize("stamps", [ragged(40), list(range(0, 1600, 40))], ids=["ragged", "even"])
def test_the_last_frame_of_a_container_without_durations_is_shown(tmp_path, stamps):
    source = write(tmp_path / "a.flv", stamps, MS)
    with av.open(str(source)) as container:
        assert not any(packet.duration for packet in container.demux(video=0))
    end = slot(Fraction(2 * stamps[-1] - stamps[-2], 1000))
    clips = [
        ClipSpec("all", None, None, fps=None),
        ClipSpec("at 25", None, None),
        ClipSpec("numbered", 0, len(stamps), fps=None),
    ]
    for clip in cut(source, clips, tmp_path).values():
        numbers, _ = read(clip.path)
        assert len(numbers) == end and numbers[-1] == len(stamps) - 1
    with closing(FrameReader(source)) as reader:
        while reader.read():
            pass
        assert reader.end == FrameTimes.of(source).end == end
