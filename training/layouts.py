"""How what was generated is laid out, and the files it becomes: mp4, gif or a folder of PNGs.

Pictures are uint8 RGB, S the side of the model's. Writers fill a scratch file that the caller signs
and publishes when all frames are in. The same frames and sound give the same bytes (from 64 pixels
a side on: of smaller pictures x264 reads memory that nobody wrote).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Literal, Protocol, get_args

import av
import numpy as np
import numpy.typing as npt
from av.codec.context import Flags
from PIL import Image

from pipelines.errors import UserError
from pipelines.video.encode import SoundTrack
from pipelines.video.sound import Samples

Frames = npt.NDArray[np.uint8]
"""(n, height, width, 3)."""

Layout = Literal["plain", "side-by-side", "grid"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

FASTEST_GIF = 50
"""Frames a second. Browsers show a frame of less than 20 ms for 100."""
SOUND_RATE = 48000
"""Samples a second of the sound that goes into an mp4."""
_SOUND_BITS = 128_000  # for each channel


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One portrait in some frames: what it is, what moved it, what came of it."""

    portrait: Frames
    """(S, S, 3)."""
    drawings: Frames
    """(n, S, S, 3): its own landmarks as the driver moves them."""
    generated: Frames
    """(n, S, S, 3)."""


def compose(layout: Layout, rows: Sequence[Row], driver: Frames) -> Frames:
    """Frames to be shown, (n, height, width, 3); `driver` is (n, S, S, 3).

    plain: what was generated, S x S. side-by-side: portrait, driver, landmarks, generated, from
    left to right. grid: one such row for each portrait, as one picture.
    """
    if layout == "plain":
        return rows[0].generated
    whole = []
    for row in rows:
        still = np.broadcast_to(row.portrait, row.generated.shape)
        whole.append(np.concatenate([still, driver, row.drawings, row.generated], axis=2))
    return np.concatenate(whole, axis=1)


def layout_for(portraits: int, asked: Layout | None) -> Layout:
    """The layout asked for, or plain for one portrait and grid for several. Raises UserError."""
    if portraits > 1 and asked in ("plain", "side-by-side"):
        raise UserError(f"--layout {asked} shows one portrait, not {portraits}; use --layout grid")
    return asked or ("plain" if portraits == 1 else "grid")


# --- files -----------------------------------------------------------------------------------


class Writer(Protocol):
    """Takes frames of one size, batch after batch, and ends with `close`."""

    def write(self, frames: Frames) -> None:
        """Append frames (n, height, width, 3)."""

    def close(self) -> None:
        """Make it whole."""


def check_output(output: str) -> Path:
    """Where to write. Raises UserError for a name that tells no kind, or a folder in use.

    A name that ends in .mp4 or .gif is a file; one that ends in / or has no dot in its last part is
    a folder of pictures 000000.png, 000001.png and so on.
    """
    path = Path(output)
    if path.name in ("", ".."):
        raise UserError(f"{output}: give what is to be written a name")
    if path.suffix.lower() in (".mp4", ".gif"):
        if path.is_dir() or output.endswith("/"):
            raise UserError(
                f"{output} is a folder; give a folder of PNG frames a name without a dot"
            )
    elif path.suffix and not output.endswith("/") and not path.is_dir():
        raise UserError(
            f"{output}: a name must end in .mp4 or .gif, or in / for a folder of PNG frames"
        )
    elif path.is_file():
        raise UserError(f"{output} is a file; give the folder of PNG frames another name")
    elif path.is_dir() and any(path.iterdir()):
        raise UserError(f"{output}: the folder is not empty; name another, or empty it")
    return path


def open_writer(scratch: Path, fps: Fraction, sound: Iterable[Samples] | None) -> Writer:
    """A writer of the kind that the name tells, as in `check_output`.

    sound: its parts in order, each (1 or 2, n) at `SOUND_RATE`, or None; only an mp4 can hold it.
    """
    kind = scratch.suffix.lower()
    if kind == ".mp4":
        return Mp4(scratch, fps, sound)
    return Gif(scratch, fps) if kind == ".gif" else Pngs(scratch)


class Mp4:
    """H.264 pictures at a constant rate and AAC sound, which is asked for as it is needed."""

    def __init__(self, path: Path, fps: Fraction, sound: Iterable[Samples] | None) -> None:
        self._fps, self._count = fps, 0
        self._parts, self._heard = iter(sound or ()), 0
        self._track: SoundTrack | None = None
        options = {"fflags": "+bitexact", "movflags": "+faststart", "max_interleave_delta": "0"}
        self._file = av.open(str(path), "w", format="mp4", options=options)
        coding = {"preset": "veryfast", "crf": "16", "threads": "1"}
        self._pictures = self._file.add_stream("libx264", rate=fps, options=coding)
        self._pictures.pix_fmt = "yuv420p"
        context = self._pictures.codec_context
        context.time_base = 1 / fps
        context.flags |= Flags.bitexact
        # As players take untagged pictures of this size to be; said all the same.
        context.colorspace, context.color_range = 6, 1

    def write(self, frames: Frames) -> None:
        """Append frames; sides must be even."""
        if not self._count:
            self._pictures.height, self._pictures.width = frames.shape[1:3]
        self._hear(ceil((self._count + len(frames)) / self._fps * SOUND_RATE))
        for picture in frames:
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(
                format="yuv420p", dst_colorspace="ITU601", dst_color_range="MPEG"
            )
            frame.pts, frame.time_base = self._count, 1 / self._fps
            self._file.mux(self._pictures.encode(frame))
            self._count += 1

    def close(self) -> None:
        """Write what the encoder still holds, and the index."""
        if self._count:
            self._hear(None)
            if self._track:
                self._track.close()
            self._file.mux(self._pictures.encode(None))
        self._file.close()

    def _hear(self, until: int | None) -> None:
        """Add sound up to a sample at least; None: all of it."""
        while until is None or self._heard < until:
            if (part := next(self._parts, None)) is None:
                return
            if self._track is None:
                bits = _SOUND_BITS * len(part)
                self._track = SoundTrack(self._file, len(part), SOUND_RATE, bits)
            self._track.add(part)
            self._heard += part.shape[1]


class Gif:
    """A GIF that repeats. Its clock ticks in hundredths: frames last 3 or 4 of them at 30 fps."""

    def __init__(self, path: Path, fps: Fraction) -> None:
        self._path, self._fps = path, fps
        self._frames: list[Image.Image] = []

    def write(self, frames: Frames) -> None:
        """Keep frames, each with 256 colours of its own."""
        self._frames += [Image.fromarray(picture).quantize(256) for picture in frames]

    def close(self) -> None:
        """Write them all."""
        if not self._frames:
            return
        shown = self._frames[:: ceil(self._fps / FASTEST_GIF)]
        seconds = len(self._frames) / self._fps
        ends = [round(100 * seconds * (n + 1) / len(shown)) for n in range(len(shown))]
        lengths = [10 * (end - start) for start, end in zip([0, *ends], ends, strict=False)]
        first, *others = shown
        first.save(
            self._path,
            save_all=True,
            append_images=others,
            duration=lengths,
            loop=0,
            optimize=False,
        )


class Pngs:
    """A folder of pictures, numbered from 000000.png."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        folder.mkdir()

    def write(self, frames: Frames) -> None:
        """Write each as it comes."""
        for picture in frames:
            path = self._folder / f"{self._count:06d}.png"
            Image.fromarray(picture).save(path, compress_level=4)
            self._count += 1

    def close(self) -> None:
        """All is written already."""
