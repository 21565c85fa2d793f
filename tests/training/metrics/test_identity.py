"""Identity: the crop of a face, and real people told apart."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from made_up import face

from training.metrics import identity, motion
from training.metrics.alignment import similarity
from training.perceptual import BackboneUnavailable, Weights


def test_a_face_is_aligned_to_the_template():
    points = face()
    points[36:42], points[42:48] = (90, 100), (150, 100)
    points[30], points[48], points[54] = (120, 135), (95, 165), (145, 165)
    picture = np.zeros((256, 256, 3), np.uint8)
    for x, y in identity.five_points(points).astype(int):
        picture[y - 4 : y + 5, x - 4 : x + 5] = 255
    out = identity.align(picture, points)
    assert out.shape == (112, 112, 3)
    forth = similarity(identity.five_points(points), identity.TEMPLATE)  # as ArcFace fits it
    for x, y in identity.five_points(points):
        u, v = forth[:, :2] @ (x, y) + forth[:, 2]
        assert out[round(v), round(u)].min() == 255
    # The centre of the left eye's square, to half a pixel, from its brightness.
    ys, xs = np.mgrid[:112, :112]
    u, v = forth[:, :2] @ (90, 100) + forth[:, 2]
    near = out[..., 0] * ((abs(xs - u) < 8) & (abs(ys - v) < 8))
    assert (near * xs).sum() / near.sum() == pytest.approx(u, abs=0.2)
    assert (near * ys).sum() / near.sum() == pytest.approx(v, abs=0.2)


def test_a_turned_face_is_no_larger_than_arcface_would_have_it():
    points = face()
    points[36:42], points[42:48] = (100, 100), (125, 100)  # seen from the side
    points[30], points[48], points[54] = (122, 130), (100, 160), (122, 160)
    five = identity.five_points(points)
    picture = np.zeros((256, 256, 3), np.uint8)
    for x, y in five.astype(int):
        picture[y - 3 : y + 4, x - 3 : x + 4] = 255
    scale = np.hypot(*similarity(five, identity.TEMPLATE)[:, 0])
    assert scale < 0.9 / np.hypot(*similarity(identity.TEMPLATE, five)[:, 0]), "fits differ"
    ys, _ = np.nonzero(identity.align(picture, points)[..., 0] > 128)
    assert np.ptp(ys) == pytest.approx(scale * (60 + 6), abs=1.5)


def test_mobilefacenet_knows_people(corpus):
    """Portraits of one person against those of others: crops of the corpus' genuine clips."""
    av = pytest.importorskip("av")
    detectors = pytest.importorskip("pipelines.detectors")
    pytest.importorskip("mediapipe")
    weights = corpus / "weights" / "identity_mobilefacenet.onnx"
    net = identity.Identity("mobilefacenet", Weights(str(weights)), threads=1)
    assert net.metric == "CSIM-mobilefacenet"
    detector = detectors.load("mediapipe")
    embeddings, people = [], []
    for person in sorted((corpus / "voxceleb2_mp4").rglob("id*")):
        clips = sorted(person.rglob("*.mp4"))[:40:5]
        for clip in clips if person.is_dir() else []:
            with av.open(str(clip)) as file:
                frame = next(iter(file.decode(video=0))).to_ndarray(format="rgb24")
            points = detector(frame[None], None).points
            if motion.found(points).all():
                embeddings.append(net.embed(frame[None], points)[0])
                people.append(person.name)
    vectors = np.stack(embeddings)
    cosine = vectors @ vectors.T
    same = np.equal.outer(people, people)
    off = ~np.eye(len(people), dtype=bool)
    assert len(set(people)) == 2 and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert cosine[same & off].mean() > cosine[~same].mean() + 0.25


def test_other_weights_than_arcface_make_no_csim(corpus, tmp_path):
    weights = corpus / "weights" / "identity_mobilefacenet.onnx"
    sha = hashlib.sha256(weights.read_bytes()).hexdigest()
    other = identity.Identity("arcface", Weights(str(weights), sha), threads=1)
    assert other.metric == "CSIM-arcface"
    with pytest.raises(BackboneUnavailable, match="has sha256"):
        identity.Identity("arcface", Weights(str(weights), identity.ARCFACE_SHA256))
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    with pytest.raises(BackboneUnavailable, match=r"no such network .* an ONNX file is read"):
        identity.Identity("arcface", Weights(str(broken)))
