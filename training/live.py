"""Live: portraits that move as a camera, or a video taken frame by frame, sees its driver move.

The first second with a face gives the driver's rest (`training.retarget`); from then on each frame
is found, generated and shown before the next one is taken. A camera's frames that came meanwhile
are passed over: what is shown is always the newest. The label stays on; a file is signed as ever.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pipelines.detectors.base import cut
from pipelines.errors import UserError
from pipelines.params import Params
from pipelines.video import boxes as geometry
from training.adapt import Source
from training.animate import Job, prepare, published
from training.faces import (
    MARGIN,
    STORED,
    Film,
    Finder,
    Picture,
    Points,
    choose,
    face_box,
    resized,
)
from training.layouts import Frames, Writer, check_output
from training.one_euro import OneEuro
from training.retarget import Retargeter

REFERENCE = 1.0
"""Seconds with a face that tell how the driver looks at rest."""
ROOM = 2.5
"""Side of what the tracker sees, in sides of the face's box."""
DRIFT = 0.2
"""Share of that side by which a face may leave its middle before the tracker's view follows."""


class Shot(NamedTuple):
    """A frame of the driver."""

    picture: Picture
    at: float
    """Seconds since the first one."""
    taken: float
    """By the clock `time.perf_counter`."""


class Seen(NamedTuple):
    """A frame of the driver and the face in it."""

    shot: Shot
    points: Points
    """(68, 2) pixels of the picture, NaN without a face."""
    detect: float
    """Seconds."""
    since_taken: float
    """Seconds from when it was taken until its landmarks were known."""


class Driver(Protocol):
    """Where frames come from."""

    fps: Fraction
    waits: bool
    """Whether frames wait to be taken, so that none is passed over."""
    facts: dict[str, str]

    def __iter__(self) -> Iterator[Shot]: ...


class Recording:
    """A video file: every frame, no faster than its clock where somebody looks on."""

    waits = True

    def __init__(self, path: Path, paced: bool) -> None:
        self._film, self._paced = Film(path), paced
        self.fps, self.facts = self._film.fps, Source.of(path).facts()

    def __iter__(self) -> Iterator[Shot]:
        started = time.perf_counter()
        for number, picture in enumerate(self._film.crops(*self._film.view)):
            at = float(number / self.fps)
            if self._paced:
                time.sleep(max(0.0, started + at - time.perf_counter()))
            yield Shot(picture, at, time.perf_counter())


class Camera:
    """A webcam through OpenCV; a thread keeps the newest frame alone."""

    waits = False

    def __init__(self, name: str) -> None:
        """name: an index such as 0, or a device such as /dev/video0. Raises UserError."""
        import cv2

        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # we tell it shorter
        self._camera = cv2.VideoCapture(int(name) if name.isdigit() else name)
        if not self._camera.isOpened():
            raise UserError(
                f"--driver {name}: no camera opens there; name another (0, 1, /dev/video0), or a "
                "video file"
            )
        rate = self._camera.get(cv2.CAP_PROP_FPS) or 25.0
        self.fps = Fraction(min(max(rate, 1.0), 120.0)).limit_denominator(1001)
        self.facts = {"name": f"camera {name}"}
        self._newest: tuple[Any, float] | None = None
        self._changed = threading.Condition()
        self._ended = False

    def _grab(self) -> None:
        while not self._ended:
            whole, frame = self._camera.read()
            with self._changed:
                self._ended = self._ended or not whole
                self._newest = (frame, time.perf_counter()) if whole else None
                self._changed.notify()

    def __iter__(self) -> Iterator[Shot]:
        started = time.perf_counter()
        thread = threading.Thread(target=self._grab, daemon=True)
        thread.start()
        try:
            while True:
                with self._changed:
                    while self._newest is None and not self._ended:
                        self._changed.wait(timeout=1.0)
                    if self._newest is None:
                        return
                    (frame, taken), self._newest = self._newest, None
                yield Shot(np.ascontiguousarray(frame[:, :, ::-1]), taken - started, taken)
        finally:
            self._ended = True
            thread.join(timeout=2)
            self._camera.release()


class Follower:
    """The landmarks of one face, frame by frame, in pixels of the whole picture."""

    def __init__(self, finder: Finder, which: int | None = None, name: str = "driver") -> None:
        """which: of several faces in the first picture that has any, from the left."""
        self._finder, self._which, self._name = finder, which, Path(name)
        self._track = _tracker(finder)
        self._last: Points | None = None
        self._view: npt.NDArray[np.int64] | None = None

    def __call__(self, picture: Picture) -> Points:
        """(68, 2), NaN where the face is not seen. Raises UserError for several at first."""
        points = self._in_view(picture)
        if points is None:
            points = self._anew(picture)
        if points is None:
            self._view = None
            return np.full((68, 2), np.nan, np.float32)
        self._last = points
        box = face_box(points)
        middle, side = box[:2] + box[2:] / 2, ROOM * box[2]
        if self._view is None or self._strayed(middle, side):
            self._view = np.array([*(middle - side / 2), side], np.float64).astype(np.int64)
        return points

    def _in_view(self, picture: Picture) -> Points | None:
        if self._view is None:
            return None
        x, y, side = (int(v) for v in self._view)
        corner = np.array([x, y], np.float32)
        last = None if self._last is None else self._last - corner
        points = self._track(cut(picture, x, y, x + side, y + side), last)
        return None if points is None else points + corner

    def _anew(self, picture: Picture) -> Points | None:
        faces = self._finder.all(picture)
        if not faces:
            return None
        if self._last is None:
            return choose(faces, self._which, self._name, "--driver-face")
        last = self._last.mean(0)
        return min(faces, key=lambda face: float(np.linalg.norm(face.mean(0) - last)))

    def _strayed(self, middle: npt.NDArray[np.float64], side: float) -> bool:
        assert self._view is not None
        now = self._view[:2] + self._view[2] / 2
        grown = side / self._view[2]
        return bool(np.abs(middle - now).max() > DRIFT * self._view[2] or not 0.7 < grown < 1.4)


