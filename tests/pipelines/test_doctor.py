"""The doctor: every check can say ok and fail, none takes it down, and the plan comes true."""

from __future__ import annotations

import datetime
import hashlib
import http.server
import os
import resource
import shutil
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from dvc.cli import main as dvc

from pipelines import catalog
from pipelines.doctor import checks, inputs, machine, plan, rates, software, weights
from pipelines.doctor.__main__ import main
from pipelines.doctor.corpus import Corpus, count, voxceleb2
from pipelines.doctor.verdict import Verdict, Verdicts, address, fail, knock, ok
from pipelines.errors import UserError
from pipelines.params import Params, load

MakeParams = Callable[..., Params]
Found = dict[str, str]


def told(found: Verdicts) -> Found:
    """The level of each line by its name."""
    return {verdict.name: verdict.level for verdict in found}


def lines(found: Verdicts) -> str:
    return "\n".join(verdict.line() for verdict in found)


@pytest.fixture
def port() -> Iterator[int]:
    """Something that takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed() -> int:
    """A port where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        number: int = server.getsockname()[1]
    return number


# --- running checks --------------------------------------------------------------------------


def test_no_check_takes_the_doctor_down(make_params: MakeParams) -> None:
    def dies(params: Params) -> Verdicts:
        yield ok("before", "fine")
        raise ZeroDivisionError("at https://me:secret@host/x")

    def leaves(params: Params) -> Verdicts:
        sys.exit(3)
        yield

    def hangs(params: Params) -> Verdicts:
        time.sleep(30)
        yield ok("late", "never said")

    def works(params: Params) -> Verdicts:
        yield ok("works", "fine")

    chosen = [checks.Check("dies", dies), checks.Check("leaves", leaves)]
    chosen += [checks.Check("hangs", hangs, 0.1), checks.Check("works", works)]
    found = list(checks.run(make_params(), tuple(chosen)))
    assert [(v.name, v.level) for v in found] == [
        ("before", "ok"),
        ("dies", "fail"),
        ("leaves", "fail"),
        ("hangs", "fail"),
        ("works", "ok"),
    ]
    assert "ZeroDivisionError" in found[1].words
    assert "secret" not in found[1].line()
    assert "0.1 s" in found[3].words


def test_a_line_tells_no_secret() -> None:
    line = Verdict("fail", "proxy", "socks5://me:secret@host:1\nis down", "see ?token=abc").line()
    assert line == "fail  proxy          socks5://***@host:1 is down; see ?token=***"


def test_addresses(port: int, closed: int) -> None:
    assert address("host:8080") == ("host", 8080)
    assert address("[::1]:99") == ("::1", 99)
    assert address("ray://head", 10001) == ("head", 10001)
    assert address("host") is None
    assert address("host:port") is None
    assert knock("127.0.0.1", port) == ""
    assert "refused" in knock("127.0.0.1", closed)


def test_every_check_runs_here(
    make_params: MakeParams,
    params_file: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    exit_codes: list[int],
) -> None:
    """The whole command: annotations are missing, the rest is well or can be lived with."""
    params = make_params(
        landmarks={"backend": "mediapipe"}, download={"url": "http://x/{video_id}"}
    )
    assert main(["--params", params_file(params)]) == 1
    said = capsys.readouterr().out.splitlines()
    failed = {line.split("  ")[1].strip() for line in said if line.startswith("fail")}
    assert failed <= {"list vox", "space", "weights"}
    assert "list vox" in failed
    assert all(line.split(" ")[0] in ("ok", "warn", "fail") for line in said[:-1])
    assert said[-1].startswith("doctor: ")
    assert not list(tmp_path.glob("work/*")), "a check leaves nothing behind"


# --- what is installed -----------------------------------------------------------------------


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
    program.write_text("#!/bin/sh\necho deno 2.0\n")
    program.chmod(0o755)
    assert "deno 2.0" in lines(software.javascript(youtube))
    monkeypatch.setattr(shutil, "which", lambda _: str(tmp_path / "none"))
    assert told(software.ffmpeg(youtube)) == {"ffmpeg": "fail"}
    assert told(software.ffmpeg(other)) == {"ffmpeg": "warn"}


