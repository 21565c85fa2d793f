"""The kernel as a whole on damaged videos and full disks."""

import errno
import random
import shutil
import subprocess
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import pytest
from videos import B_FRAMES, Sources, cut, read, verdict, write

from pipelines.statuses import Status
from pipelines.video import ClipSpec
from pipelines.video.probe import MediaError


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder of 4 KiB, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not (shutil.which("mount") and shutil.which("umount")):
        pytest.skip("no mount command here")
    command = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_no_fault_of_the_video(sources, tiny_disk):
    with pytest.raises(OSError) as caught:
        cut(sources["25.mp4"], [ClipSpec("a", 0, 100)], tiny_disk)
    assert caught.value.errno == errno.ENOSPC
    assert list(tiny_disk.iterdir()) == []


def test_a_clip_that_cannot_be_written_is_no_fault_of_the_video(sources, tmp_path):
    (tmp_path / "a.mp4").mkdir()
    with pytest.raises(IsADirectoryError):
        cut(sources["25.mp4"], [ClipSpec("a", 0, 9)], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_damage_gives_typed_results_and_nothing_else(sources, tmp_path):
    """Bits flipped, runs zeroed, parts lost: seeded, so that a failure comes back."""
    rng = random.Random(7)
    clips = [ClipSpec("a", 3, 20), ClipSpec("b", 20, 70), ClipSpec("n", 2, 20, fps=None)]
    allowed = {Status.OK, Status.DECODE_ERROR, Status.OUT_OF_RANGE}
    names = ["25.mp4", "30.mkv", "old.mpg", "stream.ts", "vp9.webm", "h264.avi", "divx.avi"]
    for round_ in range(84):
        name = rng.choice(names)
        body = bytearray(sources[name].read_bytes())
        kind = round_ % 4
        if kind == 0:
            for _ in range(rng.randint(1, 40)):
                body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
        elif kind == 1:
            at = rng.randrange(len(body))
            body[at : at + 600] = bytes(len(body[at : at + 600]))
        elif kind == 2:
            at = rng.randrange(len(body))
            del body[at : at + rng.randint(1, 3000)]
        else:
            for _ in range(8):  # headers
                body[rng.randrange(min(2000, len(body)))] = rng.randrange(256)
        path = tmp_path / name
        status = verdict(path, bytes(body))
        assert status in {Status.OK, Status.NOT_A_VIDEO, Status.TRUNCATED, Status.CORRUPT}
        try:
            results = cut(path, clips, tmp_path / "out")
        except MediaError:
            continue
        assert {r.status for r in results.values()} <= allowed
        assert set(results) == {"a", "b", "n"}
        for result in results.values():
            assert "\n" not in result.detail and str(tmp_path) not in result.detail
            if result.path:
                assert len(read(result.path)[0]) == result.frames


def test_damage_inside_one_clip_spares_the_others(tmp_path):
    source = write(tmp_path / "a.mp4", list(range(250)), Fraction(1, 25), options=B_FRAMES)
    with av.open(str(source)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        spots = [(p.pos, p.size) for p in packets if 95 <= p.pts * p.time_base * 25 < 105]
    body = bytearray(source.read_bytes())
    for position, size in spots:
        body[position + 5 : position + size] = bytes(size - 5)
    source.write_bytes(body)
    clips = [ClipSpec("before", 10, 60), ClipSpec("hit", 70, 60), ClipSpec("after", 160, 60)]
    results = cut(source, clips, tmp_path)
    assert results["hit"].status == Status.DECODE_ERROR
    for key, first in (("before", 10), ("after", 160)):
        assert read(results[key].path)[0] == list(range(first, first + 60))


def test_packets_that_the_container_calls_corrupt_are_damage(tmp_path):
    """Lost transport packets: the decoder conceals what it misses, and says nothing."""
    options = {"preset": "ultrafast", "g": "50"}
    source = write(tmp_path / "a.ts", list(range(250)), Fraction(1, 25), options=options)
    with av.open(str(source)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        (spot,) = [p.pos for p in packets if p.pts == packets[110].pts]
    body = source.read_bytes()
    one = 188  # bytes of a transport packet; the counters of what follows tell that two are gone
    source.write_bytes(body[: spot + one] + body[spot + 3 * one :])
    clips = [ClipSpec("before", 10, 60), ClipSpec("hit", 100, 40), ClipSpec("after", 155, 60)]
    results = cut(source, clips, tmp_path)
    assert results["hit"].status == Status.DECODE_ERROR
    assert results["before"].status == results["after"].status == Status.OK
