"""Small real videos and pictures for the tests of marking."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from PIL import Image

FACTS = {
    "kind": "video",
    "model": {
        "sha256": "a1" * 32,
        "facts": {
            "kind": "model",
            "name": "sample",
            "setting_name": "tiny",
            "step": 200,
            "dataset": {"name": "sample", "index_sha256": "d5" * 32, "split": "train"},
            "parents": [{"kind": "index", "sha256": "d5" * 32, "path": "index.parquet"}],
        },
    },
    "portraits": [{"name": "mona_lisa.jpg", "sha256": "b2" * 32}],
    "driver": {"name": "clip.mp4", "sha256": "c3" * 32},
    # The library's reader would turn such a list into base64 if it were not kept as text.
    "sizes": [1, 2, 3],
    "title": "Ré\u202e\x1b[31mal",
}


def pictures(n: int = 12, side: int = 64) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
    return np.stack([np.roll(noise, 3 * at, axis=0) for at in range(n)])


def write_mp4(path: Path, frames: np.ndarray | None = None) -> Path:
    frames = pictures() if frames is None else frames
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", 25, options={"preset": "ultrafast"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def encode_again(path: Path, into: Path) -> Path:
    """What an upload site does: other bytes, the same pictures."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return write_mp4(into, np.stack(frames))


def remux(path: Path, into: Path) -> Path:
    """`ffmpeg -c copy`: the same packets in another container."""
    with av.open(str(path)) as source, av.open(str(into), "w", format="mp4") as sink:
        stream = sink.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                sink.mux(packet)
    return into


def write_media(path: Path) -> Path:
    """By its name: mp4, gif, png or jpg."""
    if path.suffix == ".mp4":
        return write_mp4(path)
    images = [Image.fromarray(one) for one in pictures()]
    if path.suffix == ".gif":
        images[0].save(path, save_all=True, append_images=images[1:], duration=40)
    else:
        images[0].save(path)
    return path


def flip(path: Path, at: int) -> None:
    """Change one bit of the byte at that place; counted from the end where negative."""
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)
