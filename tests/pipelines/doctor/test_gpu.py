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
    monkeypatch.setattr(gpu, "_seen", lambda: ("torch 2 sees none", ""))
    lines = list(gpu.gpu(make_params(**ASKING)))
    assert [line.level for line in lines] == ["fail"] * 3
    for section, line in zip(ASKING, lines, strict=True):
        assert f"{section}." in line.words and f"or {section}." in line.remedy
    monkeypatch.setattr(gpu, "_seen", lambda: ("", "H100"))
    assert {line.line().split()[0] for line in gpu.gpu(make_params(**ASKING))} == {"ok"}
    elsewhere = ASKING | {"ray": {"gpus_per_worker": 1, "address": "head:6379"}}
    assert len(list(gpu.gpu(make_params(**elsewhere)))) == 2


def test_torch_is_asked() -> None:
    torch = pytest.importorskip("torch")
    why, names = gpu._seen()
    assert bool(names) == torch.cuda.is_available() != bool(why)
