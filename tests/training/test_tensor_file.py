from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import UserError
from training import tensor_file, trained
from training.finetune import feed_forward
from training.meta import MetaLearner

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
LEAF = PLAIN | st.integers(1, 5).map(lambda n: torch.arange(n, dtype=torch.float32))
STATE = st.dictionaries(
    st.integers(0, 9) | st.text("abc./", min_size=1),
    st.recursive(LEAF, lambda inner: st.lists(inner) | st.dictionaries(st.integers(0, 9), inner)),
)


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@settings(max_examples=30)
@given(STATE.filter(lambda s: len({str(k) for k in s}) == len(s)))
def test_flattening_is_undone(state: dict[object, object]) -> None:
    tensors, skeleton = tensor_file.flatten(state)
    assert same(state, tensor_file.unflatten(tensors, json.loads(json.dumps(skeleton))))


def test_a_learner_s_state_survives_the_file(
    tmp_path: Path, make_learner: Callable[..., MetaLearner]
) -> None:
    learner = make_learner()
    tensors, skeleton = tensor_file.flatten(learner.state_dict())
    tensor_file.write(tmp_path / "x", "checkpoint", tensors, {"skeleton": skeleton})
    read, facts = tensor_file.read(tmp_path / "x", "checkpoint")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in read)
    make_learner(seed=1).load_state_dict(tensor_file.unflatten(read, facts["skeleton"]))
    assert tensor_file.read_facts(tmp_path / "x", ["model", "checkpoint"])[0] == "checkpoint"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "it.safetensors"
    tensor_file.write(path, "model", {"a": torch.arange(1000.0)}, {"x": 1})
    return path


def test_other_processes_write_the_same_bytes(file: Path, tmp_path: Path) -> None:
    code = (
        "import sys, torch; from pathlib import Path; from training import tensor_file\n"
        "tensor_file.write(Path(sys.argv[1]), 'model', {'a': torch.arange(1000.0)}, {'x': 1})"
    )
    for n in range(3):  # by itself, safetensors orders a header's metadata at random
        other = tmp_path / f"{n}.safetensors"
        subprocess.run([sys.executable, "-c", code, str(other)], check=True)
        assert other.read_bytes() == file.read_bytes()


def test_it_has_the_permissions_of_the_user_s_files(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.touch()
    assert file.stat().st_mode == other.stat().st_mode


@pytest.mark.parametrize("keep", [0, 1, 7, 60, 900, -1])
def test_a_truncated_file_is_never_taken_for_a_whole_one(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(tensor_file.DamagedFile, match=r"it\.safetensors.*get it anew"):
        tensor_file.read(file, "model")


def test_a_flipped_bit_is_seen(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    with pytest.raises(tensor_file.DamagedFile, match="not the ones that were written"):
        tensor_file.read(file, "model")


def test_a_flipped_bit_of_the_facts_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "it.safetensors"
    tensor_file.write(path, "model", {"a": torch.ones(2)}, {"rates": {1: 5e-05}, "step": 3})
    kept = {"rates": {"1": 5e-05}, "step": 3}  # as JSON keeps keys
    assert tensor_file.read(path, "model")[1] == kept
    path.write_bytes(path.read_bytes().replace(b"5e-05", b"9e-05"))
    with pytest.raises(tensor_file.DamagedFile, match="facts are not the ones"):
        tensor_file.read(path, "model")
    with pytest.raises(tensor_file.DamagedFile, match="facts are not the ones"):
        tensor_file.read_facts(path, ["model"])


def test_what_is_not_ours_is_told(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a model, not a person"):
        tensor_file.read(file, "person")
    with pytest.raises(UserError, match="no such file"):
        tensor_file.read(tmp_path / "none", "model")
    (tmp_path / "text").write_text("hello, this is no file of tensors at all")
    with pytest.raises(UserError, match="damaged, cut short or no file of ours"):
        tensor_file.read(tmp_path / "text", "model")
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, tmp_path / "foreign")
    with pytest.raises(UserError, match="not written by Likeness"):
        tensor_file.read(tmp_path / "foreign", "model")


def test_what_cannot_be_kept_is_refused() -> None:
    with pytest.raises(TypeError, match="/a: a set"):
        tensor_file.flatten({"a": {1}})


def test_models_and_people_come_back(
    tmp_path: Path, make_learner: Callable[..., MetaLearner]
) -> None:
    learner = make_learner()
    trained.save_model(str(tmp_path / "m"), learner, {"name": "here"})
    model = trained.load_model(tmp_path / "m")
    assert model.facts["name"] == "here" and model.size == 32
    e_hat = torch.randn(1, learner.networks.embedding)
    person = feed_forward(model.generator, e_hat)
    trained.save_person(str(tmp_path / "p"), person, model, {"kind": "person"})
    again, facts = trained.load_person(tmp_path / "p", model)
    assert torch.equal(again.psi, person.psi) and facts["model"]["sha256"] == model.sha256
    landmarks = torch.rand(1, 3, 32, 32)
    assert torch.equal(again.render(landmarks), person.render(landmarks))

    trained.save_model(str(tmp_path / "other"), make_learner(seed=5), {})
    with pytest.raises(UserError, match=r"from the model with sha256 .*a run keeps its own"):
        trained.load_person(tmp_path / "p", trained.load_model(tmp_path / "other"))
    with pytest.raises(UserError, match="is a person, not a model"):
        trained.load_model(tmp_path / "p")
