"""Speed and memory of the catalog.

    python -m benchmarks.catalog [--sizes 10000,100000] [--frames 10] [--folder DIR]

Writes a VoxCeleb2-like tree of real text files for each size (1,000,000 clips take 4 GB and a
million inodes of DIR; all is deleted), then runs in a process of its own, so that peak memory
is its own: the reader alone (the reference) and the catalog stage. Rates count wall-clock
seconds of the work, imports apart. At 10,000 clips the tree is also tried with 200 frames a
file, as published files have. `benchmarks.scale` measures the stages after it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

REALISTIC = (10_000, 200)
CLIPS_A_VIDEO, VIDEOS_A_PERSON = 7, 24  # VoxCeleb2: 1,128,246 clips, 150,480 videos, 6,112 people
STEPS = ("nothing", "reader", "catalog")


# --- the tree --------------------------------------------------------------------------------


def write_tree(root: Path, clips: int, frames: int) -> None:
    """Write `clips` annotation files below `root`/txt."""
    rows = "".join(
        f"{k:06d} \t{0.3 + k % 50 / 1000:.3f} \t0.201 \t0.155 \t0.276 \n" for k in range(frames)
    )
    header = "Offset    : \t1\nFV Conf   : \t18.3\t(1)\nASD Conf  : \t5.2\n\n"
    body = f"{header}FRAME \tX \tY \tW \tH \n{rows}"
    for first in range(0, clips, CLIPS_A_VIDEO):
        number = first // CLIPS_A_VIDEO
        person, video = f"id{number // VIDEOS_A_PERSON:05d}", f"video{number:06d}"
        folder = f"{root}/txt/{person}/{video}"
        os.makedirs(folder)  # noqa: PTH103 (a million times; Path is slower)
        data = f"Identity  : \t{person}\nReference : \t{video}\n{body}".encode()
        for k in range(first, min(first + CLIPS_A_VIDEO, clips)):
            handle = os.open(f"{folder}/{k - first:05d}.txt", os.O_WRONLY | os.O_CREAT, 0o644)
            os.write(handle, data)
            os.close(handle)


def write_params(folder: Path) -> Path:
    """Write the params file and takedowns.csv that go with the tree."""
    (folder / "takedowns.csv").write_text("kind,id,date,reason\n")
    params = {
        "name": "bench",
        "paths": {name: f"{folder}/{name}" for name in ("data", "work", "metrics", "cards")},
        "catalog": {
            "metadata": f"{folder}/metadata",
            "takedowns": f"{folder}/takedowns.csv",
            "sources": [{"name": "bench", "reader": "voxceleb2"}],
        },
        "card": {"title": "bench", "licence": "cc0-1.0", "description": "none"},
    }
    path = folder / "params.yaml"
    path.write_text(json.dumps(params))
    return path


# --- what is measured, each in its own process -----------------------------------------------


def work_of(step: str, params_file: Path) -> Callable[[], object]:
    """Import what a step needs, and return the work itself."""
    from pipelines import catalog
    from pipelines.params import load
    from pipelines.sources import READERS

    params = load(params_file)
    if step == "reader":
        root = Path(params.catalog.metadata)
        return lambda: sum(1 for _ in READERS["voxceleb2"](root))
    if step == "catalog":
        return lambda: catalog.build(params)
    return lambda: None


def run_step(step: str, params_file: Path) -> None:
    """Run one step in this process and print its cost as JSON."""
    work = work_of(step, params_file)
    started, cpu = time.monotonic(), time.process_time()
    work()
    cost = {
        "seconds": time.monotonic() - started,
        "cpu": time.process_time() - cpu,
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(cost))


def child(step: str, params_file: Path) -> str:
    """Run a step in a fresh process; its output."""
    command = [sys.executable, "-m", "benchmarks.catalog", "--step", step, str(params_file)]
    root = Path(__file__).resolve().parents[1]
    return subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True).stdout


# --- the table -------------------------------------------------------------------------------


def measure(folder: Path, clips: int, frames: int) -> None:
    """Print the table rows of one size."""
    started = time.monotonic()
    write_tree(folder / "metadata", clips, frames)
    params = write_params(folder)
    written = time.monotonic() - started
    print(f"# {clips} files of {frames} frames written in {written:.0f} s", file=sys.stderr)
    for step in STEPS:
        cost = json.loads(child(step, params))
        rate = f"{clips / cost['seconds']:,.0f}" if step != "nothing" else ""
        each = f"{1e6 * cost['cpu'] / clips:.0f}" if step != "nothing" else ""
        print(
            f"| {clips:,} x {frames} | {step} | {rate} | {cost['cpu']:.1f} | {each} "
            f"| {cost['mib']:.0f} |",
            flush=True,
        )


def sizes(text: str) -> list[int]:
    """`1000,20000` as numbers; of a ValueError argparse makes one line."""
    found = [int(size) for size in text.split(",")]
    if min(found) < 1:
        raise ValueError
    return found


def main() -> None:
    """Measure every size asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes", type=sizes, default="10000,100000", help="clips, joined by commas"
    )
    parser.add_argument("--frames", type=int, default=10, help="rows a file")
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where the trees go")
    parser.add_argument("--step", nargs=2, metavar=("STEP", "PARAMS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        run_step(options.step[0], Path(options.step[1]))
        return
    measured = [(clips, options.frames) for clips in options.sizes]
    print("| clips x frames | step | clips/s | CPU s | CPU us a clip | peak MiB |")
    print("|---|---|---:|---:|---:|---:|")
    for clips, frames in [REALISTIC, *measured]:
        folder = Path(tempfile.mkdtemp(prefix="likeness-bench-", dir=options.folder))
        try:
            measure(folder, clips, frames)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
