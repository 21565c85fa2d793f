"""Every measure against a reference implementation, a closed form or real faces."""

from __future__ import annotations

import hashlib
import importlib
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipelines.params.training import Evaluate
from training import perceptual
from training.metrics import distribution, identity, inception, lpips, motion
from training.metrics.alignment import aligned, similarity
from training.metrics.bootstrap import estimate, interval, resamples
from training.metrics.similarity import psnr, ssim
from training.perceptual import BackboneUnavailable, Weights


def pictures(count: int, side: int = 48, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    smooth = torch.from_numpy(rng.uniform(0, 255, (count, 3, side // 4, side // 4)))
    large = F.interpolate(smooth, (side, side), mode="bicubic").clamp(0, 255)
    return large.byte().permute(0, 2, 3, 1).contiguous().numpy()


def noisy(x: np.ndarray, much: float, seed: int = 1) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, much, x.shape)
    return (x + noise).clip(0, 255).astype(np.uint8)


# --- similarity ------------------------------------------------------------------------------


def test_ssim_and_psnr_are_those_of_scikit_image():
    reference = pytest.importorskip("skimage.metrics")
    x = pictures(3)
    y = noisy(x, 20)
    for i in range(3):
        expected = reference.structural_similarity(
            x[i], y[i], gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
            data_range=255, channel_axis=2,
        )  # fmt: skip
        assert ssim(x, y)[i] == pytest.approx(expected, abs=1e-9)
        expected = reference.peak_signal_noise_ratio(y[i], x[i], data_range=255)
        assert psnr(x, y)[i] == pytest.approx(expected, abs=1e-9)


def test_equal_pictures_are_as_alike_as_can_be():
    x = pictures(2)
    assert ssim(x, x) == pytest.approx(1)
    assert np.isinf(psnr(x, x)).all()


# --- alignment and motion --------------------------------------------------------------------


def face(seed: int = 0) -> np.ndarray:
    """68 points around an oval, eye corners 60 apart."""
    points = np.random.default_rng(seed).uniform(60, 190, (68, 2))
    points[[36, 45]] = (90, 110), (150, 110)
    return points


def moved(points: np.ndarray, angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return scale * points @ turn.T + shift


def test_a_similarity_transform_is_found_again_and_no_better_one_exists():
    points = face()
    target = moved(points, 0.4, 1.7, (12, -30))
    assert aligned(points, target) == pytest.approx(target)
    # Against noise: least squares over the four numbers of a similarity transform.
    target = target + np.random.default_rng(3).normal(0, 5, target.shape)
    rows = np.concatenate(
        [
            np.stack([points[:, 0], -points[:, 1], np.ones(68), np.zeros(68)], 1),
            np.stack([points[:, 1], points[:, 0], np.zeros(68), np.ones(68)], 1),
        ]
    )
    a, b, x, y = np.linalg.lstsq(rows, target.T.ravel(), rcond=None)[0]
    assert similarity(points, target) == pytest.approx(np.array([[a, -b, x], [b, a, y]]))
    batch = aligned(np.stack([points, points]), np.stack([target, points]))
    assert batch[1] == pytest.approx(points) and batch[0] == pytest.approx(aligned(points, target))


def test_landmark_error_is_in_percent_of_the_interocular_distance():
    reference = np.stack([face(), face(1)])
    points = reference + np.array([3, 4])  # 5 pixels, of 60
    assert motion.landmark_error(points, reference) == pytest.approx(100 * 5 / 60)
    points[1] = np.nan
    assert np.isnan(motion.landmark_error(points, reference)).tolist() == [False, True]
    assert motion.found(points).tolist() == [True, False]
    # After alignment place, size and roll are no error; expression is.
    other = moved(reference[:1], 0.3, 2, (50, 9))
    assert motion.landmark_error(other, reference[:1], align=True) == pytest.approx(0, abs=1e-9)
    other[:, 48:] += 10
    assert motion.landmark_error(other, reference[:1], align=True) > 1


def test_jitter_is_the_ratio_of_second_differences_within_a_clip():
    steps = np.arange(6.0)[:, None, None]
    driver = face()[None] + np.concatenate([steps**2, 0 * steps], -1)  # bends by 2 everywhere
    clips = np.zeros(6, int)
    assert motion.jitter(driver, driver, clips) == pytest.approx(1)
    output = face()[None] + np.concatenate([3 * steps**2, 0 * steps], -1)
    assert motion.jitter(output, driver, clips) == pytest.approx(3)
    # In a picture of twice the size everything is twice as large, and as restless as before.
    assert motion.jitter(2 * output, driver, clips) == pytest.approx(3)
    cut = output.copy()
    cut[3:] += 500
    assert motion.jitter(cut, driver, np.array([0, 0, 0, 1, 1, 1])) == pytest.approx(3)
    lost = output.copy()
    lost[2] = np.nan
    assert motion.jitter(lost, driver, clips) == pytest.approx(3)  # frames 3, 4, 5
    lost[4] = np.nan
    assert np.isnan(motion.jitter(lost, driver, clips))
    still = np.repeat(face()[None], 6, 0)
    assert np.isnan(motion.jitter(output, still, clips))


# --- intervals -------------------------------------------------------------------------------


def test_an_interval_is_that_of_plain_resampling_and_of_the_normal_law():
    values = np.random.default_rng(0).normal(10, 2, 40)
    counts = resamples(40, 4000, seed=5)
    assert (counts.sum(1) == 40).all() and (counts == resamples(40, 4000, seed=5)).all()
    found = estimate(values, counts, 0.95)
    half = 1.96 * values.std() / np.sqrt(40)
    assert found.mean == pytest.approx(values.mean()) and found.people == 40
    assert found.low == pytest.approx(values.mean() - half, abs=0.07)
    assert found.high == pytest.approx(values.mean() + half, abs=0.07)
    drawn = np.random.default_rng(5).integers(40, size=(4000, 40))
    expected = np.percentile(values[drawn].mean(1), [2.5, 97.5])
    assert (found.low, found.high) == pytest.approx(tuple(expected))


def test_people_without_a_value_are_left_out_and_one_person_has_no_interval():
    counts = resamples(3, 500, seed=0)
    found = estimate(np.array([1.0, np.nan, 3.0]), counts, 0.9)
    assert found.mean == 2 and found.people == 2 and (found.low, found.high) == (1, 3)
    alone = estimate(np.array([np.nan, 7.0, np.nan]), counts, 0.9)
    assert alone.mean == 7 and alone.people == 1 and np.isnan(alone.low)
    assert estimate(np.full(3, np.nan), counts, 0.9).people == 0
    assert np.isnan(interval(np.full(4, np.nan), 0.9)).all()


# --- distributions ---------------------------------------------------------------------------


def gaussian(n: int, d: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


@pytest.mark.parametrize(("n", "m", "d"), [(60, 50, 8), (9, 12, 30), (40, 12, 20), (2, 2, 5)])
def test_frechet_distance_is_that_of_the_matrix_square_root(n, m, d):
    linalg = pytest.importorskip("scipy.linalg")
    x, y = gaussian(n, d, 1), gaussian(m, d, 2)
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    # The root's trace from the product's eigenvalues: sqrtm itself fails where it is singular.
    root = np.sqrt(np.maximum(linalg.eigvals(a @ b).real, 0)).sum()
    if min(n, m) > d:
        assert np.trace(linalg.sqrtm(a @ b).real) == pytest.approx(root)
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(a + b) - 2 * root
    assert distribution.frechet(x, y) == pytest.approx(expected, rel=1e-5)


def test_frechet_distance_of_known_gaussians():
    x = gaussian(50, 6, 3)
    assert distribution.frechet(x, x) == pytest.approx(0, abs=1e-8)
    assert distribution.frechet(x, x + 2) == pytest.approx(4 * 6)
    centre = x.mean(0)
    stretched = centre + 3 * (x - centre)  # tr(A + 9 A - 6 A)
    assert distribution.frechet(x, stretched) == pytest.approx(4 * np.trace(np.cov(x.T)))


def test_kernel_distance_is_the_unbiased_one():
    kid = pytest.importorskip("torchmetrics.image.kid")
    x, y = gaussian(24, 10, 4), gaussian(24, 10, 5)
    parts = list(np.split(x, 6)), list(np.split(y, 6))
    found = distribution.kernel_distance(*parts, resamples(6, 200, 0), 0.95)
    expected = kid.poly_mmd(torch.from_numpy(x), torch.from_numpy(y))
    assert found.mean == pytest.approx(float(expected)) and found.people == 6
    assert found.low < found.mean < found.high


def test_a_resampled_kernel_distance_counts_no_frame_against_its_copy():
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(5, 7)) for _ in range(4)]
    y = [rng.normal(size=(6, 7)) + 0.2 for _ in range(4)]
    counts = np.array([[2.0, 0, 1, 1]])

    def mean(a, b, same):
        total = pairs = 0.0
        for p, wp in enumerate(counts[0]):
            for q, wq in enumerate(counts[0]):
                k = (a[p] @ b[q].T / 7 + 1) ** 3
                weight = wp if p == q else wp * wq * 4 / 3
                here = ~np.eye(len(k), dtype=bool) if same and p == q else np.ones(k.shape, bool)
                total, pairs = total + weight * k[here].sum(), pairs + weight * here.sum()
        return total / pairs

    expected = mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)
    low, high = distribution.kernel_distance(x, y, counts, 0.95)[1:3]
    assert low == high == pytest.approx(expected)


def test_equal_distributions_have_a_kernel_distance_around_zero():
    rng = np.random.default_rng(1)
    values = []
    for _ in range(40):
        x, y = (list(rng.normal(size=(4, 5, 6))) for _ in range(2))
        values.append(distribution.kernel_distance(x, y, resamples(4, 1, 0), 0.95).mean)
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(40)
    assert min(values) < 0


def test_features_tell_their_network():
    assert distribution.names("inception") == ("FID", "KID")
    assert distribution.names("squeezenet") == ("FD-squeezenet", "KD-squeezenet")


def test_squeezenet_features_part_noise_from_pictures(corpus):
    weights = Weights(str(corpus / "weights" / "squeezenet1_1_caffe.npz"))
    network = distribution.extractor("squeezenet", weights)
    x = pictures(4, 64)
    a, b = (distribution.features(network, y) for y in (x, noisy(x, 60)))
    assert a.shape == (4, 512)
    assert distribution.features(network, x, batch=3) == pytest.approx(a, abs=1e-4)
    assert distribution.frechet(a, b) > 10 * abs(distribution.frechet(a, a))


# --- Inception -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torchvision():
    try:  # it does not work beside every torch
        return importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"no torchvision that works beside this torch: {error}")


def test_inception_is_the_one_of_the_fid(torchvision, tmp_path, monkeypatch):
    """torchvision's, with the two differences: pools without padding, the last one by maximum."""
    torch.manual_seed(0)
    reference = torchvision.models.inception_v3(
        weights=None, num_classes=1008, aux_logits=False, init_weights=False
    ).eval()
    for module in reference.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 1.0, 1.6)
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
    path = tmp_path / "pt_inception.pth"
    torch.save(reference.state_dict(), path)
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(inception, "PUBLISHED", Weights("", sha))
    ours = inception.inception(Weights(str(path)))
    x = torch.from_numpy(pictures(2, 64)).permute(0, 3, 1, 2).float() / 127.5 - 1

    average = F.avg_pool2d

    def pool(h, *args, **kwargs):
        if h.shape[1] == 2048:
            return F.max_pool2d(h, 3, stride=1, padding=1)
        return average(h, *args, **kwargs, count_include_pad=False)

    seen = []
    reference.avgpool.register_forward_hook(lambda _, __, out: seen.append(out.flatten(1)))
    found = ours(x)
    with monkeypatch.context() as patch, torch.inference_mode():
        patch.setattr(F, "avg_pool2d", pool)
        reference(F.interpolate(x, (299, 299), mode="bilinear"))
    assert found.shape == (2, 2048) and found.std() > 1e-3
    assert torch.allclose(found, seen[0], rtol=1e-4, atol=1e-6)


