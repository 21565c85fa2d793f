"""Lines and numbers of foreign text files, read strictly: a doubtful value is an error."""

from __future__ import annotations

import math
import re
from pathlib import Path

from pipelines.errors import UNANSWERED
from pipelines.sources.base import RowError, SourceError, quote

BOM = b"\xef\xbb\xbf"
INT32_MAX = 2**31 - 1

# int() and float() also take underscores, other alphabets' digits, nan and infinity.
_INTEGER = re.compile(r"[+-]?0*[0-9]{1,12}")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")


def read_lines(path: Path) -> list[tuple[int, bytes]]:
    """Return the non-blank lines of a file with their 1-based numbers: BOM, CRLF, blanks gone.

    Bytes, because one undecodable line must not cost the others: `decode` each on its own.
    """
    data = path.read_bytes().removeprefix(BOM)
    lines = ((number, line.strip()) for number, line in enumerate(data.splitlines(), start=1))
    return [(number, line) for number, line in lines if line]


def read_list(path: Path, remedy: str) -> list[tuple[int, bytes]]:
    """`read_lines` of a file that the source cannot do without: SourceError if unreadable."""
    try:
        return read_lines(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise SourceError(f"{path}: {why(error)}; {remedy}") from error


def unread(error: OSError, path: str | Path) -> str:
    """What to say of a file that cannot be read; SourceError where its disk does not answer.

    Nobody knows what a disk that does not answer holds, so that nothing of it may count as read.
    """
    if error.errno in UNANSWERED:
        raise SourceError(f"{path}: {why(error)}; run this again when it answers") from error
    return f"cannot be read: {why(error)}"


def names_in(path: Path) -> list[str] | None:
    """Return the names in a folder, sorted; None where `path` is no folder."""
    try:
        return sorted(p.name for p in path.iterdir()) if path.is_dir() else None
    except OSError as error:
        raise SourceError(f"{path}: {why(error)}; make the folder readable") from error


def why(error: Exception) -> str:
    """Return the operating system's own words for a failed file access, without the path."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def decode(line: bytes) -> str:
    """Decode one line as UTF-8; RowError if it is not."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowError(
            f"not UTF-8 text (byte 0x{line[error.start]:02x}); fetch or convert the file again"
        ) from error


def words(line: bytes) -> list[str]:
    """Split a line at its blanks and decode it; at least one word if the line is not blank."""
    decode(line)  # for the error's sake; str.split() would part words at other characters too
    return [word.decode("utf-8") for word in line.split()]


def integer(name: str, text: str, low: int = -INT32_MAX) -> int:
    """Parse a whole number from `low` on; RowError that calls it `name` otherwise."""
    if not _INTEGER.fullmatch(text):
        raise RowError(f"{name} is {quote(text)}, not a whole number")
    if not low <= int(text) <= INT32_MAX:
        raise RowError(f"{name} is {text}, not within {low}..{INT32_MAX}")
    return int(text)


def decimal(name: str, text: str) -> float:
    """Parse a finite number; RowError that calls it `name` otherwise."""
    if not _DECIMAL.fullmatch(text) or not math.isfinite(value := float(text)):
        raise RowError(f"{name} is {quote(text)}, not a finite number")
    return value
