"""Indexes, tars and pictures that somebody else wrote, read by loader, stream and verify."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines import clips, engine, manifest, schemas, shard, storage, verify
from pipelines.errors import UserError
from pipelines.manifest import ManifestReader, ManifestWriter
from pipelines.params import Params
from training import episodes, index, shard_cache
from training.stream import EpisodeStream

Row = dict[str, Any]
BIG = 2**62


class Payload:
    """Unpickled, it leaves a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """Exists once a payload has run; that it would is shown here."""
    path = tmp_path / "payload-ran"
    pickle.loads(pickle.dumps(Payload(path)))
    assert path.exists()
    path.unlink()
    return path


def test_loader_and_rebuild_agree_on_what_a_name_is() -> None:
    assert index.PLAIN_NAME == schemas.PLAIN_NAME
    assert episodes.LARGEST_CROP == schemas.LARGEST_CROP


# --- a hostile index --------------------------------------------------------------------------

NAMES = ["../../secret", "/etc/passwd", "a/b", "", "x;touch pwned", "a b", "s3://b/x", "a\nb", "{}"]


@pytest.mark.parametrize("name", NAMES)
def test_a_shard_s_hostile_name_is_refused_by_the_loader(make_shards: Any, name: str) -> None:
    shards = make_shards()
    shards.edit(lambda row: row.update(shard=name))
    secret = shards.folder / "train" / f"{name}.tar"
    if "\0" not in name and secret.parent.is_dir():
        secret.write_bytes(shards.tar(1).read_bytes())
    with pytest.raises(ValueError, match="is no shard's name"):
        shards.open()


