"""How long a container says its file is: what was cut off is told without decoding anything."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO


def missing_end(path: Path) -> str | None:
    """What a container promises beyond the end of its file, or None. Raises OSError.

    Sizes stand in the outermost boxes of MP4, in the EBML segment of Matroska and in RIFF.
    """
    with path.open("rb") as file:
        return _missing(file, file.read(4096))


def _missing(file: BinaryIO, head: bytes) -> str | None:
    size = file.seek(0, 2)
    promised = None
    if head.startswith(b"\x1aE\xdf\xa3"):
        promised = _matroska_end(head)
    elif head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        promised = 8 + int.from_bytes(head[4:8], "little")
    elif head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp"):
        kinds = set()
        for kind, end in _boxes(file, size):
            kinds.add(kind)
            promised = end
        if (promised or 0) <= size and b"moov" not in kinds:
            return "there is no moov box: the file was cut before its index"
    if promised is not None and promised > size:
        return f"the container promises {promised} bytes, the file has {size}"
    return None


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int]]:
    """Kind and end of the outermost boxes of an MP4 or QuickTime file."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        header = file.read(16)
        length, kind = struct.unpack(">I4s", header[:8])
        if length == 1 and len(header) == 16:
            (length,) = struct.unpack(">Q", header[8:])
        elif length == 0:
            length = size - at
        if length < 8 or not kind.isalnum():
            return  # padding, or no box at all: the demuxer judges
        at += length
        yield kind, at


def _matroska_end(head: bytes) -> int | None:
    """Where the segment of a Matroska file ends, None where it does not say."""
    with suppress(IndexError):
        length, at = _ebml_size(head, 4)
        if length is None or head[at + length : at + length + 4] != b"\x18S\x80g":
            return None
        body, at = _ebml_size(head, at + length + 4)
        return None if body is None else at + body
    return None


def _ebml_size(data: bytes, at: int) -> tuple[int | None, int]:
    """An EBML size at an offset, None for unknown, and the offset behind it."""
    width = 9 - data[at].bit_length()
    if width > 8:
        return None, at + 1
    value = int.from_bytes(data[at : at + width], "big") & ((1 << 7 * width) - 1)
    return (None if value == (1 << 7 * width) - 1 else value), at + width
