"""Checks of what is installed and of what answers."""

from __future__ import annotations

import datetime
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from visit import lines, told

from pipelines.doctor import checks, software
from pipelines.params import Params

MakeParams = Callable[..., Params]


def test_codecs(make_params: MakeParams, monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(software.codecs(make_params())) == {"codecs": "ok"}

    def no_encoder(*_: object, **__: object) -> None:
        raise ValueError("Encoder libx264 not found")

    monkeypatch.setattr(software.av, "open", no_encoder)
    chosen = (checks.Check("codecs", software.codecs),)
    assert "libx264 not found" in lines(checks.run(make_params(), chosen))


def test_libraries(make_params: MakeParams, monkeypatch: pytest.MonkeyPatch) -> None:
    params = make_params(landmarks={"backend": "mediapipe"})
    wanted = ["numpy>=1", "pyarrow<1", 'nothere; extra == "mediapipe"', 'nor; extra == "train"']
    monkeypatch.setattr(software.metadata, "requires", lambda _: wanted)
    found = told(software.libraries(params))
    assert found == {
        "libraries": "fail",
        "lib mediapipe": "fail",
        "lib card": "ok",
        "lib train": "warn",
    }
    assert "pyarrow is" in lines(software.libraries(params))


@pytest.mark.parametrize(("age", "level"), [(0, "ok"), (59, "ok"), (61, "warn"), (-3, "fail")])
def test_the_age_of_yt_dlp(
    make_params: MakeParams, monkeypatch: pytest.MonkeyPatch, age: int, level: str
) -> None:
    released = datetime.date.today() - datetime.timedelta(days=age)
    monkeypatch.setattr("yt_dlp.version.__version__", released.strftime("%Y.%m.%d.1"))
    assert told(software.yt_dlp(make_params())) == {"yt-dlp": level}


def test_programs(make_params: MakeParams, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    youtube = make_params(download={"js_runtime": f"deno:{tmp_path}/deno"})
    other = make_params(download={"url": "http://x/{video_id}", "js_runtime": "bun:/none"})
    assert told(software.javascript(youtube)) == {"javascript": "fail"}
    assert told(software.javascript(other)) == {"javascript": "ok"}
    program = tmp_path / "deno"
    for words, version in (
        ("deno 2.0.1 (stable, release, x86_64)", "2.0.1"),
        ("v22.1.0", "v22.1.0"),
        ("ffmpeg version N-109468-gd39b Copyright", "N-109468-gd39b"),
        ("ffmpeg version n8.0 Copyright (c) 2000-2026 the FFmpeg developers", "n8.0"),
        ("ffmpeg version git-2026-03-01-ab12cd Copyright", "git-2026-03-01-ab12cd"),
        ("a word or two", "a word or"),
        ("", "runs"),
    ):
        program.write_text(f"#!/bin/sh\necho '{words}'\n")
        program.chmod(0o755)
        assert lines(software.javascript(youtube)).rstrip().endswith(f"deno: {version}")
    monkeypatch.setattr(shutil, "which", lambda _: str(tmp_path / "none"))
    assert told(software.ffmpeg(youtube)) == {"ffmpeg": "fail"}
    assert told(software.ffmpeg(other)) == {"ffmpeg": "warn"}


def test_beam(
    make_params: MakeParams,
    port: int,
    closed: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))

    def beam(**values: Any) -> str:
        return told(software.beam(make_params(beam=values)))["beam"]

    assert beam() == "ok"
    assert beam(runner="NoSuchRunner") == "fail"
    portable = {"runner": "PortableRunner"}
    assert beam(**portable, options={"job_endpoint": f"127.0.0.1:{port}"}) == "ok"
    assert beam(**portable, options={"job_endpoint": f"127.0.0.1:{closed}"}) == "fail"
    assert beam(**portable, options={"job_endpoint": "nonsense"}) == "fail"
    assert list(temporary.iterdir()) == []


def test_ray(
    make_params: MakeParams, monkeypatch: pytest.MonkeyPatch, port: int, closed: int
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert told(software.ray(make_params())) == {"ray": "ok"}
    assert told(software.ray(make_params(ray={"address": f"127.0.0.1:{port}"}))) == {"ray": "ok"}
    for wrong in (f"127.0.0.1:{closed}", f"ray://127.0.0.1:{port}", "head"):
        monkeypatch.setenv("RAY_ADDRESS", wrong)
        assert told(software.ray(make_params())) == {"ray": "fail"}


def test_what_compiles(
    make_params: MakeParams, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content = {"content": {"pixels": {"weight": 1.0}}}

    def line(compile: bool, **ray: str) -> str:
        settings = {"paper": content | {"meta": {"compile": compile}}}
        (told,) = software.compiler(make_params(settings=settings, ray=ray))
        return told.line()

    assert line(False).split(maxsplit=2) == ["ok", "compiler", "none needed here"]
    program = tmp_path / "c++"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("CXX", str(program))
    monkeypatch.setattr(software.sysconfig, "get_path", lambda _: str(tmp_path))
    assert "Python.h, which is not there" in line(True)
    (tmp_path / "Python.h").touch()
    assert line(True).split()[0] == "ok"
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("PATH", "")
    assert "wants a C++ compiler" in line(True) and "meta.compile: false" in line(True)
    assert "none needed here" in line(True, address="head:6379")
