"""Read back what our own stages wrote: the frames of a clip, the landmarks of a clip."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from pipelines import storage
from pipelines.errors import StopStage
from pipelines.video.exact import ToRgb
from pipelines.video.probe import OPEN_OPTIONS

Frames = npt.NDArray[np.uint8]


def read_crop(
    url: str, sha256: str, said: str, scratch: Path, numbers: Iterable[int] | None = None
) -> Frames:
    """Frames of a crop in the work folder, as `read_frames`, if its bytes are those that were cut.

    said: who asks for whose crop. Raises StopStage where they are not, having deleted it: a decoder
    would smear the picture and say nothing. FileNotFoundError where it is gone.
    """
    with storage.local_copy(url, scratch) as path:
        if storage.sha256(path) == sha256:
            return read_frames(path, numbers)
    storage.remove(url)
    raise StopStage(
        f"{said} was changed by its disk since it was cut; it is deleted: run `dvc repro -f crop`, "
        "and look after the disk"
    )


def read_frames(path: Path, numbers: Iterable[int] | None = None) -> Frames:
    """Frames of a clip as (n, height, width, 3) RGB; only `numbers` of them when given.

    Raises av.error.FFmpegError where the clip does not decode, ValueError where it is too short.
    """
    wanted = None if numbers is None else set(numbers)
    read, to_rgb = deque[npt.NDArray[np.uint8]](), ToRgb()
    with av.open(str(path.absolute()), options=OPEN_OPTIONS) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        for number, frame in enumerate(container.decode(stream)):
            if wanted is None or number in wanted:
                read.append(to_rgb(frame))
    if not read or (wanted is not None and len(read) != len(wanted)):
        there = f"{len(read)} of {len(wanted)} frames are" if wanted else "no frame is"
        raise ValueError(f"{path.name}: {there} there")
    frames: Frames = np.empty((len(read), *read[0].shape), np.uint8)
    for at in range(len(frames)):  # one by one: a long clip shall not lie in memory twice
        frames[at] = read.popleft()
    return frames


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
