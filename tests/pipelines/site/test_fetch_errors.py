"""The wordings of YouTube, yt-dlp and the network, and the status that each stands for."""

from __future__ import annotations

import errno
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yt_dlp.networking.common import Response
from yt_dlp.networking.exceptions import HTTPError, IncompleteRead, TransportError
from yt_dlp.utils import (
    ContentTooShortError,
    DownloadError,
    ExtractorError,
    GeoRestrictedError,
    UnavailableVideoError,
)

from pipelines.site.fetch_errors import TABLE, FetchError, from_yt_dlp, status_of
from pipelines.statuses import Status

BUG = (
    "; please report this issue on  https://github.com/yt-dlp/yt-dlp/issues?q= , filling out the "
    "appropriate issue template. Confirm you are on the latest version using  yt-dlp -U"
)
HINT = (
    "Use --cookies-from-browser or --cookies for the authentication. See  "
    "https://github.com/yt-dlp/yt-dlp/wiki/FAQ#how-do-i-pass-cookies-to-yt-dlp  for how to "
    "manually pass cookies. Also see  https://github.com/yt-dlp/yt-dlp/wiki/Extractors"
    "#exporting-youtube-cookies  for tips on effectively exporting YouTube cookies"
)
YT = "ERROR: [youtube] aSSL-proxy4: "

