"""Which words of yt-dlp, of a site or of the network mean which download status.

The one table to mend when a site changes its wording. The first row that matches wins, so
what is more particular stands higher.
"""

from __future__ import annotations

import re

from pipelines.errors import FATAL_ERRNOS, clean_detail
from pipelines.statuses import Status

TABLE: tuple[tuple[str, Status], ...] = (
    # Asked to prove that we are not a robot: before age and privacy, which also say "sign in".
    (r"confirm (that )?you.?(’|')?re not a (bot|robot)", Status.BOT_CHECK),
    (r"\bcaptcha\b|unusual traffic|automated (queries|requests)", Status.BOT_CHECK),
    (r"protect our community", Status.BOT_CHECK),
    # Age
    (r"confirm your age|age.?restricted|inappropriate (for|or offensive)", Status.AGE_RESTRICTED),
    (r"only available to (signed.in )?adults", Status.AGE_RESTRICTED),
    # Private
    (r"private video|video is private|granted access to this video", Status.PRIVATE),
    (r"members.only|channel.s members|join this channel", Status.PRIVATE),
    (r"requires payment|premium members", Status.PRIVATE),
    (r"login required|registered users|video is restricted", Status.PRIVATE),
    # Place
    (r"(in|from) your (country|location|region)", Status.GEO_BLOCKED),
    (r"geo.?(restrict|block)", Status.GEO_BLOCKED),
    (r"http error 451", Status.GEO_BLOCKED),
    # Pace
    (r"http error (429|503)|too many requests|rate.?limit", Status.THROTTLED),
    (r"content isn.?(’|')?t available, try again later", Status.THROTTLED),
    (r"unable to download video data: http error 403", Status.THROTTLED),
    # After place and pace, whose messages may end in the same advice
    (r"use --cookies", Status.PRIVATE),
    # A page or a player that did not come whole (the next may), or that takes a newer yt-dlp
    (r"page needs to be reloaded|failed to extract any player response", Status.NETWORK),
    (r"unable to extract|incomplete (yt )?initial data", Status.NETWORK),
    (r"content is not available on this app|an extractor error has occurred", Status.NETWORK),
    # Formats
    (r"requested format is not available|no video formats found", Status.NO_FORMAT),
    (r"only images are available|drm.protected|larger than max-filesize", Status.NO_FORMAT),
    (r"live event (will begin|has ended)|premieres in|is not currently live", Status.NO_FORMAT),
    (r"ffmpeg is not installed|ff(mpeg|probe) not found", Status.NO_FORMAT),
    # Its last words, of sound and picture that it could not join
    (r"postprocessing: ", Status.CORRUPT),
    # Body
    (r"downloaded file is empty|did not get any data blocks", Status.NOT_A_VIDEO),
    (r"content.?too.?short|\d+ more expected|incompleteread", Status.TRUNCATED),
    (r"downloaded \d+ bytes, expected \d+", Status.TRUNCATED),
    (r"unsupported url", Status.NOT_A_VIDEO),
    # Gone: YouTube's plain "Video unavailable" is the general word, hence last of its family
    (r"has been (removed|terminated|deleted)|account .*(terminated|closed)", Status.REMOVED),
    (r"copyright (claim|grounds)|violat(ed|ing|ion)", Status.REMOVED),
    (r"http error (404|410)", Status.REMOVED),
    (r"video (is )?(unavailable|not available|no longer available)", Status.REMOVED),
    (r"(video|page) (does not exist|not found)|no longer (available|exists)", Status.REMOVED),
    (r"recording is not available", Status.REMOVED),
    (r"http error (401|403)", Status.PRIVATE),
    # Anything of the line in between
    (r"http error [45]\d\d", Status.NETWORK),
    (r"timed? ?out|connection (refused|reset|aborted|broken)|unreachable", Status.NETWORK),
    (r"getaddrinfo|name or service|name resolution|resolve host", Status.NETWORK),
    (r"remote end closed|transporterror|\bssl|certificate|proxy", Status.NETWORK),
    (r"unable to (download|connect)|failed to establish", Status.NETWORK),
)
_COMPILED = tuple((re.compile(pattern, re.IGNORECASE), status) for pattern, status in TABLE)
# yt-dlp's `[extractor] video: `, which must not be taken for words.
_WHO = re.compile(r"^(ERROR: )?\[[\w:+-]+\] \S+: ")


TOO_LARGE, TOO_LONG = "larger than download.max_bytes", "took longer than download.max_seconds"


class FetchError(Exception):
    """A fetch that did not give a video."""

    def __init__(self, status: Status, detail: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status}: {detail}")
        self.status, self.detail, self.retry_after = status, detail, retry_after


def status_of(text: str) -> Status:
    """The status that a message stands for; what nobody knows is NO_FORMAT, with its words kept."""
    words = _WHO.sub("", text)
    for pattern, status in _COMPILED:
        if pattern.search(words):
            return status
    return Status.NO_FORMAT


def from_yt_dlp(error: BaseException) -> FetchError | OSError:
    """Classify a yt_dlp DownloadError by its cause (`exc_info[1]`) and its words.

    The machine's own trouble, a full disk, comes back as the OSError that it is.
    """
    from yt_dlp.networking.exceptions import HTTPError, TransportError
    from yt_dlp.utils import ContentTooShortError, GeoRestrictedError

    cause: BaseException = error
    chain = [error]
    while True:
        info = getattr(cause, "exc_info", None)
        inner = (info[1] if info else None) or getattr(cause, "cause", None)
        inner = inner or cause.__cause__ or cause.__context__
        if not isinstance(inner, BaseException) or inner in chain:
            break
        if isinstance(inner, OSError) and inner.errno in FATAL_ERRNOS:
            return inner
        chain.append(inner)
        cause = inner
    words = clean_detail(error, 10_000)
    status, detail = status_of(words), clean_detail(words.removeprefix("ERROR: "))
    retry_after = None
    for link in chain:
        if isinstance(link, GeoRestrictedError):
            status = Status.GEO_BLOCKED
        elif isinstance(link, ContentTooShortError):
            status = Status.TRUNCATED
        elif isinstance(link, HTTPError):
            retry_after = _seconds(link.response.headers.get("Retry-After"))
        elif isinstance(link, TransportError) and status == Status.NO_FORMAT:
            status = Status.NETWORK
    return FetchError(status, detail, retry_after)


def _seconds(value: str | None) -> float | None:
    return float(value) if value and value.strip().isdigit() else None
