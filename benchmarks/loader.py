"""Frames per CPU second: episodes by random access, bare JPEG decoding, webdataset, litdata.

    python -m benchmarks.loader [--data data] [--split train] [--seconds 0.2] [--rounds 30]

All read the same tars, in one process, warm in the page cache. They take turns of `--seconds`,
each going on where it was: so what else the machine does is shared by all, and what a picture
costs, too, once the rounds are enough for every frame. The table has the frames of all turns by
their CPU time, and the share of bare decoding by the same decoder (episodes: by the one that
they use). *Raw* is compressed bytes handed over; *decoded* are pictures (and landmarks as
numbers); *episodes* are what training gets: K + 1 pictures and landmark pictures as arrays. *Cold*
is what reading a frame costs that the page cache does not hold; while another process has the tars
mapped they stay there. Without arguments: what `make demo` built. litdata, where it is installed,
reads a copy of the same frames and landmarks in its own format and shuffled order.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset as wds
from PIL import Image
from rich.console import Console
from rich.progress import track

from training import episodes as episodes_module
from training.episodes import Episodes, parse_points
from training.stream import EpisodeStream

BARE = ": nothing but decoding"
COLD = 300
"""Frames: few enough that hardly two lie in what the kernel reads around one."""
Work = Callable[[], Iterator[int]]
"""Endless work that yields how many frames it has just finished."""


def pillow(jpeg: bytes) -> Any:
    """A picture by Pillow."""
    return np.asarray(Image.open(io.BytesIO(jpeg), formats=["JPEG"]))


def decoders() -> dict[str, Callable[[bytes], Any]]:
    """Those that are installed, by name."""
    found: dict[str, Callable[[bytes], Any]] = {"Pillow": pillow}
    if find_spec("cv2"):
        import cv2

        cv2.setNumThreads(1)

        def by_cv2(jpeg: bytes) -> Any:
            return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)

        found["cv2"] = by_cv2
    return found


def batched(items: list[int], size: int) -> Iterator[list[int]]:
    """Portions in order, the last one smaller."""
    return (items[at : at + size] for at in range(0, len(items), size))


def bare(jpegs: list[bytes], decode: Callable[[bytes], Any]) -> Work:
    """Bytes in memory to pictures: no loader that decodes alone can be faster."""

    def work() -> Iterator[int]:
        while True:
            for at in np.random.default_rng(0).permutation(len(jpegs)).tolist():
                decode(jpegs[at])
                yield 1

    return work


def by_index(episodes: Episodes, decode: Callable[[bytes], Any] | None) -> Work:
    """Frames in random order over all tars, with their landmarks; as many at once as training."""

    def work() -> Iterator[int]:
        while True:
            order = np.random.default_rng(0).permutation(len(episodes.index.numbers)).tolist()
            for some in batched(order, episodes.k + 1):
                read = [(episodes.jpeg(frame), episodes.points(frame)) for frame in some]
                if decode:
                    for jpeg, _ in read:
                        decode(jpeg)
                yield len(read)

    return work


def whole_episodes(episodes: Episodes) -> Work:
    """Episodes in turn."""

    def work() -> Iterator[int]:
        for epoch in count():
            for video in range(len(episodes)):
                _ = episodes[epoch, video]
                yield episodes.k + 1

    return work


def streamed_episodes(stream: EpisodeStream) -> Work:
    """Episodes as they come."""
    return lambda: (stream.k + 1 for _ in stream)


def sequential(urls: list[str], decode: Callable[[bytes], Any] | None) -> Work:
    """A plain webdataset reader, clip after clip."""

    def work() -> Iterator[int]:
        while True:
            for sample in wds.WebDataset(urls, shardshuffle=False):
                jpegs = [data for name, data in sample.items() if name.endswith(".jpg")]
                if decode:
                    npy = sample["landmarks.npy"]
                    parse_points(npy, len(npy) // (68 * 2 * 4), lambda: "landmarks")
                    for jpeg in jpegs:
                        decode(jpeg)
                yield len(jpegs)

    return work


def litdata_copy(episodes: Episodes, folder: str) -> Any:
    """The same frames and landmarks as a litdata dataset."""
    from litdata import StreamingDataset
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(folder, chunk_bytes="64MB")
    for frame in range(len(episodes.index.numbers)):
        writer[frame] = {"jpeg": episodes.jpeg(frame), "points": episodes.points(frame).copy()}
    writer.done()
    writer.merge()
    return StreamingDataset(folder, shuffle=True)


def by_litdata(dataset: Any, decode: Callable[[bytes], Any] | None) -> Work:
    """Frames as litdata likes to give them, shuffled, with their landmarks."""

    def work() -> Iterator[int]:
        while True:
            for sample in dataset:
                if decode:
                    decode(sample["jpeg"])
                yield 1

    return work


def cold(make: Callable[[], Episodes], folder: Path, advised: bool) -> tuple[float, float]:
    """Wall us and KiB of disk a frame, of up to `COLD` frames that no page cache holds.

    advised: as `Episodes` reads; else without its advice to the kernel.
    """
    episodes = make()
    for name in episodes.index.shards:
        with (folder / f"{name}.tar").open("rb") as tar:
            os.posix_fadvise(tar.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    order = np.random.default_rng(0).permutation(len(episodes.index.numbers))[:COLD].tolist()
    before, advice = disk_bytes(), episodes_module.RANDOM
    episodes_module.RANDOM = advice if advised else None
    begin = time.perf_counter()
    try:
        for frame in order:
            episodes.jpeg(frame)
    finally:
        episodes_module.RANDOM = advice
    spent = time.perf_counter() - begin
    return 1e6 * spent / len(order), (disk_bytes() - before) / 1024 / len(order)


def disk_bytes() -> int:
    """That this process has had read from disks (Linux)."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("read_bytes")).split()[1])