def test_weights(make_params: MakeParams, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIKENESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda _: object())
    here = tmp_path / "net.pth"
    here.write_bytes(b"weights")
    true, sha = hashlib.sha256(b"weights").hexdigest(), hashlib.sha256(b"others").hexdigest()
    params = make_params(
        settings={
            "paper": {
                "content": {
                    "vgg19": {"weight": 1.0},
                    "vggface": {"weight": 1.0, "url": str(here), "sha256": sha},
                    "squeezenet": {"weight": 1.0, "url": str(here), "sha256": true[:12]},
                    "random": {"weight": 1.0},
                }
            }
        },
        evaluate={"identity": {"arcface": {"url": "https://x/y.onnx"}}},
    )
    found = lines(weights.weights(params)).splitlines()
    by_word = {
        word: line[:4]
        for word in ("2DFAN4", "vgg19", "vggface", "squeeze", "arcface")
        for line in found
        if word in line
    }
    assert by_word == {
        "2DFAN4": "warn",
        "vgg19": "warn",
        "vggface": "fail",
        "squeeze": "ok  ",
        "arcface": "fail",
    }
    # Where training looks for it, a file that is not what its name says is a failure.
    cached = tmp_path / "cache" / "likeness" / "weights" / "vgg19-d01eb7cb.pth"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"other")
    assert "has sha256" in next(
        x for x in lines(weights.weights(params)).splitlines() if "vgg19" in x
    )


def test_the_backbone_is_the_one_that_training_fetches() -> None:
    perceptual = pytest.importorskip("training.perceptual", reason="needs torch")
    known = perceptual.CAFFE_VGG19
    assert (known.url, known.sha256) == weights.VGG19


def test_beam(make_params: MakeParams, port: int, closed: int) -> None:
    def beam(**values: Any) -> str:
        return told(software.beam(make_params(beam=values)))["beam"]

    assert beam() == "ok"
    assert beam(runner="NoSuchRunner") == "fail"
    portable = {"runner": "PortableRunner"}
    assert beam(**portable, options={"job_endpoint": f"127.0.0.1:{port}"}) == "ok"
    assert beam(**portable, options={"job_endpoint": f"127.0.0.1:{closed}"}) == "fail"
    assert beam(**portable, options={"job_endpoint": "nonsense"}) == "fail"


