"""Checks of what is installed and of what answers: Python, libraries, codecs, programs, runners."""

from __future__ import annotations

import datetime
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib import metadata
from pathlib import Path

import av
import numpy as np
from packaging.requirements import Requirement
from packaging.version import Version

from pipelines.doctor.verdict import Verdicts, address, fail, knock, ok, warn
from pipelines.errors import clean_detail
from pipelines.params import Params

PYTHONS = ((3, 11), (3, 12))
OLD = 60
"""Days after which yt-dlp has mostly lost touch with YouTube."""
BACKEND_EXTRA = {"mediapipe": "mediapipe", "face_alignment": "face-alignment"}
NEEDED_FOR = {"card": "the card stage", "train": "training"}


def is_youtube(params: Params) -> bool:
    """Whether videos are asked for at YouTube."""
    host = address(params.download.url, 443)
    return host is not None and host[0].removeprefix("www.") in ("youtube.com", "youtu.be")


def python(params: Params) -> Verdicts:
    """The interpreter's version."""
    words = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    if sys.version_info[:2] in PYTHONS:
        yield ok("python", words)
    else:
        yield fail("python", words, "use Python 3.11 or 3.12")


def libraries(params: Params) -> Verdicts:
    """Every library that this params.yaml needs, against the versions that work together."""
    try:
        wanted = [Requirement(line) for line in metadata.requires("likeness") or ()]
    except metadata.PackageNotFoundError:
        yield warn(
            "libraries",
            "likeness itself is not installed, so its versions cannot be compared",
            "pip install --no-deps --editable .",
        )
        return
    backend = BACKEND_EXTRA[params.landmarks.backend]
    for extra in ("", backend, "card", "train"):
        found, missing = _compare(wanted, extra)
        name = f"lib {extra}" if extra else "libraries"
        remedy = f"pip install 'likeness[{extra}]'" if extra else "pip install -r requirements.txt"
        words = ", ".join(missing)
        if not missing:
            yield ok(name, ", ".join(found))
        elif extra in NEEDED_FOR:
            yield warn(name, f"{words}: needed for {NEEDED_FOR[extra]}", remedy)
        else:
            yield fail(name, words, remedy)


def _compare(wanted: list[Requirement], extra: str) -> tuple[list[str], list[str]]:
    found, missing = [], []
    for requirement in wanted:
        marker = requirement.marker
        plain = marker is None or marker.evaluate({"extra": ""})
        chosen = (
            plain if not extra else (not plain and marker and marker.evaluate({"extra": extra}))
        )
        if not chosen:
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            missing.append(f"{requirement.name} is missing")
            continue
        if requirement.specifier.contains(Version(version), prereleases=True):
            found.append(f"{requirement.name} {version}")
        else:
            missing.append(f"{requirement.name} is {version}, wanted {requirement.specifier}")
    return found, missing


