"""The sample site: what it serves, how it fails, and what yt-dlp makes of both."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.sample.handler import BOT_CHECK
from pipelines.sample.server import SampleServer, main

BODY = bytes(range(256)) * 1200  # 300 kB
FAULTS = {
    "gone4444444": "404",
    "gone_410000": "410",
    "later429000": "429:2",
    "later503000": "503",
    "forbidden00": "403",
    "posing00000": "html",
    "page0000000": "page",
    "cut00000000": "cut",
    "empty000000": "empty",
    "slow0000000": "slow",
    "bot00000000": "bot_check",
}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SampleServer]:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("-healthy-_", *FAULTS):
        (folder / f"{name}.mp4").write_bytes(BODY)
    for suffix in ("mov", "mpg", "webm"):
        (folder / f"as_{suffix}_0000.{suffix}").write_bytes(BODY)
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    with SampleServer(folder, FAULTS, retry_after=7) as server:
        yield server


def ask(
    site: SampleServer, path: str, method: str = "GET", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def test_serves_a_video_by_its_id_under_both_addresses(site: SampleServer) -> None:
    for path in ("/watch/-healthy-_", "/videos/-healthy-_.mp4"):
        response, body = ask(site, path)
        assert (response.status, body) == (200, BODY)
        assert response.headers["Content-Type"] == "video/mp4"
        response, body = ask(site, path, "HEAD")
        assert (response.status, body) == (200, b"")
        assert int(response.headers["Content-Length"]) == len(BODY)
    hits = site.hits["/watch/-healthy-_"]
    assert (hits.requests, hits.bytes, hits.full, hits.partial) == (2, len(BODY), 1, 0)


@pytest.mark.parametrize(
    ("suffix", "kind"), [("mov", "video/quicktime"), ("mpg", "video/mpeg"), ("webm", "video/webm")]
)
def test_content_type_follows_the_file(site: SampleServer, suffix: str, kind: str) -> None:
    response, body = ask(site, f"/videos/as_{suffix}_0000.mp4")
    assert (response.status, body) == (200, BODY)
    assert response.headers["Content-Type"] == kind


@pytest.mark.parametrize(
    ("wanted", "status", "start", "stop"),
    [
        ("bytes=0-9", 206, 0, 10),
        ("bytes=100-", 206, 100, len(BODY)),
        ("bytes=-5", 206, len(BODY) - 5, len(BODY)),
        (f"bytes=10-{2 * len(BODY)}", 206, 10, len(BODY)),
        ("bytes=nonsense", 200, 0, len(BODY)),
    ],
)
def test_ranges(site: SampleServer, wanted: str, status: int, start: int, stop: int) -> None:
    response, body = ask(site, "/watch/-healthy-_", Range=wanted)
    assert (response.status, body) == (status, BODY[start:stop])
    if status == 206:
        assert response.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(BODY)}"
        assert site.hits["/watch/-healthy-_"].partial == 1


def test_a_range_beyond_the_end_cannot_be_had(site: SampleServer) -> None:
    response, _ = ask(site, "/watch/-healthy-_", Range=f"bytes={len(BODY)}-")
    assert response.status == 416
    assert response.headers["Content-Range"] == f"bytes */{len(BODY)}"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/watch/",
        "/watch/nobody00000",
        "/watch/../secret",
        "/videos/../secret.mp4",
        "/videos/..%2fsecret.mp4",
        "/watch/%2e%2e%2fsecret",
        "/watch/*",
        "//secret.mp4",
    ],
)
def test_nothing_else_is_served(site: SampleServer, path: str) -> None:
    response, body = ask(site, path)
    assert response.status == 404
    assert b"secret" not in body


def test_faults(site: SampleServer) -> None:
    for video, status in (("gone4444444", 404), ("gone_410000", 410), ("forbidden00", 403)):
        assert ask(site, f"/watch/{video}")[0].status == status
    for status in (429, 429, 200):
        response, _ = ask(site, "/watch/later429000")
        assert response.status == status
        assert response.headers["Retry-After"] == ("7" if status == 429 else None)
    assert ask(site, "/watch/later503000")[0].headers["Retry-After"] == "7"
    response, body = ask(site, "/watch/posing00000")
    assert response.headers["Content-Type"] == "video/mp4"
    assert body.startswith(b"<!doctype html>")
    assert ask(site, "/watch/page0000000")[0].headers["Content-Type"].startswith("text/html")
    assert ask(site, "/watch/empty000000")[1] == b""
    response, body = ask(site, "/watch/bot00000000")
    assert response.status == 403
    assert BOT_CHECK in body.decode()
    assert ask(site, "/watch/slow0000000")[1] == BODY
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(site, "/watch/cut00000000")
    assert len(caught.value.partial) == len(BODY) // 2
    assert site.hits["/watch/cut00000000"].full == 0


def test_refuses_what_it_must_not_do(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "192.168.1.7", "::", "example.org"):
        with pytest.raises(ValueError, match="loopback"):
            SampleServer(tmp_path, host=host)
    with pytest.raises(ValueError, match="unknown fault"):
        SampleServer(tmp_path, {"x": "418"})


def test_a_taken_port_is_one_line(
    site: SampleServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), "--port", str(site.port)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(site.port) in line
    assert "--port" in line


def test_a_mistake_in_the_call_is_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, told in (
        ([str(tmp_path / "none")], "no folder of videos at "),
        ([str(tmp_path), "--fault", "x=418"], "--fault: unknown fault '418'"),
        ([str(tmp_path), "--port", "99999"], "--port 99999: expected 0 to 65535"),
    ):
        assert main(words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"likeness: {told}")


def test_a_client_that_hangs_up_leaves_no_traceback(
    site: SampleServer, capfd: pytest.CaptureFixture[str]
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
    connection.request("GET", "/watch/slow0000000")
    connection.getresponse().read(10)
    connection.close()
    assert ask(site, "/watch/-healthy-_")[1] == BODY
    assert capfd.readouterr().err == ""


def test_command_line_serves_any_folder(tmp_path: Path) -> None:
    (tmp_path / "abcdefghijk.webm").write_bytes(BODY)
    command = [sys.executable, "-m", "pipelines.sample.server", str(tmp_path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout
        line = process.stdout.readline()
        process.terminate()
    assert re.search(r"http://127\.0\.0\.1:\d+/watch/\{video\}", line)


class Quiet:
    """A yt-dlp logger that says nothing."""

    def debug(self, message: str) -> None: ...
    def warning(self, message: str) -> None: ...
    def error(self, message: str) -> None: ...


def fetch(site: SampleServer, video: str, folder: Path) -> dict[str, Any]:
    yt_dlp = pytest.importorskip("yt_dlp")
    options = {
        "quiet": True,
        "noprogress": True,
        "logger": Quiet(),
        "retries": 0,
        "outtmpl": str(folder / "%(id)s.%(ext)s"),
    }
    with yt_dlp.YoutubeDL(options) as downloader:
        info: dict[str, Any] = downloader.extract_info(site.template.format(video=video))
    return info


def test_yt_dlp_fetches_with_the_right_extension(site: SampleServer, tmp_path: Path) -> None:
    for video, extension in (("-healthy-_", "mp4"), ("as_webm_0000", "webm")):
        info = fetch(site, video, tmp_path)
        assert (info["id"], info["ext"]) == (video, extension)
        assert (tmp_path / f"{video}.{extension}").read_bytes() == BODY


def test_yt_dlp_resumes(site: SampleServer, tmp_path: Path) -> None:
    (tmp_path / "-healthy-_.mp4.part").write_bytes(BODY[:100_000])
    fetch(site, "-healthy-_", tmp_path)
    assert (tmp_path / "-healthy-_.mp4").read_bytes() == BODY
    assert site.hits["/watch/-healthy-_"].partial == 1


@pytest.mark.parametrize(
    ("video", "status"),
    [("gone4444444", 404), ("gone_410000", 410), ("forbidden00", 403), ("later503000", 503)],
)
def test_yt_dlp_reports_the_status(
    site: SampleServer, tmp_path: Path, video: str, status: int
) -> None:
    yt_dlp = pytest.importorskip("yt_dlp")
    with pytest.raises(yt_dlp.utils.DownloadError) as caught:
        fetch(site, video, tmp_path)
    cause = caught.value.exc_info[1]
    assert getattr(getattr(cause, "cause", None) or cause, "status", None) == status


@pytest.mark.parametrize(
    ("video", "words"),
    [
        ("bot00000000", "403: Sign in to confirm you're not a bot"),
        ("page0000000", "Unsupported URL"),
        ("cut00000000", "more expected"),
        ("empty000000", "Did not get any data blocks"),
    ],
)
def test_yt_dlp_s_words_for_bad_bodies(
    site: SampleServer, tmp_path: Path, video: str, words: str
) -> None:
    yt_dlp = pytest.importorskip("yt_dlp")
    with pytest.raises(yt_dlp.utils.DownloadError, match=words):
        fetch(site, video, tmp_path)
