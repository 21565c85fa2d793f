"""Checks of what a rebuild starts from."""

from __future__ import annotations

import http.server
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.cli import main as dvc
from visit import Found, clips, lines, told

from pipelines.doctor import inputs
from pipelines.doctor.verdict import Verdict
from pipelines.errors import StopStage, UserError
from pipelines.manifest import ROW_GROUP
from pipelines.params import Params
from pipelines.params.dataset import Download
from pipelines.schemas import CATALOG
from pipelines.site import fetch

MakeParams = Callable[..., Params]


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
    """Holds one video, and answers as others are called; its clock is years behind."""

    def do_HEAD(self) -> None:
        name = self.path[1:].partition(".")[0]
        self.send_response_only({"a": 200}.get(name) or (int(name) if name.isdigit() else 404))
        self.send_header("Date", "Mon, 02 Jan 2023 00:00:00 GMT")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Said to nobody."""


def test_the_mirror_is_asked_for_a_video_of_this_catalog(
    make_params: MakeParams, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(inputs, "_videos", lambda params: wanted)
    wanted = ["a"]
    folder = tmp_path / "mirror"

    def mirror(url: str) -> Found:
        return told(inputs.mirror(make_params(download={"mirror": url})))

    assert mirror(str(folder)) == {"mirror": "fail"}
    folder.mkdir()
    with pytest.raises(StopStage) as stop:
        fetch.from_mirror("a", Download(mirror=str(folder)), tmp_path)
    said = lines(inputs.mirror(make_params(download={"mirror": str(folder)})))
    assert said.startswith("fail") and str(stop.value) in said
    (folder / "b.mp4").touch()
    assert mirror(str(folder)) == {"mirror": "warn"}
    (folder / "a.mp4").touch()
    assert mirror(str(folder)) == {"mirror": "ok"}
    assert mirror(f"{folder}/{{video_id}}.mp4") == {"mirror": "ok"}
    assert mirror("memory://nothing") == {"mirror": "warn"}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert mirror(url) == {"clock": "fail", "mirror": "ok"}
        for wanted, level, words in (
            (["500"], "fail", "answers HTTP 500"),
            (["401"], "fail", "your credentials"),
            (["503"], "warn", "answers HTTP 503"),
            (["a", "405"], "ok", "not to HEAD (HTTP 405)"),
            (["501"], "ok", "not to HEAD (HTTP 501)"),
            (["403", "403"], "warn", "HTTP 403 for all of 2 videos asked for; are its credentials"),
            (["403", "a"], "ok", "has 1 of 2"),
            (["403", "404"], "warn", "has none of 2"),
        ):
            assert mirror(url) == {"clock": "fail", "mirror": level}, wanted
            assert words in lines(inputs.mirror(make_params(download={"mirror": url})))
        server.shutdown()
    assert mirror(url) == {"mirror": "fail"}


def test_videos_are_asked_for_from_all_over_the_catalog(
    make_params: MakeParams, write_manifest: Callable[..., None]
) -> None:
    """Its head may be the part that was fetched first."""
    params = make_params()
    count = 2 * ROW_GROUP + 1
    place = {"source": "vox", "person": "id1", "utterance": "1", "split": "train", "shard": "x"}
    facts = {"status": "ok", "detail": "", "crop_ready": False}
    # Three clips a video; of some the crops are at hand, and some were taken out.
    clips = [place | facts | {"key": f"{n}", "video": f"v{n // 3}"} for n in range(count)]
    for row in clips[:90]:
        row["media"] = "crop.mp4"
    for row in clips[-90:]:
        row["status"] = "excluded"
    write_manifest(params, "catalog", CATALOG, clips)
    last = (count - 91) // 3
    assert inputs._videos(params) == ["v30", f"v{(30 + last) // 2}", f"v{last}"]
    write_manifest(params, "catalog", CATALOG, clips[90:92])
    assert inputs._videos(params) == ["v30"]
    write_manifest(params, "catalog", CATALOG, clips[:90])
    assert inputs._videos(params) == []


def test_a_mirror_that_speaks_no_http_is_no_fault_of_ours(
    make_params: MakeParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "_videos", lambda params: ["a"])

    class Babbles(http.server.BaseHTTPRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"HTTP/9.9 garbage\r\n\r\n")

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Babbles) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        (line,) = inputs.mirror(make_params(download={"mirror": url}))
        assert line.level == "fail" and "does not answer" in line.words
        server.shutdown()


def test_takedowns_and_lists(make_params: MakeParams, tmp_path: Path) -> None:
    params = make_params()
    assert told(inputs.takedowns(params)) == {"takedowns": "ok"}
    (tmp_path / "takedowns.csv").write_text("kind,id,date,reason\npersn,x,,\n")
    assert "takedowns.csv:2" in lines(inputs.takedowns(params))
    assert told(inputs.takedowns(params)) == {"takedowns": "fail"}
    with pytest.raises(UserError, match=r"^catalog.metadata: .*metadata: no such folder; fetch"):
        list(inputs.lists(params))
    (tmp_path / "metadata").mkdir()
    assert told(inputs.lists(params)) == {"list vox": "fail"}


def test_a_table_of_other_people_is_told_before_the_run(
    make_params: MakeParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = {"name": "vox", "reader": "voxceleb2", "people": "meta.csv"}
    params = make_params(catalog={"sources": [source]})
    clips(params)
    for table, words in (
        ("ID,Set\nid0,dev\nid1,test\n", ""),
        ("ID,Gender\nid0,m\nid1,f\n", "the column Set is missing"),
        ("ID,Set\nid10001,dev\nid10002,test\n", "knows 0 of the 2 people"),
    ):
        (tmp_path / "metadata" / "meta.csv").write_text(table)
        found = {"people vox": "fail"} if words else {}
        assert told(inputs.lists(params)) == {"list vox": "ok"} | found
        assert words in lines(inputs.lists(params))
    drawn = make_params(catalog={"sources": [source], "split": {"use_published": False}})
    assert told(inputs.lists(drawn)) == {"list vox": "ok"}
    monkeypatch.setattr(inputs, "CLIPS", 1)  # of the others it may know more
    assert told(inputs.lists(params)) == {"list vox": "ok", "people vox": "warn"}


def test_dvc(make_params: MakeParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert told(inputs.dvc(make_params())) == {"dvc": "warn"}
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("")  # as a download of the project without git has it
    assert told(inputs.dvc(make_params())) == {"dvc": "fail"}
    shutil.rmtree(tmp_path / ".dvc")
    assert dvc(["init", "-q", "--no-scm"]) == 0
    assert told(inputs.dvc(make_params())) == {"dvc": "ok"}
    lock = tmp_path / ".dvc" / "tmp" / "rwlock"
    lock.parent.mkdir(exist_ok=True)
    lock.write_text('{"x": {"write": {"pid": 999999999, "cmd": "dvc repro"}}}')
    assert told(inputs.dvc(make_params())) == {"dvc": "ok"}
    lock.write_text(f'{{"x": {{"write": {{"pid": {os.getpid()}, "cmd": "dvc repro"}}}}}}')
    assert "holds its lock" in lines(inputs.dvc(make_params()))
    # A newer version's stages, an older one's settings.
    (tmp_path / "params.yaml").write_text("name: mine\n")
    (tmp_path / "dvc.yaml").write_text("stages: {train: {cmd: train, params: ['${setting}']}}\n")
    assert "Could not find 'setting'" in lines(inputs.dvc(make_params()))
    (tmp_path / "params.yaml").write_text("setting: tiny\n")
    assert "Could not find" not in lines(inputs.dvc(make_params()))