Track = Callable[[Picture, Points | None], Points | None]


def _tracker(finder: Finder) -> Track:
    """FaceMesh kept running from frame to frame: a detector of clips would start anew for each."""
    if finder.backend != "mediapipe":
        return lambda picture, last: None if last is None else finder.near(picture, face_box(last))
    from mediapipe import solutions

    from pipelines.detectors.mediapipe import IBUG, _without_chatter

    with _without_chatter():
        mesh = solutions.face_mesh.FaceMesh(max_num_faces=1)
        mesh.process(np.zeros((64, 64, 3), np.uint8))  # models are opened with the first picture

    def track(picture: Picture, last: Points | None) -> Points | None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # protobuf's, about calls of MediaPipe's own
            found = mesh.process(picture).multi_face_landmarks
        if not found:
            return None
        vertices = found[0].landmark
        picked = np.array([(vertices[i].x, vertices[i].y) for i in IBUG], np.float32)
        return picked * np.array([picture.shape[1], picture.shape[0]], np.float32)

    return track


# --- where frames go -------------------------------------------------------------------------


class Sink(Protocol):
    """Shows frames; False from `show` ends the performance."""

    def show(self, frame: Picture, at: float) -> bool: ...

    def close(self) -> None: ...


class Window:
    """An OpenCV window, in which q or Escape ends."""

    TITLE = "Likeness (q ends)"

    def __init__(self) -> None:
        if sys.platform == "linux" and not (
            os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        ):
            raise UserError(
                "--live: there is no display here; write a file with -o OUT.mp4, or use "
                "--virtual-camera"
            )
        import cv2

        self._cv2 = cv2
        cv2.namedWindow(self.TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)

    def show(self, frame: Picture, at: float) -> bool:
        """Draw at once."""
        self._cv2.imshow(self.TITLE, frame[:, :, ::-1])
        return self._cv2.waitKey(1) & 0xFF not in (ord("q"), 27)

    def close(self) -> None:
        """Take the window away."""
        self._cv2.destroyAllWindows()


class VirtualCamera:
    """A camera for other programs: v4l2loopback on Linux, OBS's on macOS and Windows."""

    def __init__(self, fps: Fraction) -> None:
        try:
            self._library: Any = import_module("pyvirtualcam")
        except ImportError:
            raise UserError(
                "--virtual-camera needs pyvirtualcam: pip install pyvirtualcam (and on Linux the "
                "kernel module v4l2loopback, on macOS and Windows OBS)"
            ) from None
        self._fps = float(fps)
        self._camera: Any = None

    def show(self, frame: Picture, at: float) -> bool:
        """Hand over; the camera opens with the first frame, whose size it has."""
        if self._camera is None:
            try:
                self._camera = self._library.Camera(frame.shape[1], frame.shape[0], self._fps)
            except RuntimeError as error:
                reason = str(error).splitlines()[0]
                raise UserError(f"--virtual-camera: none can be opened ({reason})") from None
        self._camera.send(np.ascontiguousarray(frame))
        return True

    def close(self) -> None:
        """Stop being a camera."""
        if self._camera is not None:
            self._camera.close()


class File:
    """A file of constant rate: frames are repeated where they came late."""

    def __init__(self, writer: Writer, fps: Fraction) -> None:
        self._writer, self._fps, self.count = writer, float(fps), 0

    def show(self, frame: Picture, at: float) -> bool:
        """Write as often as its time has come."""
        due = round(at * self._fps) + 1 - self.count
        for _ in range(due):
            self._writer.write(frame[None])
        self.count += max(due, 0)
        return True

    def close(self) -> None:
        """Its writer is closed by whoever opened it."""


# --- the performance -------------------------------------------------------------------------


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
    follower = Follower(job.finder, which, driver.facts["name"])
    latency = Latency()
    held: list[Seen] = []
    puppeteer: Puppeteer | None = None
    with suppress(KeyboardInterrupt), job.scene.ready():
        for seen in _followed(driver, follower):
            held.append(seen)
            if puppeteer is None:
                faces = [one.points for one in held if np.isfinite(one.points).all()]
                if len(faces) < REFERENCE * driver.fps:
                    continue
                puppeteer = Puppeteer(job, faces)
                held = held if driver.waits else held[-1:]
            if not _perform(puppeteer, held, sinks, latency):
                break
            held = []
        faces = [one.points for one in held if np.isfinite(one.points).all()]
        if faces and puppeteer is None:  # all of it is shorter than the reference should be
            _perform(Puppeteer(job, faces), held, sinks, latency)
    if not latency.whole:
        raise UserError(f"{driver.facts['name']}: no face seen, so nothing to show")
    return latency


def _followed(driver: Driver, follower: Follower) -> Iterator[Seen]:
    for shot in driver:
        started = time.perf_counter()
        points = follower(shot.picture)
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
        check_output(options.output)
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
