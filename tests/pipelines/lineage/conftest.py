"""A dataset, and what was made of it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from relatives import URL, model_facts, write_tensors, write_video

from pipelines import shard, storage
from pipelines.params import Params
from pipelines.params import load as load_params


@pytest.fixture
def project(
    finished: Callable[..., Params],
    without_beam: list[list[str]],
    params_file: Callable[[Params], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Params:
    """A dataset with clips of id0 and id3 in train, id1 in val, id2 in test."""
    paths = {name: str(tmp_path / name) for name in ("data", "work", "metrics", "cards")}
    paths |= {"models": str(tmp_path / "models"), "results": str(tmp_path / "results")}
    params = finished(videos=(3, 3, 3, 3), paths=paths, download={"url": URL})
    path = params_file(params)
    assert shard.main(["--params", path]) == 0
    monkeypatch.chdir(tmp_path)
    return load_params(path)


@pytest.fixture
def digest(project: Params) -> str:
    return storage.sha256(Path(project.paths.manifest("shard")))


@pytest.fixture
def family(project: Params, digest: str, tmp_path: Path) -> Iterator[dict[str, Path]]:
    """A model, a checkpoint, a person adapted from the model and a video of that person."""
    model = tmp_path / "models/small.safetensors"
    of_model = {"sha256": write_tensors(model, "model", model_facts(digest))}
    of_model["facts"] = model_facts(digest)  # type: ignore[assignment]
    checkpoint = tmp_path / "work/runs/r/checkpoints/step-000000090.safetensors"
    write_tensors(checkpoint, "checkpoint", model_facts(digest))
    person = tmp_path / "people/mona.safetensors"
    frames = {"kind": "frames", "sha256": "f1" * 32, "name": "mona.jpg"}
    facts = {"variant": "ft", "model": of_model, "parents": [frames]}
    of_person = write_tensors(person, "person", facts)
    facts = {
        "model": of_model,
        "person": of_person,
        "driver": {"name": "d.mp4", "sha256": "d1" * 32},
    }
    video = write_video(tmp_path / "people/mona.mp4", facts)
    yield {"model": model, "checkpoint": checkpoint, "person": person, "video": video}
