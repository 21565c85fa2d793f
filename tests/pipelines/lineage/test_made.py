"""What files say of their own making."""

from pathlib import Path
from typing import Any

import pytest
from relatives import model_facts, run, write_video

from pipelines.lineage import made
from pipelines.lineage.__main__ import main
from pipelines.params import Params


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 16,
        (2**62).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (200_000).to_bytes(8, "little") + b"[" * 200_000,
    ],
)
def test_headers_that_lie(project: Params, data: bytes) -> None:
    Path("x.safetensors").write_bytes(data)
    assert main(["x.safetensors"]) == 2


def test_facts_that_nest_without_end(
    project: Params, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts: dict[str, Any] = {}
    for _ in range(100):
        facts = {"model": {"sha256": "aa" * 32, "facts": facts}}
    video = write_video(tmp_path / "results/deep.mp4", facts)
    assert run(capsys, str(video))["kind"] == "video"
    assert run(capsys, "--clip", "k")["made"] == []


def test_embedded_credentials_stand_in_for_a_lost_sidecar(
    project: Params, digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("c2pa")
    pytest.importorskip("torch")
    from PIL import Image

    from training.marking import keys, sidecar_path, sign

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    picture = tmp_path / "results/p.png"
    picture.parent.mkdir()
    Image.new("RGB", (8, 8)).save(picture)
    facts = {"model": {"sha256": "", "facts": model_facts(digest)}}
    sign(picture, facts=facts, label=None, keys=keys(None, None))
    with_sidecar = made.read(picture)
    sidecar_path(picture).unlink()
    assert made.read(picture) == with_sidecar
    assert with_sidecar.facts == facts
    assert list(made.find([tmp_path / "results"])) == [with_sidecar]


def test_constants_agree_with_those_who_write() -> None:
    pytest.importorskip("c2pa")
    pytest.importorskip("torch")
    from training import tensor_file
    from training.marking import credentials

    assert (tensor_file.FORMAT, tensor_file.KEY) == (made.TENSOR_FORMAT, made.TENSOR_KEY)
    assert (credentials.FORMAT, credentials.SUFFIX) == (made.SIDECAR_FORMAT, made.SIDECAR)
    assert credentials.ASSERTION == made.ASSERTION
    assert tuple(sorted(credentials.TYPES)) == tuple(sorted(made.MEDIA))
