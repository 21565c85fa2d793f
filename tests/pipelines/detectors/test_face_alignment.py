"""2D-FAN-4 through a torch hub cache seeded with random weights of the right shapes."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("face_alignment")

from face_alignment import FaceAlignment as Library  # noqa: E402
from face_alignment import LandmarksType  # noqa: E402
from face_alignment.detection.sfd.net_s3fd import s3fd  # noqa: E402
from face_alignment.models import FAN  # noqa: E402

from pipelines import detectors  # noqa: E402
from pipelines.detectors import face_alignment as backend  # noqa: E402
from pipelines.errors import UserError  # noqa: E402

FAN_FILE, SFD_FILE = "2DFAN4-11f355bf06.pth.tar", "s3fd-619a316812.pth"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    home = tmp_path_factory.mktemp("torch")
    cache = home / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(FAN(4).state_dict(), cache / FAN_FILE)
    torch.save(s3fd().state_dict(), cache / SFD_FILE)
    return home


@pytest.fixture
def seeded(hub, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(hub))
    return hub


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """An empty cache, and no way out: nobody listens on port 9."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for urls, url in ((backend.api.models_urls, backend.FAN_URL),):
        name = next(k for k, v in urls.items() if v == url)
        monkeypatch.setitem(urls, name, f"http://127.0.0.1:9/{FAN_FILE}")
    monkeypatch.setitem(backend.sfd_detector.models_urls, "s3fd", f"http://127.0.0.1:9/{SFD_FILE}")
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture(scope="module")
def clip():
    """Smooth noise: random weights answer to anything."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 255, (3, 16, 16, 3), np.uint8)
    return coarse.repeat(16, axis=1).repeat(16, axis=2)


# inside the picture, over its corner, and partly outside at the other end
BOXES = np.array([[70.3, 60.2, 110.7, 120.9], [-30.3, -20.2, 120.7, 130.9], [150, 170, 140, 120.4]])


def test_points_and_scores_are_those_of_the_library(seeded, clip):
    boxes = BOXES.astype(np.float32)
    ours = detectors.load("face_alignment", batch_size=2)(clip, boxes)
    library = Library(
        LandmarksType.TWO_D, device="cpu", flip_input=False, face_detector="folder", compile=False
    )
    for i, (x, y, w, h) in enumerate(boxes.astype(float)):
        points, scores, _ = library.get_landmarks_from_image(
            clip[i], detected_faces=[np.array([x, y, x + w, y + h])], return_landmark_score=True
        )
        assert np.abs(ours.points[i] - points[0]).max() < 1e-3
        assert ours.confidence[i] == pytest.approx(np.clip(scores[0].mean(), 0, 1), abs=1e-5)


def test_batches_give_what_single_frames_give(seeded, clip):
    detector = detectors.load("face_alignment", batch_size=3)
    boxes = BOXES.astype(np.float32)
    together = detector(clip, boxes)
    alone = [detector(clip[i : i + 1], boxes[i : i + 1]) for i in range(3)]
    assert np.abs(together.points - np.concatenate([a.points for a in alone])).max() < 1e-3
    again = detector(clip, boxes)
    assert again.points.tobytes() == together.points.tobytes()
    assert again.confidence.tobytes() == together.confidence.tobytes()
    assert detector._finder is None  # annotated boxes build no face detector


def test_one_box_serves_all_frames_and_a_bad_box_is_no_face(seeded, clip):
    detector = detectors.load("face_alignment")
    found = detector(clip[:1].repeat(2, axis=0), BOXES[:1].astype(np.float32))
    assert found.points[0].tobytes() == found.points[1].tobytes()
    nothing = detector(clip[:2], np.array([[1, 1, 0, 5], [np.nan] * 4], np.float32))
    assert np.isnan(nothing.points).all()
    assert (nothing.confidence == 0).all()


def test_decoding_moves_towards_the_higher_neighbour_but_not_at_the_rim():
    heat = torch.zeros(1, 3, 64, 64)
    heat[0, 0, 20, 10], heat[0, 0, 20, 11], heat[0, 0, 19, 10] = 1, 0.5, 0.5
    heat[0, 1, 0, 30], heat[0, 1, 0, 31] = 0.8, 0.5
    heat[0, 2, 40, 63] = 0.3
    cells, peaks = backend._decode(heat)
    assert cells[0].tolist() == [[10.75, 20.25], [30.5, 0.5], [63.5, 40.5]]
    assert peaks[0].tolist() == pytest.approx([1, 0.8, 0.3])


def test_without_boxes_the_largest_face_found_is_aligned(seeded, clip, monkeypatch):
    detector = detectors.load("face_alignment")
    detector._find(clip[:1, :64, :64])  # the real S3FD runs; random weights find what they will
    assert detector._finder is not None
    faces = [np.array([10, 10, 40, 40, 0.9]), np.array([70, 60, 181, 181, 0.6])]
    answers = iter([faces, []])
    monkeypatch.setattr(detector._finder, "detect_from_image", lambda _: next(answers))
    found = detector(clip[:2], None)
    wanted = detector(clip[:1], np.array([[70, 60, 111, 121]], np.float32))
    assert found.points[0].tobytes() == wanted.points[0].tobytes()
    assert np.isnan(found.points[1]).all()
    assert found.confidence[1] == 0


def test_missing_weights_name_file_folder_address_and_way_out(empty):
    with pytest.raises(detectors.DetectorUnavailable) as caught:
        detectors.load("face_alignment")
    message = str(caught.value)
    for part in (FAN_FILE, str(empty), backend.FAN_URL, "Offline", "TORCH_HOME", "mediapipe"):
        assert part in message
    assert "\n" not in message


def test_missing_detector_weights_are_told_when_first_needed(seeded, clip, monkeypatch, tmp_path):
    detector = detectors.load("face_alignment")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setitem(backend.sfd_detector.models_urls, "s3fd", f"http://127.0.0.1:9/{SFD_FILE}")
    with pytest.raises(detectors.DetectorUnavailable, match=SFD_FILE):
        detector(clip, None)


def test_damaged_weights_are_told_from_missing_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    (cache / FAN_FILE).write_bytes(b"half a file")
    with pytest.raises(detectors.DetectorUnavailable, match="cannot be read"):
        detectors.load("face_alignment")


def test_a_device_that_is_not_there(seeded):
    if not torch.cuda.is_available():
        with pytest.raises(detectors.DetectorUnavailable, match="sees no GPU"):
            detectors.load("face_alignment", device="cuda")
    for name in ("gpu", "CUDA", "cuda:", "banana"):
        with pytest.raises(UserError, match=r"landmarks\.device: .* none of cpu, cuda and cuda:N"):
            detectors.load("face_alignment", device=name)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_cuda_agrees_with_the_cpu(seeded, clip):
    boxes = BOXES.astype(np.float32)
    cpu = detectors.load("face_alignment")(clip, boxes)
    cuda = detectors.load("face_alignment", device="cuda")(clip, boxes)
    close = np.linalg.norm(cpu.points - cuda.points, axis=-1) < 2
    assert close.mean() > 0.9  # heat maps of random weights have near ties
    assert np.abs(cpu.confidence - cuda.confidence).max() < 0.01
