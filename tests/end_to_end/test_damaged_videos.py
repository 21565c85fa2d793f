"""Damaged bodies among good ones: each comes out typed, and none takes a stage down."""

from __future__ import annotations

import io
import random
import shutil
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import pytest
from PIL import Image
from rig import Rig

from pipelines.sample.corpus import Corpus
from pipelines.sample.server import SampleServer
from pipelines.statuses import Status

FLIPS = 20
DOWNLOAD_STATUSES = {
    Status.OK,
    Status.NOT_A_VIDEO,
    Status.TRUNCATED,
    Status.CORRUPT,
    Status.NO_FORMAT,
}


def flipped(data: bytes, seed: int) -> bytes:
    """Some bits turned: half of the variants in the index at the front, half anywhere."""
    chance = random.Random(seed)
    body = bytearray(data)
    end = 6000 if seed % 2 else len(body)
    for _ in range(chance.choice([1, 4, 32])):
        body[chance.randrange(32 if seed % 4 else 0, end)] ^= 1 << chance.randrange(8)
    return bytes(body)


def with_durations(data: bytes, value: int) -> bytes:
    """The lengths in the movie's, the tracks' and the media's headers (version 0) replaced."""
    body = bytearray(data)
    for kind, offset in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
        at = body.find(kind)
        while at > 0:
            struct.pack_into(">I", body, at + offset, value)
            at = body.find(kind, at + 4)
    return bytes(body)


def remuxed(path: Path, container: str) -> bytes:
    """The same pictures in another container, under the wrong name."""
    sink = io.BytesIO()
    with av.open(str(path)) as source, av.open(sink, "w", format=container) as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                out.mux(packet)
    return sink.getvalue()


def bodies(good: Path) -> Iterator[tuple[str, bytes]]:
    """Bodies by name; the name says how each was damaged."""
    data = good.read_bytes()
    for seed in range(FLIPS):
        yield f"flip{seed:02d}", flipped(data, seed)
    for share in (5, 50, 95, 99):
        yield f"cut{share:02d}", data[: len(data) * share // 100]
    middle = len(data) // 2
    yield "zeroes", bytes(len(data))
    yield "hole", data[: middle - 20000] + bytes(40000) + data[middle + 20000 :]
    yield "byte", b"\0"
    page = b"<!doctype html><html><title>Consent</title><body>Sign in</body></html>"
    yield "html", page
    picture = io.BytesIO()
    Image.new("RGB", (320, 180), "red").save(picture, "PNG")
    yield "png", picture.getvalue()
    yield "matroska", remuxed(good, "matroska")
    yield "mpegts", remuxed(good, "mpegts")
    yield "forever", with_durations(data, 0xFFFFFFFE)
    yield "year", with_durations(data, 31_536_000_00)
    yield "nolength", with_durations(data, 0)
    yield "good", data


@pytest.fixture
def damaged(tiny_corpus: Corpus, tmp_path: Path) -> tuple[Path, Path, set[str]]:
    """A folder of damaged copies of one video, metadata that annotates each, and their names."""
    video = tiny_corpus.videos[0]
    folder, metadata = tmp_path / "videos", tmp_path / "metadata"
    folder.mkdir()
    shutil.copytree(tiny_corpus.metadata, metadata)
    shutil.rmtree(metadata / "txt")
    source = tiny_corpus.metadata / "txt" / video.person / video.video
    names = set()
    for name, body in bodies(tiny_corpus.video_folder / f"{video.video}.mp4"):
        (folder / f"{name}.mp4").write_bytes(body)
        target = metadata / "txt" / video.person / name
        target.mkdir(parents=True)
        first = min(source.glob("*.txt"))
        (target / first.name).write_text(first.read_text().replace(video.video, name))
        names.add(name)
    return folder, metadata, names


def test_every_damaged_video_comes_out_typed(
    damaged: tuple[Path, Path, set[str]],
    make_rig: Callable[..., Rig],
    tmp_path: Path,
) -> None:
    folder, metadata, names = damaged
    rig = make_rig(tmp_path / "rig")
    with SampleServer(folder) as server:
        rig.change("catalog", metadata=str(metadata))
        rig.change("download", url=server.url + "/watch/{video_id}", max_failed=1.0, concurrency=4)
        rig.change("crop", max_failed=1.0)
        rig.change("landmarks", max_failed=1.0)
        rig.run_all()
    downloads = {row["video"]: row for row in rig.rows("download")}
    assert downloads.keys() == names
    status = {name: row["status"] for name, row in downloads.items()}
    assert set(status.values()) <= DOWNLOAD_STATUSES, Counter(status.values())
    assert status["good"] == status["matroska"] == status["mpegts"] == "ok"
    assert status["html"] == status["png"] == status["zeroes"] == status["byte"] == "not_a_video"
    assert {status[f"cut{share:02d}"] for share in (5, 50, 95, 99)} == {"truncated"}
    assert all(row["detail"] for row in downloads.values() if row["status"] != "ok")
    crops = rig.rows("crop")
    assert len(crops) == len(names)
    for row in [*crops, *rig.rows("landmarks")]:
        assert row["status"] in set(Status) - {Status.INTERNAL_ERROR}, row
    assert {r["status"] for r in crops if r["video"] == "good"} == {"ok"}
    rig.run("verify").check()
    rig.assert_swept()
