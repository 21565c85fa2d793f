"""Animation: frames a second and CPU seconds, of the whole path and of the generator alone.

    python -m benchmarks.animate --portrait PICTURE --driver VIDEO [--rounds 3]
    python -m benchmarks.animate --device cuda        # the generator alone: torch and numpy

Random weights (they cost what trained ones do) at the paper's size, 256 px, and at a 64 px size,
batch 1 and 8, in turn within one run. The whole path is what the command does for a driver's first
frames: decode, follow the face, retarget, draw, generate, label, encode, sign; starting Python and
loading the model are left out. Its parts, finding the face and the generator alone, are measured
apart in the same rounds.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch

from pipelines.errors import UserError
from training.device import keep_freed
from training.finetune import Person
from training.networks import Generator, NetworkConfig

NETWORKS = {
    "64 px": NetworkConfig(64, 64, 128, generator_levels=3),
    "256 px, the paper's": NetworkConfig(),
}
BATCHES = (1, 8)


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of some work, the wall's and those of all threads together."""

    wall: float
    cpu: float


def measured(work: Callable[[], object], device: torch.device) -> Cost:
    """Until the device has finished."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wait()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def typical(costs: list[Cost]) -> Cost:
    """The medians."""
    return Cost(median(c.wall for c in costs), median(c.cpu for c in costs))


def person_of(networks: NetworkConfig, device: torch.device) -> Person:
    """Somebody at random."""
    torch.manual_seed(0)
    generator = Generator(networks).to(device, memory_format=torch.channels_last)
    generator.eval().requires_grad_(False)
    psi = generator.projection(torch.randn(1, networks.embedding, device=device))
    return Person(generator, psi.detach(), tuned=False)


def generator_alone(
    person: Person, frames: int, batch: int, device: torch.device
) -> Callable[[], None]:
    """Rendering of as many landmark pictures, in batches, to pictures on the CPU."""
    size = person.generator.config.image_size
    drawings = torch.rand(batch, 3, size, size, device=device) * 2 - 1

    def work() -> None:
        with person.ready() as render:
            for at in range(0, frames, batch):
                render(drawings[: min(batch, frames - at)]).cpu()

    return work


def report(
    name: str, batch: int | str, what: str, cost: Cost, frames: int, whole: Cost | None = None
) -> None:
    """A row of the table."""
    share = f"{cost.cpu / whole.cpu:.0%}" if whole else ""
    print(
        f"| {name} | {batch} | {what} | {frames / cost.wall:.1f} "
        f"| {1000 * cost.cpu / frames:.1f} | {share} |",
        flush=True,
    )


# --- the whole path --------------------------------------------------------------------------


def first_frames(driver: Path, frames: int, into: Path) -> None:
    """The driver's first frames as a video of their own, with silence under them."""
    import numpy as np

    from training.footage import Film
    from training.layouts import SOUND_RATE, Mp4

    film = Film(driver)
    silence = np.zeros((1, round(frames / film.fps * SOUND_RATE)), np.float32)
    writer = Mp4(into, film.fps, [silence])
    for frame in islice(film, frames):
        picture: Any = frame.to_ndarray(format="rgb24")
        writer.write(picture[None, : frame.height & ~1, : frame.width & ~1])
    writer.close()


def whole_path(
    person: Person, portrait: Path, driver: Path, batch: int, finder: Any, folder: Path
) -> Callable[[], object]:
    """The command's work on a driver."""
    from pipelines.params.training import Animate
    from training import animate, faces, footage, marking, scene
    from training.adapt import Source

    size = person.generator.config.image_size
    subject = scene.Subject(Source.of(portrait), faces.from_picture(portrait, finder), person)
    stage = scene.Scene([subject], size, "plain", "AI-generated", person.psi.device)
    keys = marking.keys(None, None)
    job = scene.Job(stage, finder, Animate(batch_size=batch), keys, {"parents": []})
    out = str(folder / "out.mp4")
    return lambda: animate.animate(job, footage.follow(driver, finder), out)


def compare_whole(
    name: str, person: Person, args: argparse.Namespace, frames: int, device: torch.device
) -> None:
    """The whole path and its parts, by turns."""
    from training.faces import Finder
    from training.footage import follow

    os.environ.setdefault("XDG_CONFIG_HOME", tempfile.mkdtemp(prefix="likeness-"))
    finder = Finder()
    with tempfile.TemporaryDirectory() as scratch:
        driver = Path(scratch, "driver.mp4")
        first_frames(args.driver, frames, driver)
        works: dict[tuple[str, int], Callable[[], object]] = {
            ("find", 0): lambda: follow(driver, finder)
        }
        for batch in BATCHES:
            whole = whole_path(person, args.portrait, driver, batch, finder, Path(scratch))
            works["whole", batch] = whole
            works["generator", batch] = generator_alone(person, frames, batch, device)
        costs: dict[tuple[str, int], list[Cost]] = {key: [] for key in works}
        for _ in range(args.rounds):
            for key, work in works.items():
                costs[key].append(measured(work, device))
    for batch in BATCHES:
        whole_cost = typical(costs["whole", batch])
        report(name, batch, "whole path", whole_cost, frames)
        report(
            name, batch, "of it: generator", typical(costs["generator", batch]), frames, whole_cost
        )
        report(name, batch, "of it: find the face", typical(costs["find", 0]), frames, whole_cost)


def compare_generators(name: str, person: Person, rounds: int, device: torch.device) -> None:
    """The generator alone, by turns."""
    works = {batch: generator_alone(person, 256, batch, device) for batch in BATCHES}
    costs: dict[int, list[Cost]] = {batch: [] for batch in BATCHES}
    for number in range(rounds + 1):
        for batch, work in works.items():
            cost = measured(work, device)
            if number:  # the first warms up
                costs[batch].append(cost)
    for batch in BATCHES:
        report(name, batch, "generator", typical(costs[batch]), 256)


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--portrait", type=Path)
    parser.add_argument("--driver", type=Path, help="without it: the generator alone")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=48, help="of the driver; a third at 256 px")
    parser.add_argument("--threads", type=int, default=1, help="of torch, on CPU")
    args = parser.parse_args()
    if (args.portrait is None) != (args.driver is None):
        parser.error("--portrait and --driver go together")
    torch.set_num_threads(args.threads)
    for option, path in (("--portrait", args.portrait), ("--driver", args.driver)):
        if path is not None and not path.is_file():
            parser.error(f"{option} {path}: no such file")
    try:
        device = torch.device(args.device)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        parser.error(f"--device {args.device}: {str(error).splitlines()[0]}")
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    else:
        keep_freed()  # as every command does
    print(f"{device}, torch {torch.__version__}, {torch.get_num_threads()} threads, fp32")
    print("| model | batch | what | frames/s | CPU ms a frame | share of CPU |")
    print("|---|---|---|---|---|---|")
    for name, networks in NETWORKS.items():
        person = person_of(networks, device)
        if args.driver is None:
            compare_generators(name, person, args.rounds, device)
            continue
        frames = args.frames if networks.image_size < 256 else args.frames // 3
        try:
            compare_whole(name, person, args, frames, device)
        except UserError as error:  # no face in the portrait, say
            parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
