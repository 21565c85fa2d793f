"""Errors meant for people, and what text may go into a manifest."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from urllib.parse import unquote


class UserError(Exception):
    """A mistake or a missing thing that the user can mend: one line, exit 2, no traceback."""


class StopStage(Exception):
    """Nothing more can be done by this stage (full disk, missing weights): one line, exit 1."""


FATAL_ERRNOS = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS),
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    }
)
"""The machine's trouble, not the item's: going on would turn every row into a failure."""


UNANSWERED = frozenset(
    {
        *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENXIO, errno.ENODEV, errno.EREMOTEIO),
        *(errno.ENOTCONN, errno.ECONNRESET, errno.ECONNABORTED, errno.EHOSTDOWN),
        *(errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
    }
)
"""A disk or a network's file system that does not answer: nothing is said of the file by that."""


def raise_unanswered(error: BaseException) -> None:
    """Raise OSError where a library's error is that the disk did not answer: not the file's fault.

    FFmpeg's errors are the system's, and look like those of a damaged file.
    """
    if isinstance(error, OSError) and error.errno in UNANSWERED:
        raise OSError(error.errno, os.strerror(error.errno)) from error


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest known word, or nothing."""
    close = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_CREDENTIALS = re.compile(r"(\w+://)[^/\s'\"]+@")
_SECRET_QUERY = re.compile(
    r"([?&;](?:(?:[\w.-]*[_.-])?(?:sig|signature|token|key|credentials?|secret|pass|password|pwd"
    r"|auth|authorization|session|policy)|(?:api|auth|access|secret)(?:key|token)|awsaccesskeyid"
    r"|key-pair-id|x-(?:amz|goog)-[\w-]+)=)[^&\s'\"]+",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r" ?@ ?0x[0-9a-f]+|0x[0-9a-f]{8,}")
_FOLDER = re.compile(r"(?<![\w:/])/(?:[^\s'\"/:]+/)+")
_concealed: set[str] = set()
SHORTEST_SECRET = 4
"""Characters. Hiding less would tear holes into every word."""


def printable(text: str) -> str:
    """Escape what would break a terminal, a line-based log or UTF-8: controls, lone surrogates."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def conceal(secrets: Iterable[str]) -> None:
    """From here on, in this process, `redact` removes these wherever they stand."""
    forms = (form for secret in secrets for form in (secret, unquote(secret)))
    _concealed.update(form for form in forms if len(form) >= SHORTEST_SECRET)


def redact(text: str) -> str:
    """Remove credentials from URLs (`user:password@`, signed query values) and the concealed."""
    for secret in sorted(_concealed, key=len, reverse=True):
        text = text.replace(secret, "***")
    return _SECRET_QUERY.sub(r"\1***", _CREDENTIALS.sub(r"\1***@", text))


def clean_detail(text: object, limit: int = 300) -> str:
    """A tool's own words as one line that is the same on every machine and tells no secret.

    Colour codes, control characters, memory addresses and the folders of absolute paths go;
    credentials are redacted.
    """
    line = _ANSI.sub("", str(text))
    line = _CONTROL.sub(" ", line).encode("utf-8", "replace").decode("utf-8")
    line = _FOLDER.sub("", _ADDRESS.sub("", redact(line))).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"
