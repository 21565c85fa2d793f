"""One fetch: options for yt-dlp, the mirror's addresses, tries and their order."""

from __future__ import annotations

import errno
import os
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import UserError
from pipelines.params.dataset import Download
from pipelines.site import fetch
from pipelines.site.fetch_errors import FetchError
from pipelines.statuses import Status

Script = list[FetchError | str]


@pytest.mark.parametrize(
    ("mirror", "urls"),
    [
        ("m", ["m/v.mp4", "m/v.webm"]),
        ("s3://b/m/", ["s3://b/m/v.mp4", "s3://b/m/v.webm"]),
        ("m/{video_id}/all.{ext}", ["m/v/all.mp4", "m/v/all.webm"]),
        ("m/{video_id}.mkv", ["m/v.mkv"]),
    ],
)
def test_where_a_mirror_may_hold_a_video(mirror: str, urls: list[str]) -> None:
    assert fetch.mirror_urls(mirror, "v", ("mp4", "webm")) == urls


def test_a_mirror_s_folder_is_not_listed_for_every_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "v.mp4").touch()
    monkeypatch.setattr(os, "listdir", lambda _: pytest.fail("listed"))
    settings = Download(mirror=str(tmp_path / "m"))
    body = fetch.from_mirror("v", settings, tmp_path)
    assert body is not None and body.in_place
    assert fetch.from_mirror("another", settings, tmp_path) is None


def test_a_login_in_a_mirror_s_address_goes_to_that_host_alone() -> None:
    asked = fetch.head("https://me:p%40ss@mirror.example:8765/v.mp4?a=b")
    assert asked.full_url == "https://mirror.example:8765/v.mp4?a=b"
    assert asked.unredirected_hdrs["Authorization"] == "Basic " + b64encode(b"me:p@ss").decode()
    assert asked.headers == {} and asked.get_method() == "HEAD"
    assert not fetch.head("https://mirror.example/v.mp4").unredirected_hdrs


def test_an_explicit_link_wins_over_the_template() -> None:
    settings = Download(url="https://site/{video_id}?a={b}")
    assert fetch.site_url("v", None, settings) == "https://site/v?a={b}"
    assert fetch.site_url("v", "https://else/x", settings) == "https://else/x"


def test_settings_reach_yt_dlp(tmp_path: Path) -> None:
    settings = Download(
        max_height=480,
        proxy="socks5://h:1",
        bytes_per_second=1000,
        js_runtime="deno:/opt/deno",
        extractor_args={"youtube": {"player_client": ["web"]}},
        yt_dlp={"geo_bypass": False, "retries": 9},
    )
    options = fetch.ydl_options(settings, tmp_path)
    assert "height<=480" in options["format"]
    assert "{max_height}" not in options["format"]
    assert options["proxy"] == "socks5://h:1"
    assert options["ratelimit"] == 1000
    assert options["js_runtimes"] == {"deno": {"path": "/opt/deno"}}
    assert options["extractor_args"] == {"youtube": {"player_client": ["web"]}}
    assert (options["geo_bypass"], options["retries"]) == (False, 9)
    assert "cookiefile" not in options
    plain = fetch.ydl_options(Download(js_runtime="node"), tmp_path)
    assert plain["js_runtimes"] == {"node": {}}
    assert "proxy" not in plain


def test_a_folder_s_name_is_no_template(tmp_path: Path) -> None:
    outtmpl = fetch.ydl_options(Download(), tmp_path / "100%(id)s")["outtmpl"]["default"]
    assert outtmpl % {"ext": "mp4"} == f"{tmp_path}/100%(id)s/video.mp4"


