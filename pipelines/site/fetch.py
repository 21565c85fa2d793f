"""Fetch one video: the mirror first, then the site through yt-dlp. Never silently wrong.

A fetch leaves its `.part` under `partial/` of the work folder, so that a killed run resumes;
a complete body is probed before it counts as a video.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

from pipelines import storage
from pipelines.errors import FATAL_ERRNOS, StopStage, UserError, clean_detail
from pipelines.params.dataset import Download
from pipelines.params.places import mirror_folder
from pipelines.site.fetch_errors import TOO_LARGE, TOO_LONG, FetchError, from_yt_dlp
from pipelines.statuses import TRANSIENT, Status


@dataclass(frozen=True)
class Body:
    """A fetched file, not yet probed."""

    path: Path
    origin: str
    """mirror or site"""
    url: str
    in_place: bool = False
    """The user's own file in a mirror folder: read, never moved."""


# --- mirror ----------------------------------------------------------------------------------


def mirror_urls(mirror: str, video: str, extensions: tuple[str, ...]) -> list[str]:
    """Where the mirror may hold a video."""
    template = mirror if "{video_id}" in mirror else mirror.rstrip("/") + "/{video_id}.{ext}"
    urls = (template.replace("{video_id}", video).replace("{ext}", ext) for ext in extensions)
    return list(dict.fromkeys(urls))


def check_mirror(mirror: str) -> None:
    """Raises StopStage for a folder that is not there, or empty: the site would be asked for all.

    A disk that is not mounted, or a mistyped key.
    """
    if not storage.is_local(mirror):
        return
    root = mirror_folder(mirror)
    if not root.is_dir():
        raise StopStage(f"download.mirror: {root}: no such folder; mount it, or mend the key")
    with os.scandir(root) as entries:  # `iterdir` lists all of it, for every video
        if next(entries, None) is None:
            raise StopStage(
                f"download.mirror: {root} is empty; mount it, or leave the key out where there is "
                "no mirror"
            )


def from_mirror(video: str, settings: Download, folder: Path) -> Body | None:
    """The video from the mirror, or None when the mirror does not hold it.

    Raises FetchError when the mirror holds it but cannot give it, StopStage as `check_mirror`.
    """
    assert settings.mirror is not None
    check_mirror(settings.mirror)
    refused = False
    for url in mirror_urls(settings.mirror, video, settings.extensions):
        if url.startswith(("http://", "https://")):
            status = _answer(url, settings.timeout)
            refused |= status == REFUSED
            if status != REFUSED and status not in NOT_HERE:
                return Body(_yt_dlp(url, settings, folder), "mirror", url)
        elif storage.exists(url):
            if storage.size(url) > settings.max_bytes:
                raise FetchError(Status.NO_FORMAT, TOO_LARGE)
            if storage.is_local(url):
                return Body(storage.local_path(url), "mirror", url, in_place=True)
            target = _prepared(folder) / Path(url).name
            _copy(url, target, settings)
            return Body(target, "mirror", url)
    if refused:  # by wrong or expired credentials, or a store that hides what it does not hold
        raise FetchError(Status.NETWORK, f"HTTP Error {REFUSED}")
    return None


def _copy(url: str, target: Path, settings: Download) -> None:
    deadline = time.monotonic() + settings.max_seconds
    with storage.open_read(url) as body, target.open("wb") as file:
        while chunk := body.read(storage.CHUNK):
            if file.tell() + len(chunk) > settings.max_bytes:
                raise FetchError(Status.NO_FORMAT, TOO_LARGE)
            if time.monotonic() > deadline:
                raise FetchError(Status.NETWORK, TOO_LONG)
            file.write(chunk)


def _prepared(folder: Path) -> Path:
    """The folder of unfinished parts; yt-dlp goes on writing what lies there, so not to a link."""
    if folder.is_symlink():
        folder.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.iterdir():
        if left.is_symlink():
            left.unlink()
    return folder


