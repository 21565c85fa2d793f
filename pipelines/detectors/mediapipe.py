"""68 landmarks from MediaPipe FaceMesh, on the CPU; its models come inside the wheel.

FaceMesh (Kartynnik et al. 2019, arXiv 1907.06724) fits a mesh of 468 points, of which the
table `IBUG` picks 68. The graph follows the face from frame to frame, so the face detector
runs only on a clip's first frame and after a loss. It is restarted for every clip: the
result is bit for bit the same whatever was processed before.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mediapipe as mp
import numpy as np
import numpy.typing as npt
from mediapipe.framework import calculator_pb2
from mediapipe.framework.formats.landmark_pb2 import NormalizedLandmarkList
from mediapipe.python._framework_bindings import _packet_getter, resource_util

from pipelines.detectors.base import (
    POINTS,
    Landmarks,
    check_device,
    cut,
    share_inside,
)

# Mesh vertices of the iBUG points. Left and right are the subject's; the picture's left side
# shows the subject's right. Where the mesh has several vertices on a contour, those nearest to
# even spacing along it were taken, as annotators of iBUG place them.
IBUG = (
    # 0-16 contour of the face, right ear to left ear; 8 is the chin
    *(127, 234, 132, 58, 172, 136, 149, 176, 152, 400, 378, 365, 397, 288, 361, 454, 356),
    *(70, 63, 105, 66, 107),  # 17-21 right brow, outer end first
    *(336, 296, 334, 293, 300),  # 22-26 left brow, inner end first
    *(168, 197, 5, 4),  # 27-30 bridge of the nose down to its tip
    *(98, 97, 2, 326, 327),  # 31-35 base of the nose
    *(33, 160, 158, 133, 153, 144),  # 36-41 right eye from its outer corner, over the top
    *(362, 385, 387, 263, 373, 380),  # 42-47 left eye from its inner corner, over the top
    *(61, 40, 37, 0, 267, 270, 291),  # 48-54 upper edge of the lips, right corner to left
    *(321, 405, 17, 181, 91),  # 55-59 lower edge, back to the right corner
    *(78, 81, 13, 311, 308),  # 60-64 opening of the mouth, upper edge
    *(402, 14, 178),  # 65-67 and back along the lower edge
)

_GRAPH = "mediapipe/modules/face_landmark/face_landmark_front_cpu.binarypb"
_MESHES = "multi_face_landmarks"
_SCORE = "facelandmarkcpu__face_presence_score"
_PRESENT = 0.5  # FaceMesh drops a mesh whose score is not above this
_OVERLAP = 0.5  # a mesh with fewer of its points in the annotated box is looked at again
_FACES = 4

# What glog, absl and TFLite print while a graph is built; nothing here is about the user's data.
_CHATTER = re.compile(
    rb"[IW]\d{4} [\d:. ]+\d+ [\w./-]+\.(cc|h):\d+\]"
    rb"|INFO: Created TensorFlow Lite"
    rb"|WARNING: All log messages before absl::InitializeLog"
)
_STDERR = threading.Lock()


class MediaPipe:
    """FaceMesh as a `Detector`.

    The confidence is FaceMesh's face presence score: how sure the mesh network is that its
    input shows a face at all, after a sigmoid. It is close to 1 for nearly every face, says
    little about the accuracy of the points, and is above 0.5 or the face does not count.
    """

    name = "mediapipe"

    def __init__(self, device: str = "cpu", batch_size: int = 1) -> None:
        """Load the models (0.1 s). batch_size is ignored: a video graph takes frame by frame.

        Raises UserError for a device other than `cpu`.
        """
        check_device(self.name, device)
        self._tracker = _Graph(faces=1, track=True)
        self._searcher: _Graph | None = None

    def __call__(
        self, frames: npt.NDArray[np.uint8], face_boxes: npt.NDArray[np.float32] | None
    ) -> Landmarks:
        """Find the landmarks of one clip; see `Detector`."""
        n = len(frames)
        points = np.full((n, POINTS, 2), np.nan, np.float32)
        confidence = np.zeros(n, np.float32)
        boxes = None if face_boxes is None else np.broadcast_to(face_boxes, (n, 4))
        self._tracker.restart()
        for i, frame in enumerate(frames):
            box = None if boxes is None else boxes[i]
            found = self._tracker.process(frame)
            if not found or (box is not None and share_inside(found[0][0], box) < _OVERLAP):
                found += self._search(frame, box)
            if found:
                points[i], confidence[i] = _choose(found, box)
        return Landmarks(points, confidence)

    def _search(self, frame: npt.NDArray[np.uint8], box: npt.NDArray[np.float32] | None) -> _Faces:
        """Look for several faces at once, with room around them.

        The short-range detector misses faces that fill the picture or touch its edge, and it
        names the most certain face, not the annotated one.
        """
        if self._searcher is None:
            self._searcher = _Graph(faces=_FACES, track=False)
        height, width = frame.shape[:2]
        if box is None:
            box = np.array([0, 0, width, height], np.float32)
            side = 1.5 * max(width, height)
        else:
            side = 2 * max(box[2], box[3])
        left, top = np.trunc(box[:2] + box[2:] / 2 - side / 2).astype(int)
        whole = max(int(side), 1)
        crop = cut(frame, left, top, left + whole, top + whole)
        offset = np.array([left, top], np.float32)
        return [(points + offset, score) for points, score in self._searcher.process(crop)]


_Faces = list[tuple[npt.NDArray[np.float32], float]]


def _choose(
    faces: _Faces, box: npt.NDArray[np.float32] | None
) -> tuple[npt.NDArray[np.float32], float]:
    """The face with most points in the annotated box; without one the largest."""
    if box is not None:
        return max(faces, key=lambda face: float(share_inside(face[0], box)))
    return max(faces, key=lambda face: float(np.prod(np.ptp(face[0], axis=0))))


class _Graph:
    """A running FaceMesh graph.

    `mediapipe.solutions.FaceMesh` hides the presence score, and its thread pool of one thread
    a core costs a fifth more CPU than the single thread a chain of steps needs.
    """

    def __init__(self, faces: int, track: bool) -> None:
        package = Path(mp.__file__).parent.parent
        resource_util.set_resource_dir(str(package))
        config = calculator_pb2.CalculatorGraphConfig()
        config.ParseFromString(
            mp.CalculatorGraph(binary_graph_path=str(package / _GRAPH)).binary_config
        )
        del config.executor[:]
        config.num_threads = 1
        self._graph = mp.CalculatorGraph(graph_config=config)
        self._packets: dict[str, list[Any]] = {_MESHES: [], _SCORE: []}
        for stream in self._packets:
            self._graph.observe_output_stream(
                stream, lambda name, packet: self._packets[name].append(packet)
            )
        self._side_packets = {
            "num_faces": mp.packet_creator.create_int(faces),
            "use_prev_landmarks": mp.packet_creator.create_bool(track),
            "with_attention": mp.packet_creator.create_bool(False),
        }
        self._time = 0
        self._start()

    def _start(self) -> None:
        with without_chatter():
            self._graph.start_run(self._side_packets)
            self._graph.wait_until_idle()  # the models are opened on the graph's own thread

    def restart(self) -> None:
        """Forget the face that was followed (6 ms)."""
        self._graph.close()
        self._time = 0
        self._start()

    def process(self, frame: npt.NDArray[np.uint8]) -> _Faces:
        """The faces of one (height, width, 3) RGB picture: (68, 2) pixels and presence score."""
        for packets in self._packets.values():
            packets.clear()
        image = mp.packet_creator.create_image_frame(
            np.ascontiguousarray(frame), image_format=mp.ImageFormat.SRGB
        )
        self._graph.add_packet_to_input_stream("image", image.at(self._time))
        self._time += 1
        self._graph.wait_until_idle()
        if not self._packets[_MESHES]:
            return []
        # `mp.packet_getter.get_proto_list` warns of deprecated protobuf calls on every frame.
        meshes = _packet_getter._get_serialized_proto_list(self._packets[_MESHES][0])
        # A score for every candidate, a mesh for those that passed.
        scores = [mp.packet_getter.get_float(packet) for packet in self._packets[_SCORE]]
        passed = [score for score in scores if score > _PRESENT]
        size = np.array([frame.shape[1], frame.shape[0]], np.float32)
        faces: _Faces = []
        for mesh, score in zip(meshes, passed, strict=True):
            vertices = NormalizedLandmarkList.FromString(mesh).landmark
            picked = [(vertices[i].x, vertices[i].y) for i in IBUG]
            faces.append((np.array(picked, np.float32) * size, score))
        return faces


@contextmanager
def without_chatter() -> Iterator[None]:
    """Hold back MediaPipe's own log lines on file descriptor 2; everything else passes."""
    with _STDERR, tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        real = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)
            held.seek(0)
            for line in held:
                if not _CHATTER.match(line):
                    os.write(2, line)
