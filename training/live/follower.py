"""Follow one face from frame to frame, as each comes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipelines.detectors.base import cut
from training.faces import Finder, Picture, Points, choose, face_box, found_again

ROOM = 2.5
"""Side of what the tracker sees, in sides of the face's box."""
DRIFT = 0.2
"""Share of that side by which a face may leave its middle before the tracker's view follows."""


class Follower:
    """The landmarks of one face, frame by frame, in pixels of the whole picture.

    Nobody else is followed when it leaves: it is found again where it was, by the rule for clips.
    """

    def __init__(
        self,
        finder: Finder,
        which: int | None = None,
        name: str = "driver",
        patience: float | None = None,
    ) -> None:
        """which: of several faces in the first picture that has any, from the left.

        patience: seconds without it after which a face that is alone counts as the one that
        left: who sits down before a camera again sits elsewhere. None: never.
        """
        self._finder, self._which, self._name = finder, which, Path(name)
        self._patience = patience
        self.missed = 0.0
        """Seconds since the face was last seen."""
        self._seen: float | None = None
        self._track = _tracker(finder)
        self._last: Points | None = None
        self._view: npt.NDArray[np.int64] | None = None

    def __call__(self, picture: Picture, at: float) -> Points:
        """(68, 2) at a time in seconds, NaN where the face is not seen.

        Raises UserError for several at first.
        """
        self._seen = at if self._seen is None else self._seen
        self.missed = at - self._seen
        points = self._same(self._in_view(picture))
        if points is None:
            points = self._anew(picture)
        if points is None:
            self._view = None
            return np.full((68, 2), np.nan, np.float32)
        self._last, self._seen, self.missed = points, at, 0.0
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
        if self._last is None and faces:
            return choose(faces, self._which, self._name, "--driver-face")
        gave_up = self._patience is not None and self.missed >= self._patience
        return faces[0] if gave_up and len(faces) == 1 else self._same(*faces)

    def _same(self, *faces: Points | None) -> Points | None:
        """The one of them that was seen last, or None where it is none of them."""
        seen = [face for face in faces if face is not None]
        return None if self._last is None else found_again(seen, face_box(self._last))

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

    from pipelines.detectors.mediapipe import IBUG, without_chatter

    with without_chatter():
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
