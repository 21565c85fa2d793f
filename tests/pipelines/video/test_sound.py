"""The sound of clips: in step with the pictures, and no reason to lose a clip."""

from fractions import Fraction

import av
import numpy as np
import pytest
from videos import RATE, Sources, cut, read, write

from pipelines.statuses import Status
from pipelines.video import ClipSpec


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources(tmp_path_factory.mktemp("sources"))


@pytest.mark.parametrize(
    "name", ["25.mp4", "30.mkv", "stream.ts", "old.mpg", "vp9.webm", "h264.avi"]
)
def test_sound_stays_in_step_wherever_a_clip_starts(sources, tmp_path, name):
    with av.open(str(sources[name])) as container:
        stream = container.streams.audio[0]
        start = Fraction(container.start_time or 0, av.time_base)
        frames = list(container.decode(stream))
        offset = frames[0].pts * stream.time_base - start
        rate = frames[0].sample_rate
        whole = np.concatenate([f.to_ndarray()[0].astype(np.float32) for f in frames])
    onset = np.flatnonzero(np.abs(whole) > 0.3 * np.abs(whole).max())[0] / rate + float(offset)
    for first in (0, 5, 11):
        result = cut(sources[name], [ClipSpec("a", first, 60)], tmp_path)["a"]
        _, sound = read(result.path)
        heard = np.flatnonzero(np.abs(sound) > 0.3 * np.abs(sound).max())[0] / RATE
        assert heard == pytest.approx(onset - first / 25, abs=0.04)


def test_sound_that_does_not_decode_costs_no_clip(tmp_path, sources):
    data = bytearray(sources["25.mp4"].read_bytes())
    with av.open(str(sources["25.mp4"])) as container:
        spots = [(p.pos, p.size) for p in container.demux(container.streams.audio[0]) if p.size]
    for position, size in spots:
        data[position : position + size] = bytes([0xFF]) * size
    source = tmp_path / "mute.mp4"
    source.write_bytes(data)
    result = cut(source, [ClipSpec("a", 10, 50)], tmp_path)["a"]
    assert result.status == Status.OK and not result.has_audio
    assert "sound" in result.detail
    assert read(result.path)[0] == list(range(10, 60))


def test_sound_that_ends_early_is_told(tmp_path):
    source = write(tmp_path / "a.mp4", list(range(150)), Fraction(1, 25), sound=2.0)
    clips = [ClipSpec("whole", 0, 50), ClipSpec("part", 25, 75), ClipSpec("none", 80, 50)]
    results = cut(source, clips, tmp_path)
    assert {result.status for result in results.values()} == {Status.OK}
    assert [results[key].has_audio for key in ("whole", "part", "none")] == [True, True, False]
    assert not results["whole"].detail
    assert results["part"].detail == "the sound ends 1.0 s after its start"
    assert results["none"].detail == "the sound of the video does not reach here"
