"""Models, people, checkpoints and weights that somebody else made: nothing in them runs."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forgery import Payload
from safetensors.torch import save_file
from tiny_setting import NETWORKS as TINY

from pipelines.errors import UserError
from pipelines.lineage import made
from training import perceptual, tensor_file, trained
from training.checkpoint import Checkpoints
from training.metrics import weights as metric_weights
from training.networks import Discriminator, Embedder, Generator, NetworkConfig
from training.perceptual import BackboneUnavailable, Weights
from training.tensor_file import DamagedFile

MANY = 10**9


def as_torch(path: Path, mark: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(2), "x": Payload(mark)}, path)


def as_old_torch(path: Path, mark: Path) -> None:
    torch.save({"x": Payload(mark)}, path, _use_new_zipfile_serialization=False)


def as_pickle(path: Path, mark: Path) -> None:
    path.write_bytes(pickle.dumps({"x": Payload(mark)}))


def as_npz(path: Path, mark: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        head = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n"
        body = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head
        file.writestr("features.0.weight.npy", body + pickle.dumps([Payload(mark)]))


WRITERS = [as_torch, as_old_torch, as_pickle, as_npz]


@pytest.mark.parametrize("suffix", ["pth", "pt", "npz", "safetensors"])
@pytest.mark.parametrize("write", WRITERS)
def test_a_payload_in_weights_of_a_backbone_or_metric_does_not_run(
    tmp_path: Path, mark: Path, write: Callable[[Path, Path], None], suffix: str
) -> None:
    path = tmp_path / f"weights.{suffix}"
    write(path, mark)
    with pytest.raises(BackboneUnavailable):
        perceptual.load("vgg19", Weights(str(path)))
    with pytest.raises(BackboneUnavailable):
        metric_weights.fill(torch.nn.Linear(2, 2), "lpips", Weights(str(path)))
    assert not mark.exists()


@pytest.mark.parametrize("write", WRITERS)
def test_a_payload_posing_as_a_model_a_person_or_a_checkpoint_does_not_run(
    tmp_path: Path, mark: Path, write: Callable[[Path, Path], None]
) -> None:
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    path = folder / "step-000000001.safetensors"
    write(path, mark)
    for read in (
        lambda: trained.load_model(path),
        lambda: tensor_file.read(path, trained.PERSON),
        lambda: tensor_file.read_facts(path, [trained.MODEL]),
        lambda: made.read(path),
    ):
        with pytest.raises(UserError):
            read()
    said: list[str] = []
    with pytest.raises(UserError, match="every checkpoint there is damaged"):
        Checkpoints(str(tmp_path / "run"), 3).newest(tmp_path, said.append)
    assert len(said) == 1
    assert not mark.exists()


def test_weights_from_an_address_need_their_sha256(tmp_path: Path) -> None:
    with pytest.raises(BackboneUnavailable, match="needs a sha256"):
        perceptual.load("vgg19", Weights("https://host/x.pth"), cache=tmp_path)
    (tmp_path / "x.pth").write_bytes(b"other")
    with pytest.raises(BackboneUnavailable, match="has sha256"):
        perceptual.load("vgg19", Weights(str(tmp_path / "x.pth"), sha256="0" * 64))


# --- safetensors that lie --------------------------------------------------------------------


def parts(networks: dict[str, Any]) -> dict[str, Any]:
    config = NetworkConfig(**networks)
    built = Embedder(config), Generator(config), Discriminator(config)
    return {n: p.state_dict() for n, p in zip(trained.PARTS, built, strict=True)}


def forge(path: Path, **changes: Any) -> Path:
    """A tiny model's file with other facts or tensors."""
    tensors, skeleton = tensor_file.flatten(parts(TINY))
    facts: dict[str, Any] = {"networks": TINY, "skeleton": skeleton} | changes
    tensor_file.write(path, trained.MODEL, tensors, facts)
    return path


def test_an_honest_model_is_read(tmp_path: Path) -> None:
    model = trained.load_model(forge(tmp_path / "m.safetensors"))
    assert model.size == 32


