"""Where the driver's frames come from: a camera, or a video file taken frame by frame."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from pipelines import progress
from pipelines.errors import UserError
from training.adapt import Source
from training.faces import Picture
from training.footage import Film


class Shot(NamedTuple):
    """A frame of the driver."""

    picture: Picture
    at: float
    """Seconds since the first one."""
    taken: float
    """By the clock `time.perf_counter`."""


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
        for fault in self._film.faults():
            progress.complain(f"live: {self._film.path.name} {fault}")


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
        rate = self._camera.get(cv2.CAP_PROP_FPS)
        rate = rate if rate >= 1 else 25.0  # 0, -1 or NaN: it does not know
        self.fps = Fraction(min(rate, 120.0)).limit_denominator(1001)
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
