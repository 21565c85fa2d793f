"""Read back what our own stages wrote: the frames of a clip, the landmarks of a clip."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from pipelines.video.exact import ToRgb
from pipelines.video.probe import OPEN_OPTIONS

Frames = npt.NDArray[np.uint8]


def read_frames(path: Path, numbers: Iterable[int] | None = None) -> Frames:
    """Frames of a clip as (n, height, width, 3) RGB; only `numbers` of them when given.

    Raises av.error.FFmpegError where the clip does not decode, ValueError where it is too short.
    """
    wanted = None if numbers is None else set(numbers)
    frames, to_rgb = [], ToRgb()
    with av.open(str(path.absolute()), options=OPEN_OPTIONS) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        for number, frame in enumerate(container.decode(stream)):
            if wanted is None or number in wanted:
                frames.append(to_rgb(frame))
    if wanted is not None and len(frames) != len(wanted):
        raise ValueError(f"{path.name}: {len(frames)} of {len(wanted)} frames are there")
    return np.stack(frames)


def even_numbers(frames: int, count: int) -> list[int]:
    """`count` frame numbers spread evenly over a clip, its first and last included."""
    if frames <= count:
        return list(range(frames))
    return [int(number) for number in np.linspace(0, frames - 1, count).round()]


def pack_arrays(arrays: dict[str, npt.NDArray[np.float32]]) -> bytes:
    """Arrays as .npz bytes that depend on their content alone."""
    sink = io.BytesIO()
    np.savez(sink, allow_pickle=False, **arrays)
    return sink.getvalue()


def unpack_arrays(data: bytes) -> dict[str, npt.NDArray[np.float32]]:
    """The arrays of .npz bytes; nothing is unpickled. Raises ValueError for damaged bytes."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"damaged arrays: {error}") from error
