"""Animate: bring portraits to life with the motion of a driver's face.

The portrait's own frame (or a person file of `training.adapt`) tells who is seen, the driver's
landmarks, adapted to the portrait's face, how they move. What is written wears a visible label and
signed content credentials. Output: .mp4 with the driver's sound, .gif, or a folder of PNG frames
(a name that ends in / or has no dot). --live takes a camera or a video as it comes.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain, islice, repeat
from math import ceil
from pathlib import Path
from typing import get_args

import numpy as np

from pipelines import progress
from pipelines.command import EXIT_OK, NOTHING_KEPT, arguments, guarded
from pipelines.errors import UserError
from pipelines.params import load
from pipelines.video.grid import GRID
from pipelines.video.probe import MediaError
from pipelines.video.sound import Samples, read_sound
from training import marking
from training.adapt import Source, add_model_options
from training.faces import STORED
from training.footage import Film, Footage
from training.layouts import LAYOUTS, SOUND_RATE
from training.live.performance import perform
from training.retarget import Motion, retarget, smooth
from training.scene import Job, check_destination, prepare, published

PART = 60 * GRID
"""Slots of sound in memory at once."""


def animate(job: Job, footage: Footage, output: str) -> str:
    """Write what a driver makes of the portraits; returns what to say. Raises UserError."""
    scene, settings = job.scene, job.settings
    count = len(footage.points)
    for remark in footage.remarks():
        progress.complain(f"animate: {remark}")
    moved = [
        smooth(
            retarget(footage.points, subject.face.points, job.motion),
            float(footage.fps),
            settings.min_cutoff,
            settings.beta * STORED / job.side,
        )
        for subject in scene.subjects
    ]
    pictures = iter(()) if scene.layout == "plain" else footage.pictures()
    sound = sound_of(footage) if output.lower().endswith(".mp4") else None
    driver = Source.of(footage.path).facts()
    with (
        scene.ready(),
        published(output, job, driver, footage.fps, sound) as writer,
        progress.simple("animate", "frames", count) as advance,
    ):
        for at in range(0, count, settings.batch_size):
            now = slice(at, min(at + settings.batch_size, count))
            crops = list(islice(pictures, now.stop - now.start))
            writer.write(scene.frames([points[now] for points in moved], crops))
            advance(now.stop - now.start)
    return (
        f"animate: wrote {output}: {count} frame{'s' * (count > 1)} at {float(footage.fps):g} fps"
        f"{', with sound' if sound is not None else ''}; generated at "
        f"{count * len(scene.subjects) / max(scene.seconds, 1e-9):.1f} frames/s\n"
        f"animate: signed; its facts stand in {marking.sidecar_path(Path(output))}"
    )


def sound_of(footage: Footage) -> Iterator[Samples] | None:
    """The driver's sound in parts, exactly as long as its frames; None where it has none."""
    seconds = len(footage.points) / footage.fps
    parts = _sound_parts(footage.path, ceil(seconds * GRID))
    for silent, part in enumerate(parts):
        if part is not None:
            return _joined(chain(repeat(None, silent), [part], parts), len(part), seconds)
    return None


def _sound_parts(path: Path, slots: int) -> Iterator[Samples | None]:
    """The sound of each `PART` slots, and what is wrong with it."""
    for first in range(0, slots, PART):
        try:
            sound, damage = read_sound(path, first, min(PART, slots - first), SOUND_RATE, 2)
        except MediaError as error:
            sound, damage = None, error.detail
        if damage:
            where = f" from {first // GRID} s on" if slots > PART else ""
            progress.say(f"animate: {path.name}{where}: {damage}")
        yield sound


def _joined(parts: Iterable[Samples | None], channels: int, seconds: Fraction) -> Iterator[Samples]:
    left = round(seconds * SOUND_RATE)
    for part in parts:
        count = min(left, PART * SOUND_RATE // GRID)
        yield np.zeros((channels, count), np.float32) if part is None else part[:, :count]
        left -= count


def add_options(parser: ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "--portrait",
        required=True,
        nargs="+",
        metavar="PICTURE",
        help="who is to move; several make a grid",
    )
    parser.add_argument(
        "--driver", metavar="VIDEO", help="whose motion; with --live also a camera: 0, /dev/video0"
    )
    parser.add_argument("-o", "--output", metavar="OUT.mp4|OUT.gif|FOLDER/")
    parser.add_argument("--person", metavar="FILE", help="of training.adapt, for the portrait")
    parser.add_argument(
        "--motion", choices=get_args(Motion), help="default: animate.motion of the params"
    )
    parser.add_argument(
        "--layout", choices=LAYOUTS, help="default: plain, or grid for several portraits"
    )
    parser.add_argument(
        "--variant",
        choices=("ff", "ft"),
        help="without --person: take the portrait's frame as it is (ff, the default) or tune (ft)",
    )
    parser.add_argument(
        "--no-label", action="store_true", help="no visible label; the signed facts will say so"
    )
    parser.add_argument("--batch", type=int, metavar="N", help="default: animate.batch_size")
    parser.add_argument(
        "--driver-face", type=int, metavar="N", help="which face of a driver with several"
    )
    add_model_options(parser)
    parser.add_argument("--live", action="store_true", help="frame by frame, as they come")
    parser.add_argument(
        "--virtual-camera", action="store_true", help="with --live: be a camera to other programs"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m training.animate`."""
    parser = arguments(__doc__ or "")
    add_options(parser)
    options = parser.parse_args(argv)

    def command() -> int:
        params = load(options.params)
        if options.live:
            progress.say(perform(params, options))
            return EXIT_OK
        if options.virtual_camera:
            raise UserError("--virtual-camera goes with --live")
        if not options.driver or not options.output:
            raise UserError("name a driver and an output: --driver VIDEO -o OUT.mp4, or use --live")
        if options.driver.isdigit() or options.driver.startswith("/dev/video"):
            raise UserError(f"--driver {options.driver}: a camera goes with --live")
        check_destination(params, options)
        Film(Path(options.driver))  # is it a video at all? before a model is loaded
        job, footage = prepare(params, options, Path(options.driver))
        assert footage is not None
        progress.say(animate(job, footage, options.output))
        return EXIT_OK

    return guarded(command, NOTHING_KEPT)


if __name__ == "__main__":
    from training.animate import main

    sys.exit(main())