COOKIES = """# Netscape HTTP Cookie File

.x.org\tTRUE\t/\tTRUE\t1999999999\tSID\tSECRET
#HttpOnly_.x.org\tTRUE\t/\tTRUE\t\tHSID\tSECRET
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (COOKIES.replace("\t", " "), r"mine\.txt:3 is no cookie, with seven fields between tabs"),
        (COOKIES.replace("1999999999", "soon"), r"mine\.txt:3 is no cookie"),
        ('[{"name": "SID", "value": "SECRET"}]', r"mine\.txt is no Netscape cookie file"),
        ("# Netscape HTTP Cookie File\n", r"mine\.txt holds no cookie"),
    ],
)
def test_cookies_that_yt_dlp_would_print_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "mine.txt").write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        fetch.ydl_options(Download(cookies=str(tmp_path / "mine.txt")), tmp_path)
    assert "SECRET" not in str(caught.value)


def test_cookies_are_worked_on_as_a_copy(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text(COOKIES)
    options = fetch.ydl_options(Download(cookies=str(tmp_path / "mine.txt")), tmp_path)
    assert options["cookiefile"] == str(tmp_path / "cookies.txt")
    with pytest.raises(UserError, match=r"download.cookies: .*gone.txt: no such file"):
        fetch.ydl_options(Download(cookies=str(tmp_path / "gone.txt")), tmp_path)


def test_a_fetch_too_large_or_too_long_is_broken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (hook,) = fetch.ydl_options(Download(max_bytes=100, max_seconds=10), tmp_path)["progress_hooks"]
    hook({"downloaded_bytes": 100})
    with pytest.raises(FetchError, match=r"no_format: larger than download\.max_bytes"):
        hook({"downloaded_bytes": 101})
    monkeypatch.setattr(fetch.time, "monotonic", lambda: 1e12)
    with pytest.raises(FetchError, match=r"network: took longer than download\.max_seconds"):
        hook({})


# --- tries -------------------------------------------------------------------------------------


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, no_waiting: list[float]) -> Callable[..., Any]:
    """Fetch from a site and a mirror that answer as scripted; returns (outcome, trace)."""

    def run(
        folder: Path, answers: Script, mirror: Script | None = None, retries: int = 3
    ) -> tuple[str, list[str]]:
        trace: list[str] = []
        mirrored = list(mirror or [])

        def give(origin: str, script: Script) -> fetch.Body:
            answer = script.pop(0)
            trace.append(origin)
            folder.mkdir(exist_ok=True)
            (folder / "video.mp4.part").touch()
            if isinstance(answer, Exception):
                raise answer
            return fetch.Body(Path(answer), origin, "url")

        def probe(path: Path) -> str:
            if str(path) in set(Status):
                raise FetchError(Status(str(path)), f"probed {path}")
            return "facts"

        def wait(attempt: int, after: float | None) -> float:
            trace.append(f"wait {attempt} {after}")
            return 0

        monkeypatch.setattr(fetch, "from_site", lambda *_: give("site", answers))
        monkeypatch.setattr(
            fetch, "from_mirror", lambda *_: give("mirror", mirrored) if mirrored else None
        )
        settings = Download(retries=retries, mirror=None if mirror is None else "m")
        take = lambda: trace.append("token")  # noqa: E731
        try:
            body, facts = fetch.fetch("v", None, settings, folder, take, wait, probe)
        except FetchError as error:
            return str(error), trace
        assert facts == "facts"
        return body.origin, trace

    return run


def failure(status: Status, after: float | None = None) -> FetchError:
    return FetchError(status, "words", after)


def test_transfers_that_break_off_are_tried_again_from_their_part(
    site: Callable[..., Any], tmp_path: Path
) -> None:
    for status in (Status.THROTTLED, Status.NETWORK, Status.TRUNCATED):
        outcome, trace = site(tmp_path / "p", [failure(status, 7), failure(status), "file"])
        assert outcome == "site"
        assert trace == [
            "token",
            "site",
            "wait 0 7",
            "token",
            "site",
            "wait 1 None",
            "token",
            "site",
        ]
        outcome, trace = site(tmp_path / "p", [failure(status)] * 9, retries=2)
        assert outcome == f"{status}: words"
        assert trace.count("site") == 3
        assert (tmp_path / "p" / "video.mp4.part").exists()


@pytest.mark.parametrize("status", ["removed", "private", "bot_check", "geo_blocked", "no_format"])
def test_what_the_site_says_for_good_is_asked_once_and_leaves_nothing(
    site: Callable[..., Any], tmp_path: Path, status: str
) -> None:
    outcome, trace = site(tmp_path / "p", [failure(Status(status))])
    assert outcome == f"{status}: words"
    assert trace == ["token", "site"]
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("status", ["not_a_video", "truncated", "corrupt"])
def test_a_body_that_the_probe_refuses_is_thrown_away(
    site: Callable[..., Any], tmp_path: Path, status: str
) -> None:
    outcome, trace = site(tmp_path / "p", [status])
    assert outcome == f"{status}: probed {status}"
    assert trace == ["token", "site"]
    assert not (tmp_path / "p").exists()


def test_the_mirror_is_asked_first_and_without_a_token(
    site: Callable[..., Any], tmp_path: Path
) -> None:
    assert site(tmp_path / "p", [], ["file"]) == ("mirror", ["mirror"])
    assert site(tmp_path / "p", ["file"], []) == ("site", ["token", "site"])


def test_a_broken_mirror_leads_to_the_site_and_its_words_are_kept(
    site: Callable[..., Any], tmp_path: Path
) -> None:
    assert site(tmp_path / "p", ["file"], ["corrupt"])[0] == "site"
    outcome, _ = site(tmp_path / "p", [failure(Status.REMOVED)], ["corrupt"])
    assert outcome == "removed: words; mirror: corrupt: probed corrupt"


def test_a_mirror_that_may_answer_later_is_asked_again_for_what_the_site_has_lost(
    site: Callable[..., Any], tmp_path: Path
) -> None:
    outcome, _ = site(tmp_path / "p", [failure(Status.REMOVED)], [OSError("bucket denied")])
    assert outcome == "network: mirror: network: bucket denied; removed: words"
    outcome, _ = site(tmp_path / "p", [failure(Status.BOT_CHECK)], [OSError("bucket denied")])
    assert outcome == "bot_check: words; mirror: network: bucket denied"


def test_a_full_disk_is_not_taken_for_a_broken_mirror(
    site: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(OSError, match="No space left"):
        site(tmp_path / "p", [], [OSError(errno.ENOSPC, "No space left on device")])