def test_ray(
    make_params: MakeParams, monkeypatch: pytest.MonkeyPatch, port: int, closed: int
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert told(software.ray(make_params())) == {"ray": "ok"}
    assert told(software.ray(make_params(ray={"address": f"127.0.0.1:{port}"}))) == {"ray": "ok"}
    for wrong in (f"127.0.0.1:{closed}", f"ray://127.0.0.1:{closed}", "head"):
        monkeypatch.setenv("RAY_ADDRESS", wrong)
        assert told(software.ray(make_params())) == {"ray": "fail"}


# --- what a rebuild starts from --------------------------------------------------------------


def cookie(name: str, end: float, value: str = "hush") -> str:
    return "\t".join((".youtube.com", "TRUE", "/", "TRUE", str(int(end)), name, value))


@pytest.mark.parametrize(
    ("body", "level", "word"),
    [
        ([cookie("SID", time.time() + 1e7), cookie("x", 1)], "ok", "good until"),
        ([cookie("SID", time.time() + 3600)], "warn", "good until"),
        ([cookie("SID", time.time() - 9e5)], "fail", "ran out on"),
        ([cookie("PREF", time.time() + 1e7)], "warn", "none of a signed-in"),
        (["hush hush"], "fail", "Netscape"),
    ],
)
def test_cookies(
    make_params: MakeParams, tmp_path: Path, body: list[str], level: str, word: str
) -> None:
    path = tmp_path / "cookies.txt"
    path.write_text("\n".join(["# Netscape HTTP Cookie File", *body, ""]))
    path.chmod(0o600)
    params = make_params(download={"cookies": str(path)})
    said = lines(inputs.cookies(params))
    assert said.startswith(level)
    assert word in said
    assert "hush" not in said
    if level == "ok":
        path.chmod(0o644)
        assert "chmod 600" in lines(inputs.cookies(params))
        path.unlink()
        assert told(inputs.cookies(params)) == {"cookies": "fail"}


def test_proxy(make_params: MakeParams, port: int, closed: int) -> None:
    def proxy(text: str) -> Verdict:
        return next(iter(inputs.proxy(make_params(download={"proxy": text}))))

    good = proxy(f"socks5://me:secret@127.0.0.1:{port}")
    assert good.level == "ok"
    assert "secret" not in good.line()
    for wrong in (f"http://127.0.0.1:{closed}", f"127.0.0.1:{port}", "ftp://h:1", "socks5://h"):
        assert proxy(wrong).level == "fail", wrong


class Answers(http.server.BaseHTTPRequestHandler):
    """Holds one video; its clock is a day behind."""

    def do_HEAD(self) -> None:
        self.send_response_only({"/a.mp4": 200, "/b.mp4": 500}.get(self.path, 404))
        self.send_header("Date", "Mon, 02 Jan 2023 00:00:00 GMT")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Said to nobody."""


def test_the_mirror_is_asked_for_a_video_of_this_catalog(
    make_params: MakeParams, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(inputs, "_videos", lambda params: iter([wanted]))
    wanted = "a"
    folder = tmp_path / "mirror"

    def mirror(url: str) -> Found:
        return told(inputs.mirror(make_params(download={"mirror": url})))

    assert mirror(str(folder)) == {"mirror": "fail"}
    folder.mkdir()
    assert mirror(str(folder)) == {"mirror": "warn"}
    (folder / "a.mp4").touch()
    assert mirror(str(folder)) == {"mirror": "ok"}
    assert mirror(f"{folder}/{{video_id}}.mp4") == {"mirror": "ok"}
    assert mirror("memory://nothing") == {"mirror": "warn"}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert mirror(url) == {"clock": "fail", "mirror": "ok"}
        wanted = "b"
        assert mirror(url) == {"mirror": "fail"}
        server.shutdown()
    assert mirror(url) == {"mirror": "fail"}


def test_takedowns_and_lists(make_params: MakeParams, tmp_path: Path) -> None:
    params = make_params()
    assert told(inputs.takedowns(params)) == {"takedowns": "ok"}
    (tmp_path / "takedowns.csv").write_text("kind,id,date,reason\npersn,x,,\n")
    assert "takedowns.csv:2" in lines(inputs.takedowns(params))
    assert told(inputs.takedowns(params)) == {"takedowns": "fail"}
    assert told(inputs.lists(params)) == {"list vox": "fail"}


def test_dvc(make_params: MakeParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert told(inputs.dvc(make_params())) == {"dvc": "warn"}
    assert dvc(["init", "-q", "--no-scm"]) == 0
    assert told(inputs.dvc(make_params())) == {"dvc": "ok"}
    lock = tmp_path / ".dvc" / "tmp" / "rwlock"
    lock.parent.mkdir(exist_ok=True)
    lock.write_text('{"x": {"write": {"pid": 999999999, "cmd": "dvc repro"}}}')
    assert told(inputs.dvc(make_params())) == {"dvc": "ok"}
    lock.write_text(f'{{"x": {{"write": {{"pid": {os.getpid()}, "cmd": "dvc repro"}}}}}}')
    assert "holds its lock" in lines(inputs.dvc(make_params()))


# --- the machine -----------------------------------------------------------------------------


def clips(params: Params, person: int = 2) -> None:
    """Annotations of a few clips."""
    for n in range(person):
        path = Path(params.catalog.metadata) / f"id{n}" / f"video{n}" / "00001.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        head = f"Identity  : \tid{n}\nReference : \tvideo{n}\nOffset    : \t0\n"
        head += "FV Conf   : \t20.5\nASD Conf  : \t4.5\n\nFRAME \tX \tY \tW \tH \n"
        body = "".join(f"{k:06d} \t0.1 \t0.2 \t0.3 \t0.4 \n" for k in range(250, 500))
        path.write_text(head + body)


def test_disk_and_memory(make_params: MakeParams, monkeypatch: pytest.MonkeyPatch) -> None:
    params = make_params()
    clips(params)
    assert told(machine.space(params)) == {"disk": "ok", "memory": "ok"}
    assert not Path(params.paths.work).exists()
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    small = psutil.virtual_memory()._replace(available=1 << 20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: small)
    assert told(machine.space(params)) == {"disk": "fail", "memory": "fail"}


def test_clock(make_params: MakeParams, monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(machine.clock(make_params())) == {"clock": "ok"}
    now = time.time
    monkeypatch.setattr(machine.time, "time", lambda: now() + 3600)
    assert told(machine.clock(make_params())) == {"clock": "fail"}


def test_limits(make_params: MakeParams, monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, level in ((65_536, "ok"), (1000, "warn"), (64, "fail")):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, 65_536))
        assert told(machine.files(make_params())) == {"open files": level}
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 26))
    if Path("/dev/shm").is_dir():
        assert told(machine.shm(make_params())) == {"/dev/shm": "warn"}


def test_folders(make_params: MakeParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = make_params()
    assert told(machine.folders(params))["temp folder"] in ("ok", "warn")
    monkeypatch.setattr(machine.tempfile, "gettempdir", lambda: str(tmp_path / "none" / "x"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1))  # type: ignore[attr-defined]
    assert told(machine.folders(params))["temp folder"] == "fail"
    if os.getuid():  # root may write anywhere
        tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
        assert told(machine.folders(params))["paths.work"] == "fail"


# --- the plan --------------------------------------------------------------------------------


def test_the_plan_of_the_real_corpus_came_true(corpus: Path, tmp_path: Path) -> None:
    """Counted from the annotations, before anything ran; within twice what the run then used."""
    params = real(tmp_path, corpus, mirror=str(corpus / "videos"))
    made = plan.estimate(params, count(params), workers=2)
    # docs/real-run.md, and the bytes of that run's folders.
    used = {"catalog": 1.7, "download": 6.6, "crop": 67.8, "landmarks": 89.2, "shard": 20.3}
    for stage, seconds in used.items():
        assert 0.5 < made[stage].cpu_seconds / seconds < 2, stage
    held = {"crop": 22.0e6 + 2.0e6, "landmarks": 10.8e6, "shard": 87.0e6}
    for stage, size in held.items():
        assert 0.5 < made[stage].bytes / size < 2, stage


def test_the_plan_of_another_corpus_came_true(corpus: Path, tmp_path: Path) -> None:
    """The ready crops, by rates that were measured on the other videos."""
    params = real(tmp_path, corpus, reader="mp4", path=".", metadata=corpus / "voxceleb2_mp4")
    made = plan.estimate(params, count(params), workers=2)
    for stage, seconds in {"crop": 58.9, "landmarks": 75.9, "shard": 14.1}.items():
        assert 0.5 < made[stage].cpu_seconds / seconds < 2, stage
    assert made["download"].bytes == 0


def real(
    folder: Path,
    corpus: Path,
    mirror: str | None = None,
    reader: str = "voxceleb2",
    path: str = "voxceleb2",
    metadata: Path | None = None,
) -> Params:
    file, taken = folder / "params.yaml", folder / "takedowns.csv"
    taken.write_text("kind,id,date,reason\n")
    file.write_text(
        f"""
name: corpus
paths: {{data: {folder}/data, work: {folder}/work}}
catalog:
  metadata: {metadata or corpus / "metadata"}
  takedowns: {taken}
  sources: [{{name: s, reader: {reader}, path: {path}}}]
download: {{mirror: {mirror or "null"}}}
landmarks: {{backend: mediapipe}}
card: {{title: t, licence: other, description: d}}
"""
    )
    return load(file)


def test_the_catalog_and_the_annotations_count_alike(make_params: MakeParams) -> None:
    params = make_params()
    clips(params, 5)
    (Path(params.catalog.takedowns)).write_text("kind,id,date,reason\nperson,id4,,\n")
    before = count(params)
    assert (before.people, before.videos, before.clips) == (4, 4, 4)
    assert before.clip_seconds == 40
    # One clip from second 10 to 20: the video's end is expected at twice that.
    assert before.video_seconds == pytest.approx(4 * 40)
    catalog.build(params)
    after = count(params)
    assert after.counted_from == "catalog.parquet"
    assert (after.people, after.videos, after.clips) == (4, 4, 4)
    assert (after.clip_seconds, after.video_seconds) == (40, before.video_seconds)
    Path(params.catalog.takedowns).write_text(
        "kind,id,date,reason\n" + "".join(f"person,id{n},,\n" for n in range(5))
    )
    catalog.build(params)
    with pytest.raises(UserError, match="nothing to plan"):
        count(params)


def test_the_plan_grows_with_its_parts(make_params: MakeParams) -> None:
    params = make_params(landmarks={"backend": "mediapipe"}, download={"per_minute": 1.0})
    small = Corpus("x", 10, 100, 1000, 8000.0, 30_000.0, 0.9)
    twice = Corpus("x", 10, 200, 2000, 16_000.0, 60_000.0, 0.9)
    one, two = plan.estimate(params, small, 1), plan.estimate(params, twice, 1)
    for a, b in zip(one.stages, two.stages, strict=True):
        assert a.cpu_seconds <= b.cpu_seconds <= 2 * a.cpu_seconds
        assert b.bytes == pytest.approx(2 * a.bytes)
    assert one["download"].wall_seconds == 6000  # 100 videos, one a minute
    four = plan.estimate(params, small, 4)
    assert four["crop"].wall_seconds < one["crop"].wall_seconds / 3
    on_cpu = make_params(landmarks={"backend": "face_alignment"})
    slow = plan.estimate(on_cpu, small, 1)["landmarks"].cpu_seconds
    assert slow == pytest.approx(1.487 * small.frames, rel=0.01)
    on_gpu = make_params(landmarks={"backend": "face_alignment", "device": "cuda"})
    assert plan.estimate(on_gpu, small, 1)["landmarks"].gpu_seconds == small.frames / 100


def test_training_is_priced_as_told(make_params: MakeParams) -> None:
    content = {"content": {"random": {"weight": 1.0}}}
    params = make_params(settings={"paper": content | {"epochs": 2}})
    own = Corpus("x", 10, 100, 1000, 8000.0, 30_000.0, 0.9)
    made = plan.estimate(params, own, 1)["meta_train"]
    assert made.cpu_seconds == pytest.approx(200 * rates.META_SAMPLE)
    on_gpu = make_params(settings={"paper": content | {"epochs": 2}}, ray={"gpus_per_worker": 1.0})
    assert "samples-per-second" in plan.estimate(on_gpu, own, 1)["meta_train"].note
    told_rate = plan.estimate(on_gpu, own, 1, 4.0)["meta_train"]
    assert told_rate.gpu_seconds == told_rate.wall_seconds == 50
    free = plan.Prices(0, 0, 3600, 0)
    assert told_rate.money(free) == pytest.approx(50)


def test_all_of_voxceleb2(
    make_params: MakeParams, params_file: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    params = make_params(landmarks={"backend": "mediapipe"})
    whole = voxceleb2(params)
    assert (whole.videos, whole.people) == (145_569, 6_112)
    made = plan.estimate(params, whole, 8)
    # At 20 videos a minute the downloads alone take five days.
    assert made["download"].wall_seconds / 86_400 == pytest.approx(5.05, abs=0.01)
    words = ["--params", params_file(params), "--plan", "--dataset", "voxceleb2-full"]
    assert main([*words, "--price-cpu-hour", "1", "--workers", "8"]) == 0
    said = capsys.readouterr().out
    assert "1,128,246 clips" in said
    assert "cpu hour $1" in said
    assert main([*words, "--workers", "0"]) == 2
    assert main([*words, "--price-gpu-hour", "-1"]) == 2


def test_no_catalog_no_plan(make_params: MakeParams, params_file: Callable[..., str]) -> None:
    assert main(["--params", params_file(make_params()), "--plan"]) == 2
    assert fail("x", "y", "z").level == "fail"