def test_no_other_weights_make_an_fid(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({}, path)
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    for given in ("", sha):
        with pytest.raises(BackboneUnavailable, match="not 6726825d"):
            inception.inception(Weights(str(path), given))


# --- LPIPS -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["alex", "vgg"])
def test_lpips_is_the_published_one(name, torchvision, tmp_path, monkeypatch):
    """torchmetrics' network with its own heads, the published ones, on a random backbone."""
    reference = pytest.importorskip("torchmetrics.functional.image.lpips")
    heads = Path(reference.__file__).with_name("lpips_models") / f"{name}.pth"
    torch.manual_seed(0)
    network = reference._LPIPS(pretrained=True, pnet_rand=True, net=name).eval()
    features = torch.nn.Sequential(
        *(
            layer
            for s in range(network.net.N_slices)
            for layer in getattr(network.net, f"slice{s + 1}")
        )
    )
    path = tmp_path / "backbone.pth"
    torch.save({f"features.{k}": v for k, v in features.state_dict().items()}, path)
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    published = lpips.PUBLISHED[name]
    given = Weights(str(heads), published.heads.sha256)  # the sha256 is the official file's
    x = pictures(3, 64)
    y = noisy(x, 30)

    ours = lpips.load(name, Weights(str(path), sha), given)
    assert ours.name == f"perceptual-{name}", "another backbone"
    tensors = [torch.from_numpy(a).permute(0, 3, 1, 2).float() / 127.5 - 1 for a in (x, y)]
    expected = network(*tensors).flatten().tolist()
    assert ours.measure(x, y).tolist() == pytest.approx(expected, rel=1e-4)
    assert ours.measure(x, x).tolist() == [0, 0, 0]

    assert lpips.load(name, Weights(str(path), sha)).name == f"perceptual-{name}", "no heads"
    genuine = lpips._Published(Weights("", sha[:8]), published.heads)
    monkeypatch.setitem(lpips.PUBLISHED, name, genuine)
    assert lpips.load(name, Weights(str(path), sha), given).name == f"LPIPS-{name}"
    assert lpips.load(name, Weights(str(path)), given).name == f"perceptual-{name}", "not checked"


def test_squeezenet_is_never_lpips(corpus):
    weights = Weights(str(corpus / "weights" / "squeezenet1_1_caffe.npz"))
    distance = lpips.load("squeezenet", weights)
    x = pictures(2, 64)
    near, far = (distance.measure(x, noisy(x, much)) for much in (5, 60))
    assert distance.name == "perceptual-squeezenet" and (near > 0).all() and (near < far).all()


@pytest.mark.parametrize(
    ("content", "reason"), [(b"<html>", "no weights file"), (None, "no features.0.weight")]
)
def test_weights_that_do_not_fit_say_so(tmp_path, content, reason):
    path = tmp_path / "weights.pth"
    if content is None:
        torch.save({"features.0.weight": torch.zeros(1)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(BackboneUnavailable, match=reason):
        lpips.load("alex", Weights(str(path)))


# --- identity --------------------------------------------------------------------------------


def test_a_face_is_aligned_to_the_template():
    points = face()
    points[36:42], points[42:48] = (90, 100), (150, 100)
    points[30], points[48], points[54] = (120, 135), (95, 165), (145, 165)
    picture = np.zeros((256, 256, 3), np.uint8)
    for x, y in identity.five_points(points).astype(int):
        picture[y - 4 : y + 5, x - 4 : x + 5] = 255
    out = identity.align(picture, points)
    assert out.shape == (112, 112, 3)
    back = similarity(identity.TEMPLATE, identity.five_points(points))
    for x, y in identity.five_points(points):
        u, v = np.linalg.solve(back[:, :2], (x, y) - back[:, 2])
        assert out[round(v), round(u)].min() == 255
    # The centre of the left eye's square, to half a pixel, from its brightness.
    ys, xs = np.mgrid[:112, :112]
    u, v = np.linalg.solve(back[:, :2], (90, 100) - back[:, 2])
    near = out[..., 0] * ((abs(xs - u) < 8) & (abs(ys - v) < 8))
    assert (near * xs).sum() / near.sum() == pytest.approx(u, abs=0.2)
    assert (near * ys).sum() / near.sum() == pytest.approx(v, abs=0.2)


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
    with pytest.raises(BackboneUnavailable, match="no such network"):
        identity.Identity("arcface", Weights(str(broken)))


# --- params ----------------------------------------------------------------------------------


def test_params_and_perceptual_name_weights_alike():
    given = Evaluate.model_validate(
        {"lpips": {"alex": {"url": "a.pth", "heads": {"url": "b.pth"}}}}
    )
    alex = given.lpips["alex"]
    assert alex and set(asdict(perceptual.Weights(""))) >= set(alex.model_dump()) - {"heads"}
    with pytest.raises(ValueError, match="name a url"):
        Evaluate.model_validate({"features": {"squeezenet": None}})