WORDINGS = [
    (YT + f"Sign in to confirm you’re not a bot. {HINT}", "bot_check"),
    (YT + "Sign in to confirm you're not a bot. This helps protect our community.", "bot_check"),
    (
        YT + "Video unavailable. YouTube is requiring a captcha challenge before playback",
        "bot_check",
    ),
    ("Our systems have detected unusual traffic from your computer network", "bot_check"),
    (
        YT + "Sign in to confirm your age. This video may be inappropriate for some users. " + HINT,
        "age_restricted",
    ),
    (YT + "This video is age-restricted and only available on YouTube", "age_restricted"),
    (
        YT + "The following content has been identified by the YouTube community as inappropriate "
        "or offensive to some audiences.",
        "age_restricted",
    ),
    (
        YT + "Private video. Sign in if you've been granted access to this video. " + HINT,
        "private",
    ),
    (YT + "This video is private", "private"),
    (YT + "Join this channel to get access to members-only content like this video", "private"),
    (YT + "This video is available to this channel's members on level: Friend", "private"),
    (YT + "This video requires payment to watch", "private"),
    (YT + "This video is only available to Music Premium members", "private"),
    (YT + f"Please sign in. {HINT}", "private"),
    (
        YT + "Video unavailable. This video is restricted. Please check the Google Workspace "
        "administrator and/or the network administrator restrictions.",
        "private",
    ),
    (
        "ERROR: [vimeo] 1: This video is only available for registered users. Use --cookies",
        "private",
    ),
    ("ERROR: [generic] x: Unable to download webpage: HTTP Error 403: Forbidden", "private"),
    ("ERROR: [generic] x: Unable to download webpage: HTTP Error 401: Unauthorized", "private"),
    (
        YT + "Video unavailable. The uploader has not made this video available in your country\n"
        "You might want to use a VPN or a proxy server (with --proxy) to workaround.",
        "geo_blocked",
    ),
    (
        YT + "Video unavailable. This video contains content from SME, who has blocked it in your "
        "country on copyright grounds",
        "geo_blocked",
    ),
    ("This video is not available from your location due to geo restriction", "geo_blocked"),
    (
        "HTTP Error 451: Unavailable For Legal Reasons (caused by <HTTPError 451>)",
        "geo_blocked",
    ),
    (YT + "Unable to download API page: HTTP Error 429: Too Many Requests", "throttled"),
    (f"HTTP Error 429: Too Many Requests. {HINT}", "throttled"),
    ("Unable to download webpage: HTTP Error 503: Service Unavailable", "throttled"),
    (
        YT + "Video unavailable. This content isn’t available, try again later.",
        "throttled",
    ),
    (
        YT
        + "Video unavailable. This content isn't available, try again later. The current session "
        "has been rate-limited by YouTube for up to an hour. It is recommended to use `-t sleep` "
        "to add a delay between video requests to avoid exceeding the rate limit.",
        "throttled",
    ),
    ("ERROR: unable to download video data: HTTP Error 403: Forbidden", "throttled"),
    (YT + "Requested format is not available. Use --list-formats", "no_format"),
    (YT + "Only images are available for download. use --list-formats to see them", "no_format"),
    (YT + "This video is DRM protected", "no_format"),
    (YT + "This live event will begin in 3 days.", "no_format"),
    (YT + "Premieres in 2 hours", "no_format"),
    ("File is larger than max-filesize (832303 bytes > 1000 bytes). Aborting.", "no_format"),
    (
        "ERROR: You have requested merging of multiple formats but ffmpeg is not installed. "
        "Aborting due to --abort-on-error",
        "no_format",
    ),
    (YT + "ffprobe and ffmpeg not found. Please install or provide the path", "no_format"),
    ("ERROR: Postprocessing: ffmpeg not found. Please install or provide the path", "no_format"),
    ("ERROR: Postprocessing: Conversion failed!", "corrupt"),
    ("ERROR: Postprocessing: Error opening input files: Invalid data found", "corrupt"),
    (YT + f"Failed to extract any player response{BUG}", "network"),
    (YT + "The page needs to be reloaded.", "network"),
    (YT + f"Unable to extract yt initial data{BUG}", "network"),
    (YT + "Unable to extract yt initial data - Failed to parse JSON", "network"),
    (YT + "Incomplete yt initial data received", "network"),
    (
        YT + "The following content is not available on this app.. Watch on the latest version of "
        "YouTube.",
        "network",
    ),
    (YT + f"An extractor error has occurred. (caused by KeyError('videoDetails')){BUG}", "network"),
    (YT + f"No video formats found!{BUG}", "no_format"),
    (YT + f"Unable to extract player version{BUG}", "network"),
    ("ERROR: The downloaded file is empty", "not_a_video"),
    ("ERROR: Did not get any data blocks", "not_a_video"),
    ("ERROR: [generic] Unsupported URL: http://site/page", "not_a_video"),
    (
        "ERROR: \r[download] Got error: 155031 bytes read, 155032 more expected. Giving up after 2 "
        "retries",
        "truncated",
    ),
    ("ERROR: content too short (expected 100 bytes and served 50)", "truncated"),
    ("Downloaded 50 bytes, expected 100 bytes", "truncated"),
    (YT + "Video unavailable", "removed"),
    (YT + "Video unavailable. This video is not available", "removed"),
    (YT + "Video unavailable. This video is no longer available", "removed"),
    (YT + "Video unavailable. This video has been removed by the uploader", "removed"),
    (
        YT + "This video has been removed for violating YouTube's policy on hate speech.",
        "removed",
    ),
    (
        YT + "Video unavailable. This video is no longer available because the YouTube account "
        "associated with this video has been terminated.",
        "removed",
    ),
    (
        YT + "Video unavailable. This video is no longer available because the uploader has closed "
        "their YouTube account.",
        "removed",
    ),
    (
        YT + "Video unavailable. This video is no longer available due to a copyright claim by X",
        "removed",
    ),
    (YT + "This live stream recording is not available.", "removed"),
    (YT + "This channel does not exist; the video no longer exists", "removed"),
    ("Unable to download webpage: HTTP Error 404: Not Found", "removed"),
    ("Unable to download webpage: HTTP Error 410: Gone", "removed"),
    (
        YT + "Unable to download API page: [Errno -3] Temporary failure in name resolution (caused "
        "by TransportError('[Errno -3] Temporary failure in name resolution'))",
        "network",
    ),
    ("Unable to download webpage: [Errno 111] Connection refused", "network"),
    ("Unable to download webpage: [Errno 104] Connection reset by peer", "network"),
    ("Unable to download webpage: [Errno 101] Network is unreachable", "network"),
    ("Unable to download webpage: The read operation timed out", "network"),
    ("('Connection aborted.', RemoteDisconnected('Remote end closed connection'))", "network"),
    ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", "network"),
    ("Unable to download webpage: ('Unable to connect to proxy', ...)", "network"),
    ("Unable to download webpage: HTTP Error 500: Internal Server Error", "network"),
    ("Unable to download webpage: HTTP Error 502: Bad Gateway", "network"),
    ("ERROR: failed to establish a new connection", "network"),
    ("ERROR: This helps protect our community. Learn more", "bot_check"),
    ("ERROR: This video is only available to signed-in adults", "age_restricted"),
    ("ERROR: The video is geo-restricted", "geo_blocked"),
    (YT + "words that nobody has seen before", "no_format"),
]


