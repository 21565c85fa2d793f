from __future__ import annotations

from collections.abc import Callable

import pytest

from pipelines.doctor import gpu
from pipelines.params import Params

ASKING = {
    "landmarks": {"device": "cuda:1"},
    "ray": {"gpus_per_worker": 1},
    "evaluate": {"device": "cuda"},
}


def test_none_is_asked_for(make_params: Callable[..., Params]) -> None:
    (line,) = gpu.gpu(make_params())
    assert line.line().split(maxsplit=2) == ["ok", "gpu", "none asked for"]


def test_a_line_for_every_key_that_asks(
    make_params: Callable[..., Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "_seen", lambda: ("torch 2 sees none", []))
    lines = list(gpu.gpu(make_params(**ASKING)))
    assert [line.level for line in lines] == ["fail"] * 3
    for section, line in zip(ASKING, lines, strict=True):
        assert line.words.startswith(f"{section}.")
        # A machine without a GPU is the common one: what it takes there comes first.
        assert line.remedy.startswith(f"{section}.")
    assert lines[0].remedy.startswith("landmarks.device: cpu, or a CUDA build")
    monkeypatch.setattr(gpu, "_seen", lambda: ("", ["H100", "H100"]))
    assert {line.line().split()[0] for line in gpu.gpu(make_params(**ASKING))} == {"ok"}
    elsewhere = ASKING | {"ray": {"gpus_per_worker": 1, "address": "head:6379"}}
    assert len(list(gpu.gpu(make_params(**elsewhere)))) == 2


def test_no_more_are_asked_for_than_there_are(
    make_params: Callable[..., Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "_seen", lambda: ("", ["H100"]))
    asking = {
        "landmarks": {"device": "cuda:9"},
        "ray": {"gpus_per_worker": 1, "workers": 2},
        "evaluate": {"device": "cuda:0"},
    }
    lines = list(gpu.gpu(make_params(**asking)))
    assert [line.level for line in lines] == ["fail", "fail", "ok"]
    assert lines[0].words == "landmarks.device cuda:9 wants 10 GPUs, torch sees 1"
    assert lines[1].words == "ray.gpus_per_worker wants 2 GPUs, torch sees 1"


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("landmarks", {"backend": "mediapipe", "device": "cuda"}, "mediapipe runs on the CPU only"),
        ("landmarks", {"device": "gpu"}, "landmarks.device: 'gpu' is none of"),
        ("evaluate", {"device": "cuda:x"}, "evaluate.device: 'cuda:x' is none of"),
    ],
)
def test_what_a_stage_refuses_is_told(
    make_params: Callable[..., Params], section: str, values: dict[str, str], words: str
) -> None:
    (line,) = gpu.gpu(make_params(**{section: values}))
    assert line.level == "fail" and words in line.words


def test_torch_is_asked() -> None:
    torch = pytest.importorskip("torch")
    why, names = gpu._seen()
    assert bool(names) == torch.cuda.is_available() != bool(why)
