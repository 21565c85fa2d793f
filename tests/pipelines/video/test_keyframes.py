"""Seeks go only where the pictures come out as they do in order."""

from fractions import Fraction

import av
from videos import B_FRAMES, cut, read, write

from pipelines.video import ClipSpec, frames
from pipelines.video.keyframes import _nal_heads, find_keyframe


def test_a_seek_enters_only_at_clean_keyframes(tmp_path, monkeypatch):
    """Periodic intra refresh has one IDR; open GOPs flag keyframes that lean on the past."""
    monkeypatch.setattr(frames, "SEEK_AHEAD", 25)
    entered = []
    skip = frames.FrameReader._skip_ahead

    def spy(self, frame):
        packet = skip(self, frame)
        if packet is not None:
            entered.append(packet.pts * packet.time_base)
        return packet

    monkeypatch.setattr(frames.FrameReader, "_skip_ahead", spy)
    stamps, base = list(range(300)), Fraction(1, 25)
    closed = write(tmp_path / "a.mp4", stamps, base, options=B_FRAMES)
    refresh = {"x264-params": "intra-refresh=1:keyint=30:bframes=0"}
    rolling = write(tmp_path / "b.mp4", stamps, base, options=refresh)
    old = write(tmp_path / "c.mp4", stamps, base, options=B_FRAMES, pix_fmt="yuv444p")
    for source, seeks in ((closed, 1), (rolling, 0), (old, 0)):
        entered.clear()
        result = cut(source, [ClipSpec("a", 250, 40)], tmp_path)["a"]
        assert read(result.path)[0] == list(range(250, 290))
        assert len([t for t in entered if t > 0]) == seeks


def test_the_last_clean_keyframe_is_found(tmp_path):
    stamps, base = list(range(0, 300 * 512, 512)), Fraction(1, 25 * 512)
    source = write(tmp_path / "a.mp4", stamps, base, options=B_FRAMES | {"sc_threshold": "0"})
    with av.open(str(source)) as container:
        assert container.streams.video[0].time_base == base
        keys = [p.pts for p in container.demux(video=0) if p.is_keyframe]
    assert [key // 512 for key in keys] == list(range(0, 300, 30))
    found = find_keyframe(source, 0, 100 * 512)
    assert found is not None and found.pts == 90 * 512
    assert find_keyframe(source, 90 * 512, 100 * 512) is None


def test_heads_of_units_behind_lengths_and_start_codes():
    assert list(_nal_heads(b"\0\0\0\2\x67a\0\0\0\1\x65", 4)) == [0x67, 0x65]
    assert list(_nal_heads(b"\0\0\0\1\x67a\0\0\1\x65", 0)) == [0x67, 0x65]
    assert list(_nal_heads(b"\0\0\0\2", 4)) == []