def turn(running: Iterator[int], seconds: float) -> tuple[int, float]:
    """Frames and the CPU seconds that they took, after a tenth of that to warm up."""
    warm = time.process_time() + seconds / 10
    while time.process_time() < warm:
        next(running)
    begin, frames = time.process_time(), 0
    while (spent := time.process_time() - begin) < seconds:
        frames += next(running)
    return frames, spent


def main() -> int:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"), help="index.parquet, shards/")
    parser.add_argument("--split", default="train")
    parser.add_argument("--frames", type=int, default=8, help="K")
    parser.add_argument("--seconds", type=float, default=0.2, help="CPU time of a turn")
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    torch.set_num_threads(1)

    index, shards = args.data / "index.parquet", args.data / "shards"
    if not index.is_file():
        parser.error(f"--data {args.data}: no index.parquet there; `make demo` builds one in data")
    try:
        episodes = Episodes(index, shards, args.split, args.frames, few_frames="drop")
        stream = EpisodeStream(index, shards, args.split, args.frames, few_frames="drop")
    except ValueError as error:
        parser.error(f"--data {args.data}: {error}")
    jpegs = [episodes.jpeg(frame) for frame in range(len(episodes.index.numbers))]
    urls = [str(shards / args.split / f"{name}.tar") for name in episodes.index.shards]

    stack = contextlib.ExitStack()
    works: dict[str, Work] = {
        "raw: offset index, mmap (`Episodes`)": by_index(episodes, None),
        "raw: sequential webdataset": sequential(urls, None),
    }
    for name, decode in decoders().items():
        works[f"decoded, {name}{BARE}"] = bare(jpegs, decode)
        works[f"decoded, {name}: offset index, mmap (`Episodes`)"] = by_index(episodes, decode)
        works[f"decoded, {name}: sequential webdataset"] = sequential(urls, decode)
    if find_spec("litdata"):
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        dataset = litdata_copy(episodes, folder)
        works["raw: litdata"] = by_litdata(dataset, None)
        for name, decode in decoders().items():
            works[f"decoded, {name}: litdata"] = by_litdata(dataset, decode)
    works["episodes: random access (`Episodes`)"] = whole_episodes(episodes)
    works["episodes: stream (`EpisodeStream`)"] = streamed_episodes(stream)

    running = {name: work() for name, work in works.items()}
    totals = dict.fromkeys(works, (0, 0.0))
    for _ in track(range(args.rounds), "rounds", console=Console(stderr=True)):
        for name, readers in running.items():
            frames, spent = turn(readers, args.seconds)
            totals[name] = totals[name][0] + frames, totals[name][1] + spent
    rates = {name: frames / spent for name, (frames, spent) in totals.items()}
    stack.close()
    print(
        f"{len(urls)} tars, {len(episodes)} videos, {len(jpegs)} frames of "
        f"{sum(map(len, jpegs)) / len(jpegs) / 1024:.1f} KiB; K = {args.frames}, "
        f"{args.rounds} rounds of {args.seconds} CPU s\n"
    )
    print("| what | frames per CPU second | of bare decoding |\n|---|---|---|")
    for name, rate in rates.items():
        kind = name.partition(":")[0]
        kind = f"decoded, {list(decoders())[-1]}" if kind == "episodes" else kind
        share = f"{rate / rates[kind + BARE]:.0%}" if kind + BARE in rates else ""
        print(f"| {name} | {rate:,.0f} | {share} |")
    if episodes_module.RANDOM is not None and sys.platform == "linux":

        def make() -> Episodes:
            return Episodes(index, shards, args.split, args.frames, few_frames="drop")

        del episodes, running, works  # a page that is mapped stays in the cache
        for words, advised in (("as `Episodes` reads", True), ("without its advice", False)):
            spent, kib = cold(make, shards / args.split, advised)
            print(f"\ncold, {words}: {spent:,.0f} us and {kib:,.0f} KiB of disk a frame")
    return 0


if __name__ == "__main__":
    sys.exit(main())
