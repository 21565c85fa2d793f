"""Tars and pictures that somebody else wrote, read by loader, stream and verify."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forgery import Payload, rewrite
from PIL import Image

from pipelines import clips, storage, verify
from pipelines.params import Params
from training import episodes
from training.stream import EpisodeStream

Row = dict[str, Any]


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
