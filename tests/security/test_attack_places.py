"""Temporary files, links that somebody planted, permissions, and who listens where."""

from __future__ import annotations

import http.client
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from hostile_site import HostileSite

from pipelines import catalog, download, engine, storage
from pipelines.errors import UserError
from pipelines.params import Params
from pipelines.sample.server import SampleServer
from pipelines.site import fetch, throttle

PRIVATE = b"my own file, do not touch\n"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A file of the user's that an attacker would like to have written to."""
    path = tmp_path / "mine.txt"
    path.write_bytes(PRIVATE)
    return path


# --- links ------------------------------------------------------------------------------------


@pytest.mark.parametrize("planted", ["the file", "its folder"])
def test_a_link_planted_for_the_pace_s_state_is_not_written_through(
    mine: Path, tmp_path: Path, planted: str
) -> None:
    """Its name can be guessed, and /tmp is everybody's."""
    state = throttle.state_file("bucket", "direct")
    if planted == "the file":
        state.parent.mkdir(mode=0o700)
        state.symlink_to(mine)
    else:
        (tmp_path / "theirs").mkdir()
        state.parent.symlink_to(tmp_path / "theirs")
    with pytest.raises((OSError, UserError)):
        throttle.TokenBucket(state, 60, 1).ask(0.0)
    assert mine.read_bytes() == PRIVATE
    assert planted == "the file" or list((tmp_path / "theirs").iterdir()) == []


def test_a_state_folder_of_somebody_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    state = throttle.state_file("bucket", "direct")
    state.parent.mkdir()
    me = os.getuid()
    monkeypatch.setattr(throttle.os, "getuid", lambda: me + 1)
    with pytest.raises(UserError, match="belongs to somebody else"):
        throttle.TokenBucket(state, 60, 1).ask(0.0)


def test_nobody_else_can_read_or_lock_the_state() -> None:
    state = throttle.state_file("bucket", "http://me:secret@proxy")
    throttle.TokenBucket(state, 60, 1).ask(0.0)
    assert stat.S_IMODE(state.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(state.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["video.mp4.part", "video.mp4", "video.mp4.ytdl", "cookies.txt"])
def test_a_link_planted_among_unfinished_parts_is_not_written_through(
    fetch_all: Any, mine: Path, tmp_path: Path, video: bytes, name: str
) -> None:
    """yt-dlp appends to what it finds there."""
    (tmp_path / "cookies.txt").write_text(
        "# Netscape HTTP Cookie File\n.x.org\tTRUE\t/\tTRUE\t\tSID\t1\n"
    )
    with HostileSite(v=lambda h: h.send(200, video, Content_Type="video/mp4")) as site:
        wanted = {"url": site.template, "cookies": str(tmp_path / "cookies.txt")}
        site.answers["v"] = lambda h: h.send(404, b"")
        fetch_all(["v"], **wanted)
        (record,) = (tmp_path / "work" / "records" / "download").rglob("*.arrow")
        parts = tmp_path / "work" / "partial" / record.stem[:16]
        parts.mkdir(parents=True, exist_ok=True)
        (parts / name).symlink_to(mine)
        record.unlink()
        site.answers["v"] = lambda h: h.send(200, video, Content_Type="video/mp4")
        row = fetch_all(["v"], **wanted)["v"]
    assert mine.read_bytes() == PRIVATE
    assert row["status"] == "ok"
    kept = tmp_path / "work" / row["path"]
    assert kept.read_bytes() == video and not kept.is_symlink()


def test_a_folder_of_parts_that_is_a_link_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "parts").symlink_to(tmp_path / "theirs")
    assert not fetch._prepared(tmp_path / "parts").is_symlink()


def test_a_link_planted_under_a_final_name_is_replaced_not_followed(
    mine: Path, tmp_path: Path
) -> None:
    link = tmp_path / "catalog.parquet"
    link.symlink_to(mine)
    storage.write_bytes(str(link), b"new")
    assert mine.read_bytes() == PRIVATE
    assert link.read_bytes() == b"new" and not link.is_symlink()
    link.unlink()
    link.symlink_to(mine)
    (tmp_path / "scratch").write_bytes(b"moved")
    storage.publish(tmp_path / "scratch", str(link))
    assert mine.read_bytes() == PRIVATE and not link.is_symlink()


def test_scratch_names_cannot_be_guessed_and_scratch_folders_are_private(tmp_path: Path) -> None:
    seen = set()
    for _ in range(20):
        with storage.atomic(str(tmp_path / "x")) as scratch:
            scratch.write_bytes(b"")
            seen.add(scratch.name)
    assert len(seen) == 20
    for work in (str(tmp_path / "work"), "memory://work"):
        with storage.scratch_folder(work) as folder:
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            if work.startswith("memory"):
                assert folder.is_relative_to(tempfile.gettempdir())


@pytest.mark.parametrize("mask", [0o022, 0o000])
def test_the_copy_of_the_cookies_is_for_its_owner_alone(
    fetch_all: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mask: int
) -> None:
    (tmp_path / "cookies.txt").write_text(
        "# Netscape HTTP Cookie File\n.x.org\tTRUE\t/\tTRUE\t\tSID\t1\n"
    )
    modes: list[int] = []

    def look(handler: Any) -> None:
        found = (tmp_path / "work" / "partial").rglob("cookies.txt")
        modes.extend(stat.S_IMODE(p.stat().st_mode) for p in found)
        handler.send(404, b"")

    before = os.umask(mask)
    try:
        with HostileSite(v=look) as site:
            fetch_all(["v"], url=site.template, cookies=str(tmp_path / "cookies.txt"))
    finally:
        os.umask(before)
    assert set(modes) == {0o600}
    assert list((tmp_path / "work").rglob("cookies.txt")) == []


