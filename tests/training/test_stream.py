"""The stream gives what random access gives, and says so when a tar does not."""

from __future__ import annotations

import errno
import io
import re
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from test_episodes import same
from tiny_shards import MakeShards, Shards

from pipelines import storage
from pipelines.shard import TarWriter
from training import stream as stream_module
from training.episodes import Episode
from training.stream import EpisodeStream, stream_loader


def stream(shards: Shards, k: int = 4, size: int = 32, **options: Any) -> EpisodeStream:
    return EpisodeStream(shards.index, shards.folder, "train", k, size, **options)


@pytest.mark.parametrize("buffer", [1, 3, 100])
def test_both_deliver_the_same_episodes(shards: Shards, buffer: int) -> None:
    episodes = shards.open()
    found = list(stream(shards, epochs=3, buffer=buffer))
    assert len(found) == 15
    for at, episode in enumerate(found):
        assert same(episode, episodes[at // 5, episode.rows])
    for epoch in range(3):
        assert sorted(e.rows for e in found[5 * epoch : 5 * epoch + 5]) == list(range(5))


def test_frames_without_a_face_too(make_shards: MakeShards) -> None:
    shards = make_shards(faceless={(1, 0, 0), (1, 2, 1), (0, 0, 2)})
    episodes = shards.open(size=16)
    assert all(same(e, episodes[0, e.rows]) for e in stream(shards, size=16, epochs=1))


def test_it_can_begin_at_an_epoch(shards: Shards) -> None:
    whole = list(stream(shards, epochs=3))
    later = list(stream(shards, epoch=2, epochs=1))
    assert all(same(one, two) for one, two in zip(whole[10:], later, strict=True))


def test_ranks_and_workers_share_the_tars(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    rows: list[int] = []
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        rows += [e.rows for e in stream(shards, epochs=1)]
    assert Counter(rows) == Counter(range(5))

    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(ValueError, match="2 shards are too few for so many ranks and workers"):
        next(iter(stream(shards)))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_an_endless_stream(shards: Shards, workers: int) -> None:
    batches = iter(stream_loader(stream(shards), 4, workers=workers))
    taken = [next(batches) for _ in range(5)]
    assert {len(batch) for batch in taken} == {4}
    assert taken[0].source.shape == (4, 4, 3, 32, 32)
    assert taken[0].source.dtype == torch.uint8


def test_an_epoch_by_workers_has_each_video_once(shards: Shards) -> None:
    batches = stream_loader(stream(shards, epochs=1), 1, workers=2)
    assert Counter(int(batch.rows) for batch in batches) == Counter(range(5))


def test_dropped_videos_are_passed_over(shards: Shards) -> None:
    found = list(stream(shards, k=6, few_frames="drop", epochs=1))
    episodes = shards.open(k=6, few_frames="drop")
    assert len(found) == len(episodes) == 4
    assert all(same(e, episodes[0, e.rows]) for e in found)


def test_a_command_can_fetch_the_tars(shards: Shards) -> None:
    pattern = f"pipe:cat {shards.folder}/{{}}"
    found = list(EpisodeStream(shards.index, pattern, "train", 4, 32, epochs=1))
    assert sorted(e.rows for e in found) == list(range(5))


@pytest.mark.parametrize(
    ("command", "how"),
    [
        ("cat {folder}/none/{{}}", "with exit status 1"),
        ("head -c 700 {folder}/{{}}; exit 3", "with exit status 3"),
        # At the end of a member a tar that stops looks whole.
        ("head -c {member} {folder}/{{}}; exit 3", "with exit status 3"),
        ("head -c {member} {folder}/{{}}; sleep 0.1; kill -TERM $$", "by signal 15"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_command_that_fails_is_one_line(
    shards: Shards, command: str, how: str, workers: int
) -> None:
    with tarfile.open(shards.tar(0)) as tar:
        member = tar.getmembers()[1].offset
    pattern = "pipe:" + command.format(folder=shards.folder, member=member)
    episodes = EpisodeStream(shards.index, pattern, "train", 4, 32, epochs=1)
    with pytest.raises(ValueError) as caught:
        list(stream_loader(episodes, 1, workers=workers))
    told = pattern.replace("{}", "train/") + f" cannot be read to its end: its command ended {how}"
    last = str(caught.value).strip().splitlines()[-1].removeprefix("ValueError: ")
    assert re.sub("train/[^ ;]*tar", "train/", last) == told


def test_a_command_is_not_blamed_for_a_tar_that_is_none(shards: Shards) -> None:
    for path in shards.folder.rglob("*.tar"):
        path.write_bytes(b"<html>" * 100_000)
    pattern = f"pipe:cat {shards.folder}/{{}}"
    with pytest.raises(ValueError, match=r"cannot be read to its end: .*(header|opened)"):
        list(EpisodeStream(shards.index, pattern, "train", 4, 32, epochs=1))


@pytest.mark.parametrize("left", [0, 700, 9000])
def test_a_truncated_tar_is_named(shards: Shards, left: int) -> None:
    tar = shards.tar(1)
    tar.write_bytes(tar.read_bytes()[:left])
    with pytest.raises(ValueError, match=r"00001.tar (cannot be read to its end|lacks id|has no)"):
        list(stream(shards, epochs=1))


def test_a_missing_tar_is_named(shards: Shards) -> None:
    shards.tar(0).unlink()
    with pytest.raises(ValueError, match=r"00000.tar cannot be read to its end: No such file"):
        list(stream(shards, epochs=1))


@pytest.mark.parametrize(
    ("without", "words"),
    [
        ("id1_a_00000", "lacks id1_a_00000, but the index says so"),
        ("id1_a_00000.landmarks", "lacks id1_a_00000.landmarks.npy, but the index says so"),
        ("id", "00001.tar has no clips, but the index says so"),
    ],
)
def test_a_tar_of_other_members_is_named(shards: Shards, without: str, words: str) -> None:
    rewrite(shards, without)
    with pytest.raises(ValueError, match=words):
        list(stream(shards, epochs=1))


def rewrite(shards: Shards, without: str) -> None:
    """A whole tar, but for some members."""
    data = shards.tar(1).read_bytes()
    with shards.tar(1).open("wb") as file, tarfile.open(fileobj=io.BytesIO(data)) as tar:
        writer = TarWriter(file)
        for member in tar:
            if not member.name.startswith(without):
                body = tar.extractfile(member)
                assert body is not None
                writer.add(member.name, body.read())
        writer.close()


def test_a_video_in_two_shards_is_refused(shards: Shards) -> None:
    def move(row: dict[str, Any]) -> None:
        if row["key"] == "id2_c_00001":
            row.update(shard="test-train-00001", shard_bytes=shards.tar(1).stat().st_size)

    shards.edit(move)
    with pytest.raises(ValueError, match="clips of video test/id2/c lie in several shards"):
        stream(shards)


# --- object stores ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket of moto's S3 server on loopback, which every client of this process finds."""
    boto3 = pytest.importorskip("boto3", reason="the extra `s3`")
    s3fs = pytest.importorskip("s3fs", reason="the extra `s3`")
    moto = pytest.importorskip("moto.server", reason="moto's S3 server (extra `dev`)")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3").create_bucket(Bucket="likeness")
        s3fs.S3FileSystem.clear_instance_cache()
        yield "s3://likeness"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def uploaded(shards: Shards, bucket: str) -> str:
    for tar in (shards.folder / "train").iterdir():
        storage.write_bytes(f"{bucket}/shards/train/{tar.name}", tar.read_bytes())
    return f"{bucket}/shards"


@pytest.mark.parametrize("workers", [0, 2])
def test_tars_of_an_object_store_are_read_where_they_lie(
    shards: Shards, bucket: str, workers: int
) -> None:
    stream = EpisodeStream(shards.index, uploaded(shards, bucket), "train", 4, 32, epochs=1)
    episodes = shards.open()
    found = {int(batch.rows): batch for batch in stream_loader(stream, 1, workers=workers)}
    assert sorted(found) == list(range(5))
    for row, batch in found.items():
        assert torch.equal(batch.target[0], torch.from_numpy(episodes[0, row].target))


@pytest.mark.parametrize(
    ("left", "words"),
    [(0, "empty file"), (9000, "unexpected end of data"), (None, "No such file or directory")],
)
def test_a_tar_that_an_object_store_lacks_is_one_line(
    shards: Shards, bucket: str, left: int | None, words: str
) -> None:
    url = uploaded(shards, bucket)
    tar = f"{url}/train/{shards.tar(1).name}"
    if left is None:
        storage.remove(tar)
    else:
        storage.write_bytes(tar, shards.tar(1).read_bytes()[:left])
    with pytest.raises(ValueError) as caught:
        list(EpisodeStream(shards.index, url, "train", 4, 32, epochs=1))
    assert str(caught.value) == f"{tar} cannot be read to its end: {words}"


class Unsteady(io.BytesIO):
    """A connection that breaks once, after some bytes."""

    left = 7000

    def read(self, size: int | None = -1, /) -> bytes:
        if Unsteady.left <= 0 < self.tell():
            Unsteady.left = 1 << 60
            raise ConnectionResetError("reset")
        Unsteady.left -= size or 0
        return super().read(size)


def test_a_connection_that_breaks_is_made_anew(
    shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(url: str) -> Unsteady:
        return Unsteady((shards.folder / "train" / url.rsplit("/", 1)[-1]).read_bytes())

    def read() -> list[Episode]:
        return list(EpisodeStream(shards.index, "s3://x", "train", 4, 32, epochs=1))

    monkeypatch.setattr(stream_module, "_opened", opened)
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    Unsteady.left = 1 << 60
    undisturbed = read()
    Unsteady.left = 7000
    disturbed = read()
    assert waited == [stream_module.PAUSES[0]] and len(disturbed) == len(undisturbed) == 5
    for one, other in zip(disturbed, undisturbed, strict=True):
        np.testing.assert_array_equal(one.target, other.target)


def test_a_store_that_stays_away_is_one_line(
    shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(url: str) -> Unsteady:
        raise OSError(errno.EBUSY, "SlowDown")

    monkeypatch.setattr(stream_module, "_opened", busy)
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    with pytest.raises(ValueError, match="cannot be read to its end: SlowDown"):
        next(iter(EpisodeStream(shards.index, "s3://x", "train", 4, 32)))
    assert waited == [*stream_module.PAUSES]


def test_a_store_without_a_client_is_named(shards: Shards) -> None:
    stream = EpisodeStream(shards.index, "nowhere://shards", "train", 4, 32)
    with pytest.raises(ValueError, match=r"^nowhere://shards/train/.*tar: Protocol not known"):
        next(iter(stream))
