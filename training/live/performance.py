"""Live: portraits that move as a camera, or a video taken frame by frame, sees its driver move.

The first second with a face gives the driver's rest (`training.retarget`); from then on each frame
is found, generated and shown before the next one is taken. A camera's frames that came meanwhile
are passed over: what is shown is always the newest. The label stays on; a file is signed as ever.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipelines import progress
from pipelines.detectors.base import cut
from pipelines.errors import UserError
from pipelines.params import Params
from pipelines.video import boxes as geometry
from training.faces import MARGIN, STORED, Points, face_box, resized
from training.layouts import Frames
from training.live.drivers import Camera, Driver, Recording, Shot
from training.live.follower import Follower
from training.live.sinks import File, Sink, VirtualCamera, Window
from training.one_euro import OneEuro
from training.retarget import Retargeter
from training.scene import Job, check_destination, prepare, published

REFERENCE = 1.0
"""Seconds with a face that tell how the driver looks at rest."""
LOST = 2.0
"""Seconds without the face after which it is told, and a camera takes a face that is alone."""
HELD = 2
"""Seconds of a recording that wait for them; what is older is passed over."""


class Seen(NamedTuple):
    """A frame of the driver and the face in it."""

    shot: Shot
    points: Points
    """(68, 2) pixels of the picture, NaN without a face."""
    detect: float
    """Seconds."""
    since_taken: float
    """Seconds from when it was taken until its landmarks were known."""


@dataclass(slots=True)
class Latency:
    """Seconds that each frame took, from being taken to being shown, and what of it went where."""

    whole: list[float] = field(default_factory=list)
    detect: list[float] = field(default_factory=list)
    generate: list[float] = field(default_factory=list)

    def words(self) -> str:
        """Medians and 95th percentiles in milliseconds."""
        parts = []
        for name, seconds in (
            ("latency", self.whole),
            ("detect", self.detect),
            ("generate", self.generate),
        ):
            median, late = (1000 * float(v) for v in np.percentile(seconds, (50, 95)))
            parts.append(f"{name} {median:.0f} ms (p95 {late:.0f})")
        return ", ".join(parts)


class Puppeteer:
    """Turns the driver's landmarks into frames of the scene, one at a time."""

    def __init__(self, job: Job, reference: Sequence[Points]) -> None:
        """reference: landmarks of the driver's first second, at least one without NaN."""
        self._scene, self._side = job.scene, job.side
        frames = np.stack(reference)
        self._movers = [
            Retargeter(subject.face.points, frames, job.motion) for subject in job.scene.subjects
        ]
        settings = job.settings
        self._calm = [
            OneEuro(settings.min_cutoff, settings.beta * STORED / job.side) for _ in self._movers
        ]
        boxes = face_box(frames[np.isfinite(frames).all(axis=(1, 2))])
        self._crop = [int(v) for v in geometry.still(boxes, MARGIN).boxes[0]]
        self._before: float | None = None

    def frame(self, shot: Shot, points: Points) -> Frames:
        """(1, height, width, 3)."""
        elapsed = 1 / 25 if self._before is None else max(shot.at - self._before, 1e-3)
        self._before = shot.at
        moved = [
            calm(move(points), elapsed)[None]
            for move, calm in zip(self._movers, self._calm, strict=True)
        ]
        crops = []
        if self._scene.layout != "plain":
            x, y, width, height = self._crop
            crops = [resized(cut(shot.picture, x, y, x + width, y + height), self._side)]
        return self._scene.frames(moved, crops)


def run(job: Job, driver: Driver, sinks: Sequence[Sink], which: int | None = None) -> Latency:
    """Perform until the driver ends, a sink has enough or the user interrupts.

    Raises UserError where no face is ever seen.
    """
    patience = None if driver.waits else LOST
    follower = Follower(job.finder, which, driver.facts["name"], patience)
    latency = Latency()
    held: deque[Seen] = deque(maxlen=round(HELD * driver.fps) if driver.waits else 1)
    rest: list[Points] = []
    rested, before, lost = 0.0, -1 / float(driver.fps), False
    puppeteer: Puppeteer | None = None
    with suppress(KeyboardInterrupt), job.scene.ready():
        for seen in _followed(driver, follower):
            held.append(seen)
            if follower.missed >= LOST and not lost and puppeteer is not None:
                progress.complain("live: the driver's face is lost; the last motion stays")
            lost = follower.missed >= LOST
            if puppeteer is None:
                if np.isfinite(seen.points).all():
                    rest.append(seen.points)
                    rested += seen.shot.at - before
                before = seen.shot.at
                if rested < REFERENCE - 1e-6:
                    continue
                puppeteer = Puppeteer(job, rest)
            if not _perform(puppeteer, held, sinks, latency):
                break
            held.clear()
        if rest and puppeteer is None:  # all of it is shorter than the reference should be
            _perform(Puppeteer(job, rest), held, sinks, latency)
    if not latency.whole:
        raise UserError(f"{driver.facts['name']}: no face seen, so nothing to show")
    return latency


def _followed(driver: Driver, follower: Follower) -> Iterator[Seen]:
    for shot in driver:
        started = time.perf_counter()
        points = follower(shot.picture, shot.at)
        detected = time.perf_counter()
        yield Seen(shot, points, detected - started, detected - shot.taken)


def _perform(
    puppeteer: Puppeteer, held: Iterable[Seen], sinks: Sequence[Sink], latency: Latency
) -> bool:
    """Generate and show; False once a sink has enough."""
    for seen in held:
        started = time.perf_counter()
        frame = puppeteer.frame(seen.shot, seen.points)[0]
        latency.generate.append(time.perf_counter() - started)
        on = [sink.show(frame, seen.shot.at) for sink in sinks]
        latency.detect.append(seen.detect)
        # That a frame of the reference waited for the others is no latency.
        latency.whole.append(seen.since_taken + time.perf_counter() - started)
        if not all(on):
            return False
    return True


def perform(params: Params, options: Namespace) -> str:
    """The command with --live; returns what to say."""
    name = options.driver or "0"
    from_camera = name.isdigit() or name.startswith("/dev/")
    if options.output:
        check_destination(params, options)
    watched = options.virtual_camera or not options.output
    with ExitStack() as stack:
        sinks: list[Sink] = []
        if not options.output and not options.virtual_camera:
            sinks.append(Window())
        driver: Driver = Camera(name) if from_camera else Recording(Path(name), paced=watched)
        if options.virtual_camera:
            sinks.append(VirtualCamera(driver.fps))
        job, _ = prepare(params, options)
        if options.output:
            writer = stack.enter_context(
                published(options.output, job, driver.facts, driver.fps, sound=None)
            )
            sinks.append(File(writer, driver.fps))
        for sink in sinks:
            stack.callback(sink.close)
        latency = run(job, driver, sinks, options.driver_face)
    wrote = f"; wrote {options.output}, signed, without sound" if options.output else ""
    return f"live: {len(latency.whole)} frames; {latency.words()}{wrote}"
