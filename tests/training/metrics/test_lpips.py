"""LPIPS, against torchmetrics'."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from made_up import noisy, pictures

from training.metrics import lpips
from training.perceptual import BackboneUnavailable, Weights


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
