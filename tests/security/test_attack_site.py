"""A hostile video site: bodies without end, drips, bombs, redirects and playlists to local files.

Through the download stage and the real yt-dlp, over loopback.
"""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from hostile_site import MB, Handler, HostileSite, drip_body, endless, left, stopwatch

from pipelines.statuses import Status

SECRET = b"the private words of a local file"


def test_a_site_that_behaves_is_served(fetch_all: Any, video: bytes) -> None:
    """Else every test below would pass for the wrong reason."""
    with HostileSite(v=lambda h: h.send(200, video, Content_Type="video/mp4")) as site:
        assert fetch_all(["v"], url=site.template)["v"]["status"] == "ok"


def test_a_body_without_end_is_cut_at_max_bytes(fetch_all: Any, tmp_path: Path) -> None:
    with HostileSite(v=endless) as site:
        row = fetch_all(["v"], url=site.template, max_bytes=3 * MB, max_seconds=60)["v"]
    assert (row["status"], row["detail"]) == ("no_format", "larger than download.max_bytes")
    assert site.sent < 20 * MB
    assert left(tmp_path) < MB  # nothing of it is kept


@pytest.mark.parametrize(
    ("kind", "first"),
    [
        ("text/html", b"<!doctype html><html><body>" + b"x" * 4096),
        ("application/vnd.apple.mpegurl", b"#EXTM3U\n" + b"#" * 4096),
        ("application/x-mpegurl", b"#EXTM3U\n#EXT-X-VERSION:3\n" + b"#" * 4096),
    ],
)
def test_a_page_or_playlist_without_end_is_cut(
    fetch_all: Any, monkeypatch: pytest.MonkeyPatch, kind: str, first: bytes
) -> None:
    from pipelines.site import capped

    monkeypatch.setattr(capped, "PAGE", 4 * MB)
    with HostileSite(v=lambda h: endless(h, kind, first)) as site:
        row = fetch_all(["v"], url=site.template, max_bytes=100 * MB, max_seconds=60)["v"]
    assert (row["status"], row["detail"]) == ("not_a_video", "a page without end")
    assert site.sent < 30 * MB


@pytest.mark.parametrize(("claims", "status"), [(10, "truncated"), (10**12, "no_format")])
def test_a_length_that_lies_gives_no_video(
    fetch_all: Any, video: bytes, claims: int, status: str
) -> None:
    def lie(handler: Handler) -> None:
        handler.head(Content_Type="video/mp4", Content_Length=str(claims))
        handler.write(video)

    with HostileSite(v=lie) as site:
        row = fetch_all(["v"], url=site.template)["v"]
    assert row["status"] == status


def drip_promised_body(handler: Handler) -> None:
    handler.head(Content_Type="video/mp4", Content_Length=str(10**6))
    handler.write_all(repeat(b"\0"), every=0.1)


def drip_page(handler: Handler) -> None:
    handler.head(Content_Type="text/html")
    handler.write(b"<!doctype html><html>" + b"x" * 600)
    handler.write_all(repeat(b"x"), every=0.1)


