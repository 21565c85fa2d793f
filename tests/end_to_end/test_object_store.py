"""The same pipeline with everything in an object store (moto's S3 server on loopback)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rig import MANIFESTS, STAGES, Rig

from pipelines.sample.corpus import Corpus
from pipelines.storage import digest_bytes

boto3 = pytest.importorskip("boto3", reason="the extra `s3`")
pytest.importorskip("s3fs", reason="the extra `s3`")
moto = pytest.importorskip("moto.server", reason="moto's S3 server (extra `dev`)")


@pytest.fixture(scope="module")
def s3() -> Iterator[tuple[object, dict[str, str]]]:
    """A client, and the environment that leads every other one to the same server."""
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    env = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    client = boto3.client(
        "s3",
        endpoint_url=env["AWS_ENDPOINT_URL"],
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="likeness")
    yield client, env
    server.stop()


@pytest.fixture(scope="module")
def remote(
    s3: tuple[object, dict[str, str]],
    undisturbed: Rig,
    tiny_corpus: Corpus,
    tmp_path_factory: pytest.TempPathFactory,
) -> Rig:
    """A rebuild whose data and work lie in the bucket."""
    rig = Rig(tmp_path_factory.mktemp("remote") / "rig", {**undisturbed.params}, s3[1])
    rig.change("paths", data="s3://likeness/data", work="s3://likeness/work")
    return rig.run_all()


def test_everything_in_an_object_store(
    s3: tuple[object, dict[str, str]], undisturbed: Rig, remote: Rig
) -> None:
    client, rig = s3[0], remote
    assert stored(client, "data/shards/") == {
        str(path.relative_to(undisturbed.folder)): digest_bytes(path.read_bytes())
        for path in undisturbed.data.rglob("*.tar*")
    }
    for stage in STAGES:
        manifest = f"data/{MANIFESTS[stage]}"
        assert stored(client, manifest) == {manifest: undisturbed.hashes(stage)[manifest]}, stage
    rig.run("verify").check()
    # Nothing is done twice, and the work folder holds no scratch.
    before = stored(client, "")
    again = rig.run("crop").check()
    assert "4 of 4 items were already done" in again.out
    assert stored(client, "") == before
    assert not [name for name in before if "tmp" in name]
    assert not (rig.work).exists()


def test_a_person_is_taken_out_of_an_object_store(
    s3: tuple[object, dict[str, str]], remote: Rig, tmp_path: Path
) -> None:
    client, env = s3
    client.create_bucket(Bucket="left")  # type: ignore[attr-defined]
    for name in stored(client, ""):
        source = {"Bucket": "likeness", "Key": name}
        client.copy_object(Bucket="left", Key=name, CopySource=source)  # type: ignore[attr-defined]
    rig = Rig(tmp_path / "rig", {**remote.params}, env)
    rig.change("paths", data="s3://left/data", work="s3://left/work")
    clips = index(client)
    leaver = clips[0]["person"]
    held = {row["shard"] for row in clips if row["person"] == leaver}
    frames = [
        body(client, f"data/shards/{row['split']}/{row['shard']}.tar")[at + size // 2 :][:48]
        for row in clips
        if row["person"] == leaver
        for at, size in zip(row["frame_offsets"], row["frame_sizes"], strict=True)
    ]
    before = stored(client, "", "left")

    said = rig.run("forget", "--person", leaver).check().out
    assert "deleted from s3://left/work: " in said and " crops, " in said
    assert rig.run("forget", "--check").code == 1  # the manifests and tars still hold them
    rig.run_all()
    assert "nothing remains" in rig.run("forget", "--check").check().out

    after = stored(client, "", "left")
    tars = {name for name in before if name.endswith(".tar")}
    changed = {name for name in tars if after.get(name) != before[name]}
    assert {Path(name).stem for name in changed} == held and changed < tars
    left = {name: body(client, name, "left") for name in after}
    assert [name for name, data in left.items() if leaver.encode() in data] == []
    assert [name for name, data in left.items() if any(f in data for f in frames)] == []
    assert len(index(client, "left")) == sum(row["person"] != leaver for row in clips)


def test_a_mirror_in_an_object_store(
    s3: tuple[object, dict[str, str]], undisturbed: Rig, tiny_corpus: Corpus, tmp_path: Path
) -> None:
    client, env = s3
    for path in tiny_corpus.video_folder.glob("*.mp4"):
        client.upload_file(str(path), "likeness", f"mirror/{path.name}")
    rig = Rig(tmp_path / "rig", {**undisturbed.params}, env)
    rig.change("download", mirror="s3://likeness/mirror", url="http://127.0.0.1:9/{video_id}")
    rig.run_all("catalog", "download")
    videos = {row["video"]: row for row in rig.rows("download")}
    for row in undisturbed.rows("download"):
        assert videos[row["video"]]["origin"] == "mirror"
        assert videos[row["video"]]["sha256"] == row["sha256"]
    rig.assert_swept()


def test_an_object_store_that_is_away(undisturbed: Rig, tmp_path: Path) -> None:
    rig = undisturbed.copy_to(tmp_path / "rig")
    rig.env |= {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_MAX_ATTEMPTS": "1",
    }
    rig.change("paths", data="s3://likeness/data")
    run = rig.run("crop")
    assert "s3://likeness/data" in run.one_line(run.code)
    assert run.code in (1, 2)


def body(client: object, name: str, bucket: str = "likeness") -> bytes:
    """An object's bytes."""
    data: bytes = client.get_object(Bucket=bucket, Key=name)["Body"].read()  # type: ignore[attr-defined]
    return data


def index(client: object, bucket: str = "likeness") -> list[dict[str, Any]]:
    """The rows of the index."""
    data = body(client, "data/index.parquet", bucket)
    rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(data)).to_pylist()
    return rows


def stored(client: object, prefix: str, bucket: str = "likeness") -> dict[str, str]:
    """sha256 of every object below a prefix."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)  # type: ignore[attr-defined]
    names = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
    return {name: digest_bytes(body(client, name, bucket)) for name in names}
