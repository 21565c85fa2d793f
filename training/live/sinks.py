"""Where frames go: a window, a camera for other programs, a file."""

from __future__ import annotations

import os
import sys
from fractions import Fraction
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from pipelines.errors import UserError
from training.faces import Picture
from training.layouts import Writer


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
        self._first = 0.0

    def show(self, frame: Picture, at: float) -> bool:
        """Write as often as its time has come."""
        if not self.count:  # however long nobody was seen
            self._first = at
        due = round((at - self._first) * self._fps) + 1 - self.count
        for _ in range(due):
            self._writer.write(frame[None])
        self.count += max(due, 0)
        return True

    def close(self) -> None:
        """Its writer is closed by whoever opened it."""