def test_a_takedown_list_that_is_a_device_or_folder_stops_the_stage(
    make_params: Callable[..., Params], tmp_path: Path
) -> None:
    params = make_params(catalog={"takedowns": str(tmp_path)})
    with pytest.raises(OSError):
        catalog.build(params)


def test_an_annotation_tree_leads_to_no_device_and_no_endless_loop(
    make_params: Callable[..., Params], tmp_path: Path
) -> None:
    folder = tmp_path / "metadata" / "p" / "v"
    folder.mkdir(parents=True)
    (folder / "zero.txt").symlink_to("/dev/zero")
    os.mkfifo(folder / "fifo.txt")
    (folder / "words.txt").symlink_to("/etc/passwd")
    (folder / "loop").symlink_to(folder)
    (tmp_path / "metadata" / "up").symlink_to(tmp_path / "metadata")
    params = make_params()
    catalog.build(params)
    rows = catalog.pq.read_table(params.paths.manifest("catalog")).to_pylist()
    assert {row["status"] for row in rows} == {"bad_annotation"}
    assert not any("root:" in row["detail"] for row in rows)  # no file's words are repeated


# --- who listens ------------------------------------------------------------------------------


@pytest.fixture
def demo(tmp_path: Path) -> Any:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "v.mp4").write_bytes(b"served")
    (tmp_path / "secret.mp4").write_bytes(PRIVATE)
    with SampleServer(folder) as server:
        yield server


def test_the_demo_s_server_listens_on_loopback_alone(demo: SampleServer) -> None:
    own = [c for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN]
    (here,) = [c for c in own if c.laddr.port == demo.port]
    assert here.laddr.ip == "127.0.0.1"
    for host in ("0.0.0.0", "::", "192.168.0.1", "", "example.org", "localhost.evil"):
        with pytest.raises(ValueError, match="not a loopback address"):
            SampleServer(demo.videos, host=host)


TRAVERSALS = [
    *("/../secret.mp4", "/videos/../secret.mp4", "/watch/../secret", "/videos/..%2fsecret.mp4"),
    *("/%2e%2e/secret.mp4", "/watch/%2e%2e%2fsecret", "/watch/..%5csecret", "//secret.mp4"),
    *("/videos/%252e%252e%252fsecret.mp4", "/watch/*", "/watch/?", "/watch/[v]", "/watch/v%00"),
    *(
        "/videos/v.mp4/../../secret.mp4",
        "file:///etc/passwd",
        "/watch/" + "../" * 9 + "etc/passwd",
    ),
    *("http://127.0.0.1/secret.mp4", "/videos/....//secret.mp4", "/watch/" + "a" * 5000),
]


@pytest.mark.parametrize("path", TRAVERSALS)
def test_the_demo_s_server_gives_nothing_outside_its_folder(demo: SampleServer, path: str) -> None:
    with socket.create_connection(("127.0.0.1", demo.port), timeout=5) as connection:
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 404") or answer.startswith(b"HTTP/1.1 400")
    assert PRIVATE not in answer and b"root:" not in answer


def test_the_demo_s_server_takes_nothing(demo: SampleServer) -> None:
    for method in ("PUT", "POST", "DELETE", "PATCH", "OPTIONS", "CONNECT"):
        connection = http.client.HTTPConnection("127.0.0.1", demo.port, timeout=5)
        connection.request(method, "/videos/v.mp4", b"mine now")
        assert connection.getresponse().status == 501
        connection.close()
    assert (demo.videos / "v.mp4").read_bytes() == b"served"


def test_beam_s_local_runner_listens_on_loopback_alone(
    make_params: Callable[..., Params], write_manifest: Callable[..., None], tmp_path: Path
) -> None:
    """Its servers hand the pipeline, params and all, to whoever asks as a worker."""
    from pipelines.schemas import CATALOG

    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "other.mp4").touch()
    options = {"direct_running_mode": "multi_processing", "direct_num_workers": 1}
    params = make_params(
        beam={"options": options},
        download={"mirror": str(tmp_path / "mirror"), "url": "http://127.0.0.1:9/{video_id}"}
        | {"retries": 0, "per_minute": 1e6},
    )
    row = {"key": "p_v_1", "source": "s", "person": "p", "video": "v", "utterance": "1"}
    row |= {"split": "train", "shard": "s-train-00000", "status": "ok", "detail": ""}
    write_manifest(params, "catalog", CATALOG, [row | {"crop_ready": False}])
    heard: set[str] = set()
    ended = threading.Event()

    def listen() -> None:
        me = psutil.Process()
        while not ended.wait(0.05):
            own = me.net_connections("inet")
            heard.update(c.laddr.ip for c in own if c.status == psutil.CONN_LISTEN)

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        engine.run(download.prepare(params))
    finally:
        ended.set()
        thread.join()
    assert heard, "no server was seen: the test looks at the wrong place"
    assert heard <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_progress_and_scratch_of_the_driver_are_private(tmp_path: Path) -> None:
    from pipelines import progress

    with progress.watch("crop", "clips", 1, local=True) as folder:
        assert folder is not None
        assert stat.S_IMODE(Path(folder).stat().st_mode) == 0o700
