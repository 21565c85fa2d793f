"""Reading back what the stages wrote."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.clips import even_numbers, pack_arrays, read_frames, unpack_arrays


def test_frames_are_read_in_order_and_only_those_asked_for(
    make_video: Callable[..., Path], tmp_path: Path
) -> None:
    path = make_video(tmp_path / "clip.mp4", frames=7, side=32)
    frames = read_frames(path)
    assert (frames.shape, frames.dtype) == ((7, 32, 32, 3), np.uint8)
    assert np.array_equal(read_frames(path, [0, 3, 6]), frames[[0, 3, 6]])
    assert np.array_equal(read_frames(path, [6, 0]), frames[[0, 6]])


def test_a_clip_that_is_too_short_is_told(make_video: Callable[..., Path], tmp_path: Path) -> None:
    path = make_video(tmp_path / "clip.mp4", frames=3, side=32)
    with pytest.raises(ValueError, match=r"clip\.mp4: 2 of 3 frames are there"):
        read_frames(path, [0, 2, 3])


@given(st.integers(1, 5000), st.integers(1, 200))
def test_numbers_are_distinct_in_order_and_reach_both_ends(frames: int, count: int) -> None:
    numbers = even_numbers(frames, count)
    assert len(numbers) == min(frames, count)
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 0
    if count > 1:
        assert numbers[-1] == frames - 1
        gaps = np.diff(numbers)
        assert len(gaps) == 0 or gaps.max() - gaps.min() <= 2


def test_packed_arrays_depend_on_their_content_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {
        "points": np.arange(12, dtype=np.float32).reshape(2, 3, 2),
        "seen": np.float32([1, 0]),
    }
    first = pack_arrays(arrays)
    clock = time.localtime
    monkeypatch.setattr(time, "localtime", lambda *now: clock(0))
    assert pack_arrays(arrays) == first
    again = unpack_arrays(first)
    assert list(again) == list(arrays)
    assert all(np.array_equal(again[name], arrays[name]) for name in arrays)
    assert pack_arrays(arrays | {"seen": np.float32([0, 0])}) != first


def test_nothing_is_unpickled() -> None:
    import io

    sink = io.BytesIO()
    np.savez(sink, bad=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        unpack_arrays(sink.getvalue())


def test_damaged_arrays_are_one_kind_of_error() -> None:
    whole = pack_arrays({"points": np.zeros((9, 68, 2), np.float32)})
    for torn in (b"", whole[:40], whole[: len(whole) // 2], whole[:-30]):
        with pytest.raises(ValueError):
            unpack_arrays(torn)
