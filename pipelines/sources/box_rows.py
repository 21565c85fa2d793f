"""Rows of `frame x y width height`, parsed fast: VoxCeleb2 alone has 230 million of them."""

from __future__ import annotations

import io
import re
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pipelines.sources.base import MAX_BOX_VALUE, RowError, quote
from pipelines.sources.text import INT32_MAX, decimal, words

MAX_GAP = 1500
"""Frames (a minute) that may be missing between two rows; more is damage, not a lost track."""

Frames = npt.NDArray[np.int64]
Boxes = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.float64]

_TO_ZERO = bytes.maketrans(b"123456789", b"000000000")
_PLAIN = b"0123456789.- \t\n"
_NUMBER = re.compile(rb"-?0+(\.0+)?")


def read_rows(body: bytes, first_line: int) -> tuple[Frames, Boxes]:
    """Parse and check rows; RowError with the line, where the body's first is `first_line`.

    The two fast parsers accept only what the slow one would; any doubt goes to the slow one,
    which knows the line and the reason.
    """
    numbers = _parse_uniform(body)
    if numbers is None:
        numbers = _parse_loose(body)
    if numbers is None or not _is_sound(numbers):
        return _read_slowly(body, first_line)
    return numbers[:, 0].astype(np.int64), numbers[:, 1:].astype(np.float32)


def fill_gaps(frames: Frames, boxes: Boxes) -> Boxes:
    """Give every frame from the first to the last a box, linear between its neighbours."""
    if frames[-1] - frames[0] == len(frames) - 1:
        return boxes
    grid = np.arange(frames[0], frames[-1] + 1)
    columns = [np.interp(grid, frames, column) for column in boxes.T]
    return np.stack(columns, axis=1).astype(np.float32)


def line_of(body: bytes, first_line: int, row: int) -> int:
    """Return the line of the n-th row (from 0): blank lines hold none."""
    lines = [n for n, line in enumerate(body.split(b"\n"), start=first_line) if line.strip()]
    return lines[row]


def _parse_uniform(body: bytes) -> Numbers | None:
    """Parse rows that all look alike but for the digits: nearly every VoxCeleb2 file.

    Then the digits of a column always stand at the same places, and one matrix product turns
    bytes into numbers. Exact: the products are whole numbers far below 2**53, and one division
    by a power of ten rounds as parsing the text would.
    """
    shape = body.translate(_TO_ZERO)
    width = shape.find(b"\n") + 1
    if not width or len(body) % width:
        return None
    row = shape[:width]
    if shape != row * (len(body) // width) or (layout := _layout(row)) is None:
        return None
    weights, zero, divisor = layout
    digits = np.frombuffer(body, dtype=np.uint8).reshape(-1, width)
    numbers: Numbers = (digits @ weights - zero) / divisor
    return numbers


@lru_cache(maxsize=1024)
def _layout(row: bytes) -> tuple[Numbers, Numbers, Numbers] | None:
    """Derive the weights of each byte of a row, what `0` characters sum to, and the divisors."""
    tokens = row.split()
    if len(tokens) != 5 or not all(_NUMBER.fullmatch(t) and len(t) <= 12 for t in tokens):
        return None
    weights, divisor = np.zeros((len(row), 5)), np.ones(5)
    end = 0
    for column, token in enumerate(tokens):
        end = row.index(token, end) + len(token)
        sign = -1.0 if token.startswith(b"-") else 1.0
        places = [i for i in range(len(token)) if token[i] == ord("0")]
        for power, place in enumerate(reversed(places)):
            weights[end - len(token) + place, column] = sign * 10.0**power
        divisor[column] = 10.0 ** len(token.partition(b".")[2])
    return weights, ord("0") * weights.sum(axis=0), divisor


def _parse_loose(body: bytes) -> Numbers | None:
    """Parse rows of differing widths: VoxCeleb1's pixels, or boxes that leave the picture."""
    if body.translate(None, _PLAIN) or not body.strip():
        return None
    try:
        numbers: Numbers = np.loadtxt(io.BytesIO(body), comments=None, ndmin=2)
    except ValueError:
        return None
    return numbers if numbers.shape[1] == 5 else None


def _is_sound(numbers: Numbers) -> bool:
    """Whether the values make sense. Written so that a NaN anywhere makes it False."""
    frames, boxes = numbers[:, 0], numbers[:, 1:]
    first, last = frames[0], frames[-1]
    if not (first >= 0 and last <= INT32_MAX and first % 1 == 0):
        return False
    steps = frames[1:] - frames[:-1]
    if not (steps == 1).all():
        rising = steps.min() >= 1 and steps.max() <= MAX_GAP + 1
        if not rising or (frames % 1).any():
            return False
    x, y, width, height = boxes.min(axis=0).astype(np.float32).tolist()
    return bool(
        x >= -MAX_BOX_VALUE
        and y >= -MAX_BOX_VALUE
        and width > 0
        and height > 0
        and boxes.max() <= MAX_BOX_VALUE
    )


def _read_slowly(body: bytes, first_line: int) -> tuple[Frames, Boxes]:
    frames: list[int] = []
    boxes: list[list[float]] = []
    for number, line in enumerate(body.split(b"\n"), start=first_line):
        try:
            tokens = words(line)
            if tokens:
                frame, box = _row(tokens, frames[-1] if frames else None)
                frames.append(frame)
                boxes.append(box)
        except RowError as error:
            raise RowError(str(error), number) from None
    if not frames:
        raise RowError("no rows below FRAME X Y W H; the file is cut", first_line - 1)
    return np.array(frames, dtype=np.int64), np.array(boxes, dtype=np.float32)


def _row(tokens: list[str], previous: int | None) -> tuple[int, list[float]]:
    if len(tokens) != 5:
        raise RowError(f"{len(tokens)} values, not the 5 of FRAME X Y W H")
    number = decimal("FRAME", tokens[0])
    if number % 1 or not 0 <= number <= INT32_MAX:
        raise RowError(f"FRAME is {quote(tokens[0])}, not a whole number from 0 to {INT32_MAX}")
    frame = int(number)
    if previous is not None and not 1 <= frame - previous <= MAX_GAP + 1:
        reason = "frames must rise" if frame <= previous else f"a gap of over {MAX_GAP} frames"
        raise RowError(f"FRAME {frame} follows {previous}: {reason}")
    box = [decimal(name, text) for name, text in zip("XYWH", tokens[1:], strict=True)]
    if max(map(abs, box)) > MAX_BOX_VALUE:
        raise RowError(f"a value beyond {MAX_BOX_VALUE:g}")
    if not (np.float32(box[2]) > 0 and np.float32(box[3]) > 0):
        raise RowError(f"W is {tokens[3]} and H {tokens[4]}; both must be positive")
    return frame, box