def head(url: str) -> urllib.request.Request:
    """An HTTP HEAD; `user:password@` of its address becomes a header for that host alone.

    urllib would take it for a part of the host's name.
    """
    parts = urllib.parse.urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(parts._replace(netloc=host).geturl(), method="HEAD")
    if login:
        coded = base64.b64encode(urllib.parse.unquote(login).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {coded}")
    return request


def ask(url: str, timeout: float) -> tuple[int, Message]:
    """Status and headers with which an HTTP mirror answers a HEAD. Raises OSError where none does.

    Only NOT_HERE says that it does not hold the file, and REFUSED may mean it; whatever else it
    says, and it may know no HEAD, it is asked in full, so that its true status is recorded.
    """
    try:
        with urllib.request.urlopen(head(url), timeout=timeout) as answer:
            return answer.status, answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.headers
    except http.client.HTTPException as error:  # it speaks no HTTP
        raise OSError(clean_detail(error)) from error


NOT_HERE, REFUSED = (404, 410), 403
"""HTTP statuses. Object stores refuse what is not there to those who may not list."""


def _answer(url: str, timeout: float) -> int:
    try:
        return ask(url, timeout)[0]
    except OSError as error:
        raise FetchError(Status.NETWORK, clean_detail(f"mirror: {error}")) from error


# --- site ------------------------------------------------------------------------------------


def site_url(video: str, url: str | None, settings: Download) -> str:
    """The explicit link of the list, or the template filled in."""
    return url or settings.url.replace("{video_id}", video)


def from_site(video: str, url: str | None, settings: Download, folder: Path) -> Body:
    """The video through yt-dlp. Raises FetchError."""
    address = site_url(video, url, settings)
    return Body(_yt_dlp(address, settings, folder), "site", address)


class _Log:
    """yt-dlp's messages: errors arrive as exceptions, the rest is not for a progress bar."""

    last = ""

    def debug(self, message: str) -> None:
        """Kept until the next one: yt-dlp says here why it passes a file over."""
        self.last = message

    def warning(self, message: str) -> None:
        """Dropped."""

    def error(self, message: str) -> None:
        """Dropped."""


def ydl_options(settings: Download, folder: Path) -> dict[str, Any]:
    """The YoutubeDL options that params.yaml amounts to. Raises UserError for missing cookies."""
    deadline = time.monotonic() + settings.max_seconds

    def stop_late(progress: dict[str, Any]) -> None:
        if progress.get("downloaded_bytes", 0) > settings.max_bytes:
            raise FetchError(Status.NO_FORMAT, TOO_LARGE)
        if time.monotonic() > deadline:
            raise FetchError(Status.NETWORK, TOO_LONG)

    options: dict[str, Any] = {
        "outtmpl": {"default": str(folder).replace("%", "%%") + "/video.%(ext)s"},
        "format": settings.format.replace("{max_height}", str(settings.max_height)),
        "merge_output_format": "mp4/mkv",
        "continuedl": True,
        "noplaylist": True,
        "playlist_items": "1",
        "quiet": True,
        "no_warnings": True,
        "noprogress": True,
        "progress_hooks": [stop_late],
        "socket_timeout": settings.timeout,
        "retries": 2,
        "fragment_retries": settings.retries,
        "extractor_retries": 1,
        "max_filesize": settings.max_bytes,
        "updatetime": False,
        "cachedir": False,
        "overwrites": False,
    }
    if settings.cookies:
        # yt-dlp writes cookies back: each fetch works on its own copy.
        copy = folder / "cookies.txt"
        copy.unlink(missing_ok=True)
        try:
            data = Path(settings.cookies).read_bytes()
        except FileNotFoundError:
            raise UserError(f"download.cookies: {settings.cookies}: no such file") from None
        except IsADirectoryError:
            raise UserError(f"download.cookies: {settings.cookies} is a folder") from None
        _check_cookies(data, settings.cookies)
        # Nobody else may read it, whatever this machine's files are like by default.
        with os.fdopen(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
        options["cookiefile"] = str(copy)
    if settings.proxy:
        options["proxy"] = settings.proxy
    if settings.bytes_per_second:
        options["ratelimit"] = settings.bytes_per_second
    if settings.js_runtime:
        name, _, path = settings.js_runtime.partition(":")
        options["js_runtimes"] = {name: {"path": path} if path else {}}
    if settings.extractor_args:
        options["extractor_args"] = settings.extractor_args
    if ffmpeg := _ffmpeg():
        options["ffmpeg_location"] = ffmpeg
    return options | settings.yt_dlp


def _check_cookies(data: bytes, name: str) -> None:
    """Raise UserError for what yt-dlp would pass over: it prints such lines, which are secrets."""
    remedy = "export it anew from the browser, in Netscape's format"
    found = False
    lines = data.decode("utf-8", "replace").splitlines()
    if not re.match("#( Netscape)? HTTP Cookie File", next(iter(lines), "")):
        raise UserError(f"download.cookies: {name} is no Netscape cookie file; {remedy}")
    for number, line in enumerate(lines, start=1):
        fields = line.removeprefix("#HttpOnly_").split("\t")
        if not line.strip() or fields[0].startswith("#"):
            continue
        if len(fields) != 7 or not re.fullmatch(r"(\d+(\.\d+)?)?", fields[4]):
            raise UserError(
                f"download.cookies: {name}:{number} is no cookie, with seven fields between tabs; "
                + remedy
            )
        found = True
    if not found:
        raise UserError(f"download.cookies: {name} holds no cookie; {remedy}")


def _ffmpeg() -> str | None:
    """yt-dlp merges separate video and audio with the ffmpeg program; a wheel can bring it."""
    if shutil.which("ffmpeg"):
        return None
    try:
        import imageio_ffmpeg
    except ImportError:
        return None
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def _yt_dlp(url: str, settings: Download, folder: Path) -> Path:
    import yt_dlp

    from pipelines.site.capped import CappedYoutubeDL

    _prepared(folder)
    log = _Log()
    options = ydl_options(settings, folder) | {"logger": log}
    try:
        with CappedYoutubeDL(options, settings.max_bytes, settings.max_seconds) as ydl:
            info = ydl.extract_info(url, download=True)
    except yt_dlp.utils.YoutubeDLError as error:
        raise from_yt_dlp(error) from error
    finally:
        (folder / "cookies.txt").unlink(missing_ok=True)
    while info and info.get("entries"):
        info = next(iter(info["entries"]))
    for request in (info or {}).get("requested_downloads") or []:
        path = Path(request.get("filepath", ""))
        if path.is_file():
            return path
    # Only a file over `max_bytes` is passed over without an exception; the log says so.
    words = clean_detail(log.last.removeprefix("\r[download] "))
    raise FetchError(Status.NO_FORMAT, words or "yt-dlp finished without a file")


# --- all of it -------------------------------------------------------------------------------


def fetch(
    video: str,
    url: str | None,
    settings: Download,
    folder: Path,
    take_token: Callable[[], None],
    wait: Callable[[int, float | None], float],
    probe: Callable[[Path], Any],
) -> tuple[Body, Any]:
    """Fetch and probe one video: (body, probe result).

    folder: where unfinished parts stay between runs. take_token: called before every request
    to a site. wait(attempt, retry_after): seconds before the next try. Raises FetchError with
    the status of the last try; the mirror's own failure is added to its detail, and is the status
    where it may pass and the site's may not: the mirror may hold what the site has lost. With
    `mirror_only` no site is asked.
    """
    from_here, may_pass = "", False
    own: FetchError | None = None
    deadline = time.monotonic() + settings.max_seconds
    if settings.mirror:
        try:
            body = from_mirror(video, settings, folder)
            if body is not None:
                return body, probe(body.path)
        except FetchError as error:
            own = error
            from_here, may_pass = f"; mirror: {error}", error.status in TRANSIENT
            _clear(folder)
        except OSError as error:  # a folder or an object store that does not answer
            if error.errno in FATAL_ERRNOS:
                raise
            own = FetchError(Status.NETWORK, clean_detail(error))
            from_here, may_pass = f"; mirror: {own}", True
    if settings.mirror_only:
        raise own or FetchError(Status.REMOVED, "the mirror does not hold it; no site is asked")
    for attempt in range(settings.retries + 1):
        take_token()
        arrived = False
        try:
            body = from_site(video, url, settings, folder)
            arrived = True
            return body, probe(body.path)
        except FetchError as error:
            broken_off = not arrived and error.status in BROKEN_OFF
            if not broken_off:
                _clear(folder)
            if not broken_off or attempt == settings.retries or time.monotonic() > deadline:
                if may_pass and error.status not in TRANSIENT:
                    words = f"{from_here.removeprefix('; ')}; {error.status}: {error.detail}"
                    raise FetchError(Status.NETWORK, words) from error
                raise FetchError(error.status, error.detail + from_here) from error
            time.sleep(wait(attempt, error.retry_after))
    raise AssertionError("unreachable")


BROKEN_OFF = (Status.THROTTLED, Status.NETWORK, Status.TRUNCATED)
"""Transfers worth another try, which goes on from the `.part` of the one before."""


def _clear(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