def drip_head(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Drip: ")
    handler.write_all(repeat(b"x"), every=0.1)


@pytest.mark.parametrize("drip", [drip_body, drip_promised_body, drip_page, drip_head])
def test_a_drip_ends_at_max_seconds(fetch_all: Any, drip: Callable[[Handler], None]) -> None:
    seconds = stopwatch()
    with HostileSite(v=drip) as site:
        row = fetch_all(["v"], url=site.template, max_seconds=2, retries=3)["v"]
    assert (row["status"], row["detail"]) == ("network", "took longer than download.max_seconds")
    assert seconds() < 25  # without the lid: hours


@pytest.mark.parametrize("kind", ["video/mp4", "text/html"])
def test_a_compressed_bomb_is_counted_as_it_unpacks(
    fetch_all: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    from pipelines.site import capped

    monkeypatch.setattr(capped, "PAGE", 8 * MB)
    start = b"<html><body>" if kind == "text/html" else b""
    bomb = gzip.compress(start + bytes(200 * MB), 1)
    assert len(bomb) < 2 * MB

    def send(handler: Handler) -> None:
        handler.send(200, bomb, Content_Type=kind, Content_Encoding="gzip")

    tracemalloc.start()
    try:
        with HostileSite(v=send) as site:
            row = fetch_all(["v"], url=site.template, max_bytes=8 * MB)["v"]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert row["status"] in ("no_format", "not_a_video") and row["detail"]
    assert peak < 100 * MB
    assert left(tmp_path) < MB


def segments(name: str, count: int) -> bytes:
    lines = (f"#EXTINF:1,\n/{name}{n}" for n in range(count))
    head = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n"
    return (head + "\n".join(lines) + "\n#EXT-X-ENDLIST\n").encode()


def test_pieces_of_a_playlist_are_counted_together(fetch_all: Any, tmp_path: Path) -> None:
    kind = "application/vnd.apple.mpegurl"
    with HostileSite(v=lambda h: h.send(200, segments("seg", 400), Content_Type=kind)) as site:
        for n in range(400):
            site.answers[f"seg{n}"] = lambda h: h.send(200, bytes(188 * 1000))
        row = fetch_all(["v"], url=site.template, max_bytes=2 * MB)["v"]
    assert (row["status"], row["detail"]) == ("no_format", "larger than download.max_bytes")
    assert site.sent < 10 * MB
    assert left(tmp_path) < MB


def test_sound_and_picture_of_a_fetch_are_counted_together(
    fetch_all: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file is within the limit, and a site may offer any number of them."""
    from pipelines.site import capped

    monkeypatch.setattr(capped, "PAGE", MB // 8)
    master = (
        b'#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="a",URI="/sound"\n'
        b'#EXT-X-STREAM-INF:BANDWIDTH=1000,CODECS="avc1.42c00b,mp4a.40.2",RESOLUTION=64x64,'
        b'AUDIO="a"\n/picture\n'
    )
    kind = "application/vnd.apple.mpegurl"
    with HostileSite(v=lambda h: h.send(200, master, Content_Type=kind)) as site:
        for name in ("sound", "picture"):
            body = segments(f"{name}-", 8)
            site.answers[name] = lambda h, body=body: h.send(200, body, Content_Type=kind)
            for n in range(8):
                site.answers[f"{name}-{n}"] = lambda h: h.send(200, bytes(188 * 1000))
        row = fetch_all(["v"], url=site.template, max_bytes=2 * MB)["v"]
    assert any("/sound-" in path for path in site.asked)
    assert any("/picture-" in path for path in site.asked)
    assert (row["status"], row["detail"]) == ("no_format", "larger than download.max_bytes")
    assert left(tmp_path) < MB


# --- to local files and elsewhere ------------------------------------------------------------


@pytest.fixture
def secret(tmp_path: Path, video: bytes) -> Path:
    """A local file that a site must not get into the dataset: a video, so that a probe takes it."""
    path = tmp_path / "secret.mp4"
    path.write_bytes(video + SECRET)
    return path


@pytest.mark.parametrize("scheme", ["file://{}", "file:{}", "ftp://127.0.0.1:9{}", "data:text/a,b"])
@pytest.mark.parametrize("code", [302, 307])
def test_a_redirect_leaves_the_web_nowhere(
    fetch_all: Any, secret: Path, tmp_path: Path, scheme: str, code: int
) -> None:
    to = scheme.format(secret)
    with HostileSite(v=lambda h: h.send(code, b"", Location=to)) as site:
        row = fetch_all(["v"], url=site.template)["v"]
    assert Status(row["status"]) is not Status.OK
    assert row["path"] is None
    assert_unread(tmp_path)


def assert_unread(tmp_path: Path) -> None:
    for place in ("work", "data", "metrics"):
        for path in (tmp_path / place).rglob("*"):
            assert path.is_dir() or SECRET not in path.read_bytes()


def test_a_redirect_to_another_web_host_is_followed_and_what_it_gives_is_judged(
    fetch_all: Any, video: bytes
) -> None:
    """Not defended: mirrors and sites redirect, and loopback is a host like others here."""
    with HostileSite(inside=lambda h: h.send(200, b"role=admin", Content_Type="text/plain")) as own:
        to = f"{own.url}/inside"
        with HostileSite(v=lambda h: h.send(302, b"", Location=to)) as site:
            row = fetch_all(["v"], url=site.template)["v"]
    assert own.asked  # it was asked, ...
    assert row["status"] != "ok" and "role=admin" not in str(row)  # ... and nothing was kept


PLAYLISTS = {
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{}\n#EXT-X-ENDLIST\n",
    "m3u8 key": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="file://{}"\n'
    "#EXTINF:1,\nseg.ts\n#EXT-X-ENDLIST\n",
    "m3u8 of m3u8": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nfile://{}\n",
    "m3u8 map": '#EXTM3U\n#EXT-X-MAP:URI="file://{}"\n#EXTINF:1,\nseg.ts\n#EXT-X-ENDLIST\n',
    "page": '<!doctype html><html><video src="file://{}"></video></html>',
    "og": '<!doctype html><html><head><meta property="og:video" content="file://{}"></head></html>',
    "mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
    '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1">'
    "<BaseURL>file://{}</BaseURL></Representation></AdaptationSet></Period></MPD>",
    "ffconcat": "ffconcat version 1.0\nfile {}\n",
}
KINDS = {"m3u8": "application/vnd.apple.mpegurl", "page": "text/html", "og": "text/html"}


@pytest.mark.parametrize("name", sorted(PLAYLISTS))
def test_a_playlist_or_page_fetches_no_local_file(
    fetch_all: Any, secret: Path, tmp_path: Path, name: str
) -> None:
    body = PLAYLISTS[name].format(secret).encode()
    kind = KINDS.get(name.partition(" ")[0], "application/dash+xml" if name == "mpd" else "")

    def send(handler: Handler) -> None:
        handler.send(200, body, Content_Type=kind or "video/mp4")

    answers = {"v": send, "seg.ts": lambda h: h.send(200, bytes(188 * 4))}
    with HostileSite(**answers) as site:
        row = fetch_all(["v"], url=site.template)["v"]
    assert site.asked
    assert Status(row["status"]) is not Status.OK
    assert_unread(tmp_path)


def test_names_and_titles_that_a_site_gives_name_no_file(
    fetch_all: Any, video: bytes, tmp_path: Path, written: Any
) -> None:
    def send(handler: Handler) -> None:
        disposition = 'attachment; filename="../../../escaped;touch pwned.mp4"'
        handler.send(200, video, Content_Type="video/mp4", Content_Disposition=disposition)

    page = (
        "<!doctype html><html><head><title>../../escaped $(touch pwned)</title>"
        '<meta property="og:title" content="/escaped"></head>'
        '<body><video src="{}/escaped.mp4"></video></body></html>'
    )
    with HostileSite(v=send) as site:
        site.answers["escaped.mp4"] = send
        body = page.format(site.url).encode()
        site.answers["w"] = lambda h: h.send(200, body, Content_Type="text/html")
        with written() as places:
            rows = fetch_all(["v", "w"], url=site.template)
    assert [row["status"] for row in rows.values()] == ["ok", "ok"]
    own = [tmp_path / name for name in ("data", "work", "metrics", "temporary", "takedowns.csv")]
    assert [p for p in places if not any(p.is_relative_to(o) for o in own)] == []
    names = [str(p.relative_to(tmp_path)) for p in (*places, *tmp_path.rglob("*"))]
    assert not any("escaped" in name or "pwned" in name for name in names)


@pytest.mark.parametrize("suffix", ["exe", "sh", "py", "mp4/../../x", "desktop"])
def test_an_extension_that_could_be_run_is_refused(
    fetch_all: Any, video: bytes, tmp_path: Path, suffix: str
) -> None:
    page = f'<html><video><source src="/f.{suffix}" type="video/{suffix}"></video></html>'.encode()
    with HostileSite(
        v=lambda h: h.send(200, page, Content_Type="text/html"),
        **{f"f.{suffix}".rpartition("/")[2]: lambda h: h.send(200, video, Content_Type="a/b")},
    ) as site:
        fetch_all(["v"], url=site.template)
    kept = [p.suffix for p in (tmp_path / "work" / "videos").rglob("*") if p.is_file()]
    assert set(kept) <= {".mp4", ".unknown_video"}
