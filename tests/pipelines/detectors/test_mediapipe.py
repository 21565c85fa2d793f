"""FaceMesh on photographs that come with scikit-image and matplotlib."""

import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("mediapipe")
cv2 = pytest.importorskip("cv2")

from pipelines import detectors  # noqa: E402
from pipelines.detectors.base import share_inside  # noqa: E402
from pipelines.errors import UserError  # noqa: E402


@pytest.fixture(scope="module")
def detector():
    return detectors.load("mediapipe")


@pytest.fixture(scope="module")
def astronaut():
    data = pytest.importorskip("skimage.data", reason="scikit-image has the photograph")
    return data.astronaut()


@pytest.fixture(scope="module")
def hopper():
    cbook = pytest.importorskip("matplotlib.cbook", reason="matplotlib has the photograph")
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        coded = np.frombuffer(file.read(), np.uint8)
    return np.ascontiguousarray(cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1])


def drift(picture, frames=6):
    """A clip of 256x256: the picture moves by a few pixels."""
    moves = [np.array([[1.2, 0, -150 + 3 * k], [0, 1.2, 2 * k]], np.float32) for k in range(frames)]
    return np.stack([cv2.warpAffine(picture, move, (256, 256)) for move in moves])


def same(a, b):
    return a.points.tobytes() == b.points.tobytes() and (
        a.confidence.tobytes() == b.confidence.tobytes()
    )


def assert_anatomy(points):
    """The 68 points stand where iBUG has them, on an upright frontal face."""
    x, y = points.T
    jaw = points[:17]
    assert (np.diff(jaw[2:15, 0]) > 0).all()  # the subject's right is the picture's left
    assert x[0] < x[17] < x[26] < x[16]
    assert jaw[:, 1].argmax() == 8
    assert (np.diff(x[17:27]) > 0).all()
    assert y[17:27].max() < y[36:48].min()  # brows above eyes
    assert (np.diff(y[27:31]) > 0).all()
    assert (np.diff(x[31:36]) > 0).all()
    for eye in (points[36:42], points[42:48]):
        assert eye[:, 0].argmin() == 0
        assert eye[:, 0].argmax() == 3
        assert eye[1:3, 1].max() < eye[4:6, 1].min()  # upper lid first
    assert x[39] < x[27] < x[42]
    for first, last, after in ((48, 54, 60), (60, 64, 68)):  # lips: along the top, back below
        assert (np.diff(x[first : last + 1]) > 0).all()
        assert (np.diff(x[last:after]) < 0).all()
        assert y[first + 1 : last].mean() < y[last + 1 : after].mean()
    assert y[33] < y[51] < y[57] < y[8]
    assert y[51] <= y[62] <= y[66] <= y[57]


def test_points_follow_the_ibug_order(detector, astronaut, hopper):
    for picture in (astronaut, hopper):
        found = detector(picture[None], None)
        assert found.points.shape == (1, 68, 2)
        assert found.points.dtype == found.confidence.dtype == np.float32
        assert 0.5 < found.confidence[0] <= 1
        assert_anatomy(found.points[0])


def test_points_lie_on_the_face(detector, astronaut):
    points = detector(astronaut[None], None).points[0]
    # Read off the 512x512 photograph through a grid, before any landmark was drawn on it.
    places = {
        **{8: (222, 178), 30: (223, 126), 33: (223, 133)},
        **{36: (193, 101), 39: (211, 103), 42: (236, 105), 45: (259, 104)},
        **{17: (190, 90), 21: (213, 93), 22: (238, 94), 26: (262, 96)},
        **{48: (202, 140), 54: (247, 139)},
    }
    away = {index: np.linalg.norm(points[index] - place) for index, place in places.items()}
    assert max(away.values()) < 7, away


def test_no_face_is_nan_with_zero_confidence(detector):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (2, 256, 256, 3), np.uint8)
    for boxes in (None, np.array([[60, 60, 120, 120]], np.float32)):
        found = detector(frames, boxes)
        assert np.isnan(found.points).all()
        assert (found.confidence == 0).all()


def test_a_clip_is_the_same_whatever_came_before(detector, astronaut, hopper):
    clip, other = drift(astronaut), drift(hopper)
    first = detector(clip, None)
    assert np.isfinite(first.points).all()
    other_first = detector(other, None)
    detector(np.zeros_like(clip), None)
    assert same(detector(clip, None), first)
    assert same(detector(other, None), other_first)
    assert same(detectors.load("mediapipe")(clip, None), first)


def test_the_annotated_face_is_chosen_of_several(detector, astronaut, hopper):
    left, right = astronaut[20:240, 120:340], hopper[60:340, 120:400]
    pair = np.zeros((256, 512, 3), np.uint8)
    pair[:, :256] = cv2.resize(left, (256, 256))
    pair[:, 256:] = cv2.resize(right, (256, 256))
    for box in ([40, 30, 170, 190], [300, 30, 170, 190]):
        boxes = np.array([box], np.float32)
        found = detector(np.stack([pair, pair]), boxes)
        assert (share_inside(found.points, boxes) > 0.8).all(), box


def test_a_face_that_fills_the_picture_is_found_with_a_border(detector, astronaut):
    points = detector(astronaut[None], None).points[0]
    (x0, y0), (x1, y1) = points.min(axis=0).astype(int), points.max(axis=0).astype(int)
    tight = np.ascontiguousarray(astronaut[y0:y1, x0:x1])[None]
    found = detector(tight, None)
    assert np.abs(found.points[0] + [x0, y0] - points).max() < 0.1 * (x1 - x0)


def test_a_face_the_annotation_does_not_mean_is_still_reported(detector, astronaut):
    boxes = np.array([[0, 300, 100, 100]], np.float32)
    found = detector(astronaut[None], boxes)
    assert share_inside(found.points, boxes)[0] < 0.5


def test_other_devices_are_refused():
    for device in ("cuda", "banana"):
        with pytest.raises(UserError, match=r"landmarks\.device: mediapipe runs on the CPU only"):
            detectors.load("mediapipe", device=device)


def test_only_the_chatter_of_mediapipe_is_kept_from_stderr():
    code = """
import os
from pipelines.detectors import mediapipe
with mediapipe.without_chatter():
    os.write(2, b"W0000 00:00:1700000000.1   77 inference_feedback_manager.cc:114] Feedback\\n")
    os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\\n")
    os.write(2, b"WARNING: the user's own words\\n")
import numpy as np
detector = mediapipe.MediaPipe()
detector(np.zeros((2, 64, 64, 3), np.uint8), None)
os.write(2, b"after\\n")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["WARNING: the user's own words", "after"]


def test_the_corpus_faces_are_found(detector, corpus):
    """The crops of two people as published, a face in nearly every frame."""
    av = pytest.importorskip("av")
    seen = total = 0
    for path in sorted((corpus / "voxceleb2_mp4").glob("**/*.mp4"))[:4]:
        with av.open(os.fspath(path)) as container:
            decoded = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)][:25]
        seen += int((detector(np.stack(decoded), None).confidence > 0).sum())
        total += len(decoded)
    assert seen >= 0.97 * total