def test_a_shard_s_hostile_name_reaches_no_shell_of_a_stream(
    make_shards: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pipe:` is how webdataset reads an object store, and a shell runs it."""
    shards = make_shards()
    monkeypatch.chdir(tmp_path)
    shards.edit(lambda row: row.update(shard="x; touch pwned; echo "))
    pattern = f"pipe:cat {shards.folder}/{{}}"
    with pytest.raises(ValueError):
        next(iter(EpisodeStream(shards.index, pattern, "train", k=2, epochs=1)))
    assert not (tmp_path / "pwned").exists()


SPANS = [
    {"frame_offsets": [-512]},
    {"frame_offsets": [BIG]},
    {"frame_offsets": [2**63 - 1]},
    {"frame_sizes": [-1]},
    {"frame_sizes": [2**31 - 1]},
    {"frame_numbers": [-1]},
    {"frame_numbers": [2**31 - 1]},
    {"landmarks_offset": -512},
    {"landmarks_offset": 2**63 - 1},
    {"landmarks_size": -1},
    {"landmarks_size": 2**31 - 1},
    {"frames": -1},
    {"frames": 0},
    {"shard_bytes": -1},
    {"shard_bytes": BIG},
]


@pytest.mark.parametrize("change", SPANS, ids=str)
def test_spans_outside_the_tar_are_refused_by_the_loader(make_shards: Any, change: Row) -> None:
    shards = make_shards()

    def edit(row: Row) -> None:
        for name, value in change.items():
            if isinstance(value, list):  # the first frame's alone
                row[name] = value + row[name][1:]
            else:
                row[name] = value

    shards.edit(edit)
    with pytest.raises(ValueError, match=r"cannot be true|not \d+, as the index says|not -1"):
        shards.open()


@pytest.mark.parametrize("frames", [10**6, 2**31 - 1])
def test_more_landmarks_than_there_are_cost_no_memory(make_shards: Any, frames: int) -> None:
    shards = make_shards()
    shards.edit(lambda row: row.update(frames=frames))
    with pytest.raises(ValueError, match="is no array of"):
        shards.open()[0, 0]


def test_a_cache_of_remote_shards_writes_nowhere_else(
    make_shards: Any, tmp_path: Path, written: Any
) -> None:
    shards = make_shards()
    shards.edit(lambda row: row.update(shard="../../../escaped", shard_sha256="../../escaped"))
    store = fsspec.filesystem("memory")
    index = f"memory://{tmp_path.name}/index.parquet"
    store.pipe(f"/{tmp_path.name}/index.parquet", shards.index.read_bytes())
    digest = storage.sha256(shards.index)
    cache = tmp_path / "deep" / "er" / "cache"
    with written() as places, pytest.raises(UserError, match="which is no shard"):
        shard_cache.localize(index, f"memory://{tmp_path.name}", digest, ["train"], str(cache))
    assert all(p.is_relative_to(cache) or cache.is_relative_to(p) for p in places)


@pytest.fixture
def told(finished: Callable[..., Params], without_beam: Any) -> Params:
    """A finished set."""
    params = finished((3,))
    engine.run(shard.prepare(params))
    assert verify.verify(params)["clips"]
    return params


def rewrite(params: Params, stage: str, how: Callable[[Row], Any]) -> None:
    url = params.paths.manifest(stage)
    schema = ManifestReader(url)._file.schema_arrow
    rows = manifest.read(url).to_pylist()
    for row in rows:
        how(row)
    with ManifestWriter(url, schema) as writer:
        writer.write(pa.Table.from_pylist(rows, schema=schema))


@pytest.mark.parametrize(
    "name", [n for n in NAMES if n] + ["../../../secret-train-0", "/tmp/secret-train-0", "x-y-z"]
)
def test_a_shard_s_hostile_name_is_refused_by_verify(told: Params, name: str) -> None:
    for stage in ("catalog", "shard"):  # the two agree: only the name itself can be judged
        rewrite(told, stage, lambda row: row.update(shard=name))
    with pytest.raises(UserError, match="is no shard's name"):
        verify.verify(told)


@pytest.mark.parametrize("change", SPANS, ids=str)
def test_spans_that_lie_are_a_lie_to_verify(told: Params, change: Row) -> None:
    def edit(row: Row) -> None:
        for name, value in change.items():
            row[name] = value + row[name][1:] if isinstance(value, list) else value

    rewrite(told, "shard", edit)
    with pytest.raises(verify.Lie):
        verify.verify(told)


# --- hostile members --------------------------------------------------------------------------


def forge(params: Params, change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], Any]) -> Path:
    """Rewrite the first tar's members, and make checksum and index agree with it."""
    path = sorted(Path(params.paths.data, "shards", "train").glob("*.tar"))[0]
    with tarfile.open(path) as tar:
        members = [(m, tar.extractfile(m).read()) for m in tar]  # type: ignore[union-attr]
    change(members)
    spans: dict[str, tuple[int, int]] = {}
    with path.open("wb") as file:
        for member, data in members:
            member.size = len(data) if member.isreg() else 0
            file.write(member.tobuf(tarfile.PAX_FORMAT))
            spans[member.name] = (file.tell(), len(data))
            if member.isreg():
                file.write(data + bytes(-len(data) % 512))
        file.write(bytes(1024))
    facts = {"shard_sha256": storage.sha256(path), "shard_bytes": path.stat().st_size}

    def agree(row: Row) -> None:
        if row["shard"] != path.stem:
            return
        row |= facts
        key = row["key"]
        for at in range(len(row["frame_numbers"])):
            row["frame_offsets"][at], row["frame_sizes"][at] = spans[f"{key}.{at:03d}.jpg"]
        row["landmarks_offset"], row["landmarks_size"] = spans[f"{key}.landmarks.npy"]
        row["json_offset"], row["json_size"] = spans[f"{key}.json"]

    rewrite(params, "shard", agree)
    path.with_suffix(".tar.sha256").write_text(f"{facts['shard_sha256']}  {path.name}\n")
    return path


def test_a_forged_tar_that_is_honest_passes(told: Params) -> None:
    forge(told, lambda members: None)
    assert verify.verify(told)["clips"]


@pytest.mark.parametrize(
    ("kind", "name", "target"),
    [
        (tarfile.SYMTYPE, "link.jpg", "/etc/passwd"),
        (tarfile.SYMTYPE, "../link.jpg", "../../secret"),
        (tarfile.LNKTYPE, "hard.jpg", "/etc/passwd"),
        (tarfile.CHRTYPE, "device", ""),
        (tarfile.FIFOTYPE, "fifo", ""),
        (tarfile.REGTYPE, "/etc/escaped", ""),
        (tarfile.REGTYPE, "../../../escaped", ""),
        (tarfile.REGTYPE, "payload.pyd", ""),
        (tarfile.REGTYPE, "key.pickle", ""),
    ],
)
def test_members_that_are_no_sample_are_a_lie_and_nothing_is_extracted(
    told: Params, tmp_path: Path, written: Any, kind: bytes, name: str, target: str
) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode, member.mtime = kind, target, 0o644, 0
    forge(told, lambda members: members.append((member, b"")))
    with written() as places, pytest.raises(verify.Lie):
        verify.verify(told)
    assert not places
    with written() as places:  # read by offsets: members that nobody indexed are never looked at
        loaded = episodes.Episodes(told.paths.manifest("shard"), f"{told.paths.data}/shards",
                                   "train", k=1, size=32)  # fmt: skip
        assert len(loaded) and loaded[0, 0].target.shape == (3, 32, 32)
    assert not places


def replace(suffix: str, data: bytes) -> Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        members[:] = [(m, data if m.name.endswith(suffix) else d) for m, d in members]

    return change


def pickled_npy(mark: Path) -> bytes:
    sink = io.BytesIO()
    np.save(sink, np.array([Payload(mark)], object), allow_pickle=True)
    return sink.getvalue()


def every_way(params: Params) -> list[str]:
    """What verify, the loader and the stream say."""
    said = []
    index, tars = params.paths.manifest("shard"), f"{params.paths.data}/shards"
    loads: list[Callable[[], Any]] = [
        lambda: verify.verify(params),
        lambda: episodes.Episodes(index, tars, "train", k=1, size=32)[0, 0],
        lambda: next(iter(EpisodeStream(index, tars, "train", k=1, size=32, epochs=1))),
    ]
    for load in loads:
        with pytest.raises((verify.Lie, ValueError)) as caught:
            load()
        said.append(str(caught.value))
    return said


def test_landmarks_that_are_a_pickle_do_not_run(told: Params, mark: Path) -> None:
    forge(told, replace(".landmarks.npy", pickled_npy(mark)))
    every_way(told)
    with pytest.raises(ValueError, match="pickle"):
        clips.unpack_arrays(npz_of(pickled_npy(mark)))["points"]
    assert not mark.exists()


def npz_of(npy: bytes) -> bytes:
    import zipfile

    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as file:
        file.writestr("points.npy", npy)
    return sink.getvalue()


def header(text: str) -> bytes:
    raw = text.encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(raw)) + raw


@pytest.mark.parametrize(
    "npy",
    [
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 68, 2)}\n"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 68, 2)}\n"),
        header("__import__('os').system('touch pwned')\n"),
        header("(" * 5000),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': ("),
        b"",
        b"\x80\x04.",
    ],
    ids=["huge", "negative", "code", "nested", "cut", "empty", "bare pickle"],
)
def test_hostile_landmark_headers_are_refused(
    told: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, npy: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    forge(told, replace(".landmarks.npy", npy))
    every_way(told)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"crop": 5}', "[" * 100_000, "NaN", '{"crop": {"size": 1e99}}', "\xff"]
)
def test_hostile_json_of_a_sample_is_a_lie(told: Params, text: str) -> None:
    forge(told, replace(".json", text.encode("latin-1")))
    with pytest.raises(verify.Lie):
        verify.verify(told)


def bomb(width: int, height: int) -> bytes:
    """A JPEG whose header claims a size; its data are those of a small one."""
    sink = io.BytesIO()
    Image.new("RGB", (16, 16)).save(sink, "JPEG")
    data = bytearray(sink.getvalue())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("side", [4000, 13_000, 65_000])
def test_a_picture_bomb_in_a_tar_is_refused_before_it_takes_memory(
    told: Params, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """13,000 squared are 500 MB, which Pillow itself only warns of; 65,000 it refuses."""
    loaded: list[tuple[int, int]] = []
    real = Image.Image.load

    def load(self: Image.Image) -> Any:
        loaded.append(self.size)
        return real(self)

    from PIL import ImageFile

    real_file = ImageFile.ImageFile.load

    def load_file(self: ImageFile.ImageFile) -> Any:
        loaded.append(self.size)
        return real_file(self)

    monkeypatch.setattr(Image.Image, "load", load)
    monkeypatch.setattr(ImageFile.ImageFile, "load", load_file)
    forge(told, replace(".jpg", bomb(side, side)))

    def grow(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        """The sample's own facts lie as well."""
        for at, (member, data) in enumerate(members):
            if member.name.endswith(".json"):
                facts = json.loads(data)
                facts["crop"]["size"] = side
                members[at] = (member, json.dumps(facts).encode())

    forge(told, grow)
    every_way(told)
    assert max(loaded, default=(0, 0))[0] < 4000


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF", "EPS", "PDF"])
def test_a_picture_of_another_kind_is_refused(told: Params, kind: str) -> None:
    """Pillow has a reader for each; EPS would even start Ghostscript."""
    sink = io.BytesIO()
    Image.new("RGB", (32, 32)).save(sink, kind)
    forge(told, replace(".jpg", sink.getvalue()))
    every_way(told)


def test_a_png_bomb_is_refused(told: Params) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    ihdr = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    forge(told, replace(".jpg", b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr)))
    every_way(told)


# --- parquet ----------------------------------------------------------------------------------


def test_a_pickle_in_a_parquet_s_metadata_does_not_run(
    make_shards: Any, mark: Path, tmp_path: Path
) -> None:
    """`arrow.py_extension_type` made pyarrow unpickle (CVE-2023-47248)."""
    shards = make_shards()
    table = pq.read_table(shards.index)
    payload = pickle.dumps(Payload(mark))
    at = table.schema.get_field_index("key")
    hostile = pa.field(
        "key",
        pa.string(),
        metadata={
            b"ARROW:extension:name": b"arrow.py_extension_type",
            b"ARROW:extension:metadata": payload,
        },
    )
    schema = table.schema.set(at, hostile).with_metadata({b"pandas": payload, b"pickle": payload})
    pq.write_table(table.cast(schema), shards.index)
    assert len(shards.open()) == 5
    assert len(manifest.read(str(shards.index)))
    assert not mark.exists()


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + bytes(64) + b"PAR1", pickle.dumps([1])])
def test_a_damaged_manifest_is_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.parquet").write_bytes(data)
    with pytest.raises(UserError, match="not a readable manifest"):
        ManifestReader(str(tmp_path / "m.parquet"))