@pytest.mark.parametrize(("words", "status"), WORDINGS)
def test_known_wordings(words: str, status: str) -> None:
    assert status_of(words) == status
    assert status_of(words.upper()) == status


def test_every_row_of_the_table_is_reached_by_some_wording() -> None:
    import re

    firsts = set()
    for words, _ in WORDINGS:
        firsts.add(next((p for p, _ in TABLE if re.search(p, words, re.IGNORECASE)), None))
    missed = [pattern for pattern, _ in TABLE if pattern not in firsts]
    assert not missed


@given(st.from_regex(r"[A-Za-z0-9_-]{11}", fullmatch=True))
def test_a_video_id_does_not_decide_its_status(video: str) -> None:
    assert status_of(f"ERROR: [youtube] {video}: Video unavailable") == Status.REMOVED
    assert status_of(f"ERROR: [youtube] {video}: something new") == Status.NO_FORMAT


# --- exceptions as yt-dlp raises them ----------------------------------------------------------


def http_error(code: int, reason: str, **headers: str) -> HTTPError:
    return HTTPError(
        Response(io.BytesIO(b""), "http://site/x", headers, status=code, reason=reason)
    )


def wrapped(cause: BaseException, words: str) -> DownloadError:
    """What `YoutubeDL` raises for a cause."""
    return DownloadError(f"ERROR: {words}", (type(cause), cause, None))


def classify(error: BaseException) -> FetchError:
    found = from_yt_dlp(error)
    assert isinstance(found, FetchError)
    return found


def test_retry_after_is_read_from_the_answer_s_headers() -> None:
    cause = http_error(429, "Too Many Requests", **{"Retry-After": "17"})
    found = classify(wrapped(cause, f"Unable to download webpage: {cause}"))
    assert (found.status, found.retry_after) == (Status.THROTTLED, 17.0)
    assert found.detail == "Unable to download webpage: HTTP Error 429: Too Many Requests"


@pytest.mark.parametrize("value", ["Wed, 21 Oct 2026 07:28:00 GMT", "", "-5", "soon"])
def test_a_retry_after_in_another_form_is_passed_over(value: str) -> None:
    cause = http_error(503, "Service Unavailable", **{"Retry-After": value})
    assert classify(wrapped(cause, str(cause))).retry_after is None


def test_the_cause_is_found_below_an_extractor_s_error() -> None:
    inner = http_error(429, "Too Many Requests", **{"Retry-After": "3"})
    outer = ExtractorError("Unable to download webpage: HTTP Error 429", cause=inner)
    assert classify(wrapped(outer, str(outer))).retry_after == 3.0


@pytest.mark.parametrize(
    ("cause", "words", "status"),
    [
        (
            GeoRestrictedError("Only in Germany"),
            "[x] This video is available in Germany",
            "geo_blocked",
        ),
        (ContentTooShortError(5, 10), "something", "truncated"),
        (TransportError("odd"), "odd words", "network"),
        (IncompleteRead(5, 10), "5 bytes read, 10 more expected", "truncated"),
        (ValueError("odd"), "odd words", "no_format"),
    ],
)
def test_the_type_of_the_cause_counts_where_words_do_not(
    cause: BaseException, words: str, status: str
) -> None:
    assert classify(wrapped(cause, words)).status == status


def test_a_full_disk_is_the_machine_s_trouble_not_the_video_s() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    assert from_yt_dlp(wrapped(full, "unable to write data: [Errno 28] No space left")) is full
    try:
        try:
            raise full
        except OSError as error:
            raise UnavailableVideoError(error)  # noqa: B904 - as yt-dlp does it
    except UnavailableVideoError as error:
        assert from_yt_dlp(error) is full


def test_exceptions_that_hold_each_other_end() -> None:
    first, second = ExtractorError("a"), ExtractorError("b")
    first.cause, second.cause = second, first
    assert classify(first).status == Status.NO_FORMAT


def test_details_are_clean_and_keep_the_tool_s_words() -> None:
    error: Any = DownloadError(
        "\x1b[0;31mERROR:\x1b[0m \x1b[31m[generic]\x1b[0m http://me:pw@h/x:\nfailed"
    )
    assert classify(error).detail == "[generic] http://***@h/x: failed"
