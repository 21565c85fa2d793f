"""Choosing a backend, and what is said when it is not there."""

import subprocess
import sys

import numpy as np
import pytest

from pipelines import detectors
from pipelines.detectors.base import cut, share_inside


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_the_package_loads_no_backend():
    heavy = "[m for m in ('torch', 'mediapipe', 'cv2', 'face_alignment') if m in sys.modules]"
    assert run(f"import sys, pipelines.detectors; print({heavy})") == "[]"


def test_mediapipe_needs_no_torch():
    pytest.importorskip("mediapipe")
    code = "import sys; from pipelines import detectors; detectors.load('mediapipe')"
    assert run(f"{code}; print('torch' in sys.modules)") == "False"


@pytest.mark.parametrize(
    ("backend", "library", "extra"),
    [
        ("mediapipe", "mediapipe", "mediapipe"),
        ("face_alignment", "face_alignment", "face-alignment"),
    ],
)
def test_a_missing_library_names_its_extra(monkeypatch, backend, library, extra):
    monkeypatch.delitem(sys.modules, f"pipelines.detectors.{backend}", raising=False)
    monkeypatch.setitem(sys.modules, library, None)  # importing it now raises ImportError
    with pytest.raises(detectors.DetectorUnavailable) as caught:
        detectors.load(backend)
    assert f"pip install 'likeness[{extra}]'" in str(caught.value)


def test_an_unknown_backend_lists_the_known():
    with pytest.raises(ValueError, match="mediapipe, face_alignment"):
        detectors.load("dlib")


@pytest.mark.parametrize("backend", ["mediapipe", "face_alignment"])
def test_a_wrong_device_is_a_mistake_in_the_settings(make_params, params_file, capsys, backend):
    from pipelines import landmarks

    params = make_params(landmarks={"backend": backend, "device": "banana"})
    assert landmarks.main(["--params", params_file(params)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("likeness: landmarks.device: ") and "'banana'" in line
    for device in ("cpu", "cuda", "cuda:1"):
        detectors.check_device("face_alignment", device)


def test_share_inside_widens_the_box_and_ignores_nan():
    box = np.array([100, 100, 80, 80], np.float32)
    points = np.full((68, 2), 140, np.float32)
    points[:17] = 91, 140  # a tenth of the width outside: still in the widened box
    assert share_inside(points, box) == 1
    points[:17] = 89, 140
    assert share_inside(points, box) == pytest.approx(51 / 68)
    assert share_inside(np.full((68, 2), np.nan, np.float32), box) == 0


def test_cut_pads_with_black_on_every_side():
    frame = np.arange(1, 13, dtype=np.uint8).reshape(2, 2, 3)
    out = cut(frame, -1, -2, 3, 3)
    assert out.shape == (5, 4, 3)
    assert (out[2:4, 1:3] == frame).all()
    assert out.sum() == frame.sum()
    assert not cut(frame, 10, 10, 12, 12).any()
    assert not cut(frame, -9, -9, -5, -5).any()