@pytest.mark.parametrize(
    "networks",
    [
        TINY | {"max_channels": 2**60, "min_channels": 2**59},
        TINY | {"max_channels": 8192, "min_channels": 8192},
        TINY | {"image_size": 2**40},
        TINY | {"image_size": 2**13, "generator_levels": 3, "max_channels": 8192},
        TINY | {"residual_blocks": MANY},
        TINY | {"residual_blocks": -1},
        TINY | {"generator_levels": MANY},
        TINY | {"image_size": "32"},
        TINY | {"colour": "red"},
        TINY | {"residual_blocks": 2},
        [],
        None,
        "paper",
    ],
    ids=str,
)
def test_a_model_that_lies_about_its_size_costs_no_memory(tmp_path: Path, networks: Any) -> None:
    with pytest.raises(UserError):
        trained.load_model(forge(tmp_path / "m.safetensors", networks=networks))


@pytest.mark.parametrize(
    "skeleton",
    [
        None,
        5,
        [],
        {"tensor": "nowhere"},
        {"dict": 5},
        {"dict": [[["a list"], 1]]},
        {"dict": [["embedder"]]},
        {"list": 3},
        {"unknown": 1},
        {"dict": [["embedder", {"dict": []}], ["generator", 1], ["discriminator", None]]},
    ],
    ids=str,
)
def test_a_skeleton_that_lies_is_one_line(tmp_path: Path, skeleton: Any) -> None:
    with pytest.raises(UserError):
        trained.load_model(forge(tmp_path / "m.safetensors", skeleton=skeleton))


ONE = {"a": torch.zeros(2)}
RIGHT = tensor_file._digest(ONE)


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"kind": "model"},
        {"kind": "model", "facts": {}},
        {"kind": "model", "facts": [], "sha256": RIGHT},
        {"kind": "model", "facts": "{", "sha256": RIGHT},
        {"kind": ["model"], "facts": {}, "sha256": RIGHT},
        {"kind": "../../model", "facts": {}, "sha256": RIGHT},
        [],
        "[" * 100_000,
        '{"format": "likeness-1", ',
    ],
    ids=lambda said: str(said)[:60],
)
def test_metadata_that_lie_are_one_line(tmp_path: Path, said: Any) -> None:
    if isinstance(said, dict):
        said = {"format": tensor_file.FORMAT} | said
    path = tmp_path / "m.safetensors"
    text = said if isinstance(said, str) else json.dumps(said)
    save_file(ONE, path, {tensor_file.KEY: text})
    for read in (tensor_file.read, lambda path, kind: tensor_file.read_facts(path, [kind])):
        with pytest.raises(UserError):
            read(path, "model")


def test_numbers_of_another_digest_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    said = {"format": tensor_file.FORMAT, "kind": "model", "facts": {}, "sha256": 7}
    save_file(ONE, path, {tensor_file.KEY: json.dumps(said)})
    with pytest.raises(DamagedFile, match="not the ones that were written"):
        tensor_file.read(path, "model")


@pytest.mark.parametrize("length", [2**63, 10**9, 0, 7])
def test_a_header_longer_than_its_file_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}")
    with pytest.raises(DamagedFile):
        tensor_file.read(path, "model")
    with pytest.raises(UserError):
        made.read(path)


def test_tensors_that_overlap_or_leave_the_file_are_refused(tmp_path: Path) -> None:
    path = forge(tmp_path / "m.safetensors")
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    name = next(n for n in header if n != "__metadata__")
    for offsets in ([0, 10**12], [0, 5], [-8, 8]):
        changed = header | {name: header[name] | {"data_offsets": offsets}}
        raw = json.dumps(changed).encode()
        path.write_bytes(struct.pack("<Q", len(raw)) + raw + data[8 + size :])
        with pytest.raises(UserError):
            trained.load_model(path)


def test_a_person_that_lies_is_one_line(tmp_path: Path) -> None:
    model = trained.load_model(forge(tmp_path / "m.safetensors"))
    path = tmp_path / "p.safetensors"
    mine = {"sha256": model.sha256}
    for facts in (
        {},
        {"model": 5},
        {"model": {"sha256": 7}},
        {"model": mine},
        {"model": mine, "skeleton": {"dict": [["tuned", True], ["generator", {"dict": []}]]}},
        {"model": mine, "skeleton": {"dict": [["tuned", False], ["psi", "no tensor"]]}},
    ):
        tensor_file.write(path, trained.PERSON, {"a": torch.zeros(1)}, facts)
        with pytest.raises(UserError):
            trained.load_person(path, model)
