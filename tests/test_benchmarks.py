"""The benchmarks' command lines: a mistake is one line, a missed target an exit status."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from benchmarks import catalog, crop, overhead, scale


def call(monkeypatch: pytest.MonkeyPatch, module: ModuleType, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, words)])
    return module.main() or 0


def mistake(monkeypatch: pytest.MonkeyPatch, module: ModuleType, *words: object) -> None:
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, module, *words)
    assert stopped.value.code == 2


@pytest.mark.parametrize("module", [catalog, scale])
@pytest.mark.parametrize("sizes", ["ten", "10,", "0", "-3", "1.5"])
def test_sizes_that_are_none(monkeypatch, capsys, module, sizes):
    mistake(monkeypatch, module, f"--sizes={sizes}")
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"argument --sizes: invalid sizes value: {sizes!r}" in line


def test_ffmpeg_is_the_system_s_or_the_wheel_s_or_asked_for(monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    assert crop.ffmpeg_program() == "/bin/ffmpeg"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    wheel = SimpleNamespace(get_ffmpeg_exe=lambda: "/wheel/ffmpeg")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", wheel)
    assert crop.ffmpeg_program() == "/wheel/ffmpeg"
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    mistake(monkeypatch, crop)
    assert "no ffmpeg program: install it, or pip install" in capsys.readouterr().err


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for name in ("videos", "metadata/voxceleb2/txt"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("missing", ["", "videos", "metadata/voxceleb2/txt"])
def test_a_corpus_that_is_none(monkeypatch, capsys, corpus, missing):
    if missing:
        (corpus / missing).rmdir()
    mistake(monkeypatch, overhead, "--corpus", corpus if missing else corpus / "nowhere")
    assert "expected videos/ and metadata/voxceleb2/txt/" in capsys.readouterr().err


@pytest.mark.parametrize(("stage", "status"), [(11.0, 0), (11.1, 1)])
def test_a_missed_target_is_an_exit_status(monkeypatch, capsys, corpus, stage, status):
    def spent(*words: str) -> float:
        return stage if "pipelines.crop" in words else 10.0

    monkeypatch.setattr(overhead, "cpu_seconds", spent)
    assert call(monkeypatch, overhead, "--corpus", corpus) == status
    assert f"ratio {stage / 10:.3f}, target 1.10" in capsys.readouterr().out