def codecs(params: Params) -> Verdicts:
    """H.264 and AAC, both ways, tried on ten frames."""
    frames, rate = 10, params.crop.audio_rate
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "try.mp4"
        with av.open(str(path), "w") as out:
            video = out.add_stream("libx264", 25, options={"preset": params.crop.preset})
            video.width = video.height = 64
            video.pix_fmt = "yuv420p"
            audio = out.add_stream("aac", rate=rate, layout="mono")
            picture = np.zeros((64, 64, 3), np.uint8)
            for shade in range(frames):
                picture[:] = 20 * shade
                out.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            sound = av.AudioFrame.from_ndarray(
                np.zeros((1, rate * frames // 25), np.float32), format="fltp", layout="mono"
            )
            sound.sample_rate = rate
            out.mux(audio.encode(sound))
            out.mux(video.encode(None))
            out.mux(audio.encode(None))
        with av.open(str(path)) as back:
            pictures = sum(1 for _ in back.decode(video=0))
        with av.open(str(path)) as back:
            samples = sum(frame.samples for frame in back.decode(audio=0))
    if pictures == frames and samples >= rate * frames // 25:
        yield ok("codecs", f"h264 and aac written and read back (PyAV {av.__version__})")
    else:
        yield fail(
            "codecs",
            f"{frames} frames in, {pictures} out, {samples} samples of sound",
            "reinstall PyAV from its wheel: pip install --force-reinstall av",
        )


def yt_dlp(params: Params) -> Verdicts:
    """Its age, by the date in its version."""
    from yt_dlp.version import __version__

    numbers = [int(n) for n in re.findall(r"\d+", __version__)[:3]]
    released = datetime.date(*numbers)
    age = (datetime.date.today() - released).days
    words = f"{__version__}, {age} days old"
    if age < 0:
        yield fail("yt-dlp", f"{words}: it comes from the future", "set this machine's clock")
    elif age > OLD:
        yield warn("yt-dlp", words, "pip install --upgrade 'yt-dlp[default]': sites change monthly")
    else:
        yield ok("yt-dlp", words)


def javascript(params: Params) -> Verdicts:
    """The runtime that yt-dlp needs for YouTube, run once."""
    name, _, path = (params.download.js_runtime or "deno").partition(":")
    program = {"quickjs": "qjs"}.get(name, name)
    beside = Path(sys.executable).parent / program
    found = path or shutil.which(program) or (str(beside) if beside.exists() else None)
    version = _version(found) if found else None
    if version:
        yield ok("javascript", f"{name}: {version}")
    elif not is_youtube(params):
        yield ok("javascript", f"no {name}, and none needed: download.url is not YouTube")
    else:
        what = f"{found} does not run" if found else f"no {name} found"
        yield fail("javascript", what, "pip install 'likeness[youtube]', or set js_runtime")


def ffmpeg(params: Params) -> Verdicts:
    """The program with which yt-dlp joins sound and picture."""
    found = shutil.which("ffmpeg")
    if found is None and importlib.util.find_spec("imageio_ffmpeg"):
        import imageio_ffmpeg

        found = str(imageio_ffmpeg.get_ffmpeg_exe())
    if found and (version := _version(found, "-version")):
        yield ok("ffmpeg", version)
        return
    say = fail if is_youtube(params) else warn
    what = "no ffmpeg program" if found is None else f"{found} does not run"
    yield say(
        "ffmpeg",
        f"{what}: sites that keep sound and picture apart fail with no_format",
        "pip install 'likeness[youtube]', or install ffmpeg",
    )


def _version(program: str, flag: str = "--version") -> str | None:
    try:
        done = subprocess.run([program, flag], capture_output=True, timeout=15, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    words = done.stdout.decode("utf-8", "replace").split("\n")[0].split()
    # `ffmpeg version n8.0 Copyright (c) 2000-2026`, `deno 2.1.4 (stable, ...)`, `v22.1.0`
    named = words[words.index("version") + 1 :][:1] if "version" in words else []
    numbers = [word for word in words if re.match(r"v?\d", word)]
    return next(iter(named + numbers), " ".join(words[:3]) or "runs")


# --- runners ---------------------------------------------------------------------------------


def beam(params: Params) -> Verdicts:
    """The runner can be built, and where it is elsewhere, it answers."""
    from pipelines.runner import build_nothing

    own = params.beam
    try:
        build_nothing(params)
    except Exception as error:  # noqa: BLE001 - runners raise whatever they like
        yield fail("beam", f"{own.runner}: {clean_detail(error)}", "mend beam in params.yaml")
        return
    keys = ("job_endpoint", "flink_master", "spark_master_url", "artifact_endpoint")
    for key in keys:
        value = str(own.options.get(key) or "")
        if not value or value in ("[local]", "[auto]", "embed") or value.startswith("local"):
            continue
        place = address(value)
        if place is None:
            yield fail("beam", f"{key} {value!r} is no host:port", "mend beam.options")
            return
        if why := knock(*place):
            yield fail(
                "beam", f"{key} {value} does not answer: {why}", "start it, or mend the port"
            )
            return
    yield ok("beam", f"{own.runner}, {own.options.get('direct_num_workers', 1)} workers")


def ray(params: Params) -> Verdicts:
    """The cluster that params.yaml or RAY_ADDRESS names answers."""
    where = params.ray.address or os.environ.get("RAY_ADDRESS")
    if not where or where == "local":
        yield ok("ray", "a cluster of this machine, for the run alone")
        return
    if where == "auto":
        yield warn("ray", "address auto: whatever runs here is joined", "name it as host:port")
        return
    if where.startswith("ray://"):
        yield fail(
            "ray", f"{where}: Ray Train drives no cluster from outside", "name it as host:6379"
        )
        return
    place = address(where)
    if place is None:
        yield fail("ray", f"{where!r} is no host:port", "mend ray.address or RAY_ADDRESS")
    elif why := knock(*place):
        yield fail("ray", f"{where} does not answer: {why}", "start it: ray start --head")
    else:
        yield ok("ray", f"{where} answers")


def compiler(params: Params) -> Verdicts:
    """torch.compile builds its kernels on the machine that trains, with a C++ compiler."""
    setting = params.settings.get(params.setting) if params.setting else None
    if setting is None or not setting.meta.compile or params.ray.address not in (None, "local"):
        yield ok("compiler", "none needed here")
        return
    found = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
    headers = Path(sysconfig.get_path("include"), "Python.h")
    key = f"settings.{params.setting}.meta.compile"
    remedy = f"install g++ and Python's headers (python3-dev), or {key}: false"
    if not found:
        yield fail("compiler", f"{key} wants a C++ compiler, and there is none", remedy)
    elif not headers.is_file():
        yield fail("compiler", f"{key} wants {headers}, which is not there", remedy)
    else:
        yield ok("compiler", found)
