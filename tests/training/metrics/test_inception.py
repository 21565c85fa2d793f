"""The network of the FID, against torchvision's."""

from __future__ import annotations

import hashlib

import pytest
import torch
import torch.nn.functional as F
from made_up import pictures

from training.metrics import inception
from training.perceptual import BackboneUnavailable, Weights


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
