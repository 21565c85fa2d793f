from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from training import perceptual
from training.metrics.weights import fill
from training.perceptual import BackboneUnavailable, Weights


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VGG19 of random weights, saved with torchvision's names and more than is needed."""
    state = {
        f"features.{k}": v for k, v in perceptual.random_backbone().layers.state_dict().items()
    }
    path = tmp_path_factory.mktemp("weights") / "vgg19.pth"
    torch.save(state | {"classifier.0.weight": torch.zeros(2, 2)}, path)
    return path


@pytest.fixture
def site(vgg_file: Path) -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(self.path)
            if self.path == "/breaks-off.pth":
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.write(b"400\r\nthe beginning")
                self.close_connection = True
            else:
                super().do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(vgg_file.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("plan", "relus", "convs"),
    [("vgg19", (1, 6, 11, 20, 29), 13), ("vggface", (1, 6, 11, 18, 25), 11)],
)
def test_taps_are_the_first_relu_of_five_stages(
    plan: str, relus: tuple[int, ...], convs: int
) -> None:
    backbone = perceptual.random_backbone(plan)
    assert backbone.taps == relus
    assert all(isinstance(backbone.layers[i], nn.ReLU) for i in relus)
    assert len(backbone.layers) == relus[-1] + 1  # truncated: nothing is computed for nothing
    assert sum(isinstance(m, nn.Conv2d) for m in backbone.layers) == convs
    features = backbone(torch.zeros(1, 3, 32, 32))
    assert [f.shape[1:] for f in features] == [
        (64, 32, 32),
        (128, 16, 16),
        (256, 8, 8),
        (512, 4, 4),
        (512, 2, 2),
    ]


def test_backbones_are_frozen() -> None:
    backbone = perceptual.random_backbone()
    backbone.train()
    assert not backbone.training
    assert not any(p.requires_grad for p in backbone.parameters())
    x = torch.zeros(1, 3, 32, 32, requires_grad=True)
    sum(f.sum() for f in backbone(x)).backward()
    assert x.grad is not None
    assert all(p.grad is None for p in backbone.parameters())


def test_input_is_bgr_0_to_255_minus_the_mean() -> None:
    backbone = perceptual.random_backbone("vggface")
    seen = []
    backbone.layers[0].register_forward_pre_hook(lambda m, i: seen.append(i[0]))
    rgb = torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1)
    backbone(rgb.expand(1, 3, 16, 16))
    expected = torch.tensor([255 - 93.5940, 127.5 - 104.7624, 0 - 129.1863])
    torch.testing.assert_close(seen[0][0, :, 0, 0], expected)


def test_average_pool_is_an_option() -> None:
    for average, kind in ((False, nn.MaxPool2d), (True, nn.AvgPool2d)):
        backbone = perceptual.load("random", average_pool=average)
        pools = [m for m in backbone.layers if isinstance(m, nn.MaxPool2d | nn.AvgPool2d)]
        assert len(pools) == 4
        assert all(isinstance(m, kind) for m in pools)


def test_random_depends_on_the_seed_alone() -> None:
    a = perceptual.load("random", seed=3)
    torch.manual_seed(99)
    b = perceptual.load("random", seed=3)
    other = perceptual.load("random", seed=4)
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(a(x)[-1], b(x)[-1])
    assert not torch.equal(a(x)[-1], other(x)[-1])


def test_making_a_random_backbone_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    perceptual.load("random")
    assert torch.equal(torch.rand(1), expected)


def test_pixels_compares_pictures() -> None:
    x = torch.rand(1, 3, 4, 4)
    assert perceptual.load("pixels")(x)[0] is x


def test_load_from_a_file(vgg_file: Path) -> None:
    x = torch.rand(1, 3, 32, 32)
    expected = perceptual.random_backbone()(x)
    for sha in (sha256(vgg_file), sha256(vgg_file)[:8], ""):
        loaded = perceptual.load("vgg19", Weights(str(vgg_file), sha))
        assert all(torch.equal(a, b) for a, b in zip(loaded(x), expected, strict=True))
        assert not any(p.requires_grad for p in loaded.parameters())


FORMATS: dict[str, Callable[[dict[str, torch.Tensor], Path], object]] = {
    ".pth": torch.save,
    ".pt": lambda state, path: torch.save({"state_dict": state, "epoch": 3}, path),
    ".pth.tar": lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
    ".safetensors": save_file,
    ".npz": lambda state, path: np.savez(path, **{k: v.numpy() for k, v in state.items()}),
}


@pytest.mark.parametrize("suffix", FORMATS)
def test_formats_of_weights_for_the_content_loss_and_for_metrics(
    vgg_file: Path, tmp_path: Path, suffix: str
) -> None:
    backbone = tmp_path / f"vgg19{suffix}"
    FORMATS[suffix](torch.load(vgg_file), backbone)
    metric = tmp_path / f"metric{suffix}"
    linear = torch.nn.Linear(2, 3)
    FORMATS[suffix]({k: v.clone() for k, v in linear.state_dict().items()}, metric)
    x = torch.rand(1, 3, 16, 16)
    loaded = perceptual.load("vgg19", Weights(str(backbone)))
    assert torch.equal(loaded(x)[-1], perceptual.random_backbone()(x)[-1])
    filled = torch.nn.Linear(2, 3)
    fill(filled, "metric", Weights(str(metric)))
    assert torch.equal(filled.weight, linear.weight)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: torch.save(nn.Linear(2, 3), path),  # the network itself, not its state
        lambda path: path.write_bytes(b"\x0a\x08VGG_FACE\x12"),  # as a .caffemodel begins
    ],
)
def test_other_formats_are_told_in_one_line(tmp_path: Path, write: Callable[[Path], None]) -> None:
    path = tmp_path / "weights.pth"
    write(path)
    for read in (
        lambda: perceptual.load("vgg19", Weights(str(path))),
        lambda: fill(nn.Linear(2, 3), "metric", Weights(str(path))),
    ):
        with pytest.raises(BackboneUnavailable, match="it must be a state dict") as caught:
            read()
        words = str(caught.value)
        assert "\n" not in words and "trust" not in words, "torch advises to run what is in it"


def test_load_caffe_names_npz_and_rgb(tmp_path: Path) -> None:
    backbone = perceptual.random_backbone("vggface")
    state, stage, number = {}, 1, 0
    for layer in backbone.layers:
        if isinstance(layer, nn.Conv2d):
            number += 1
            state[f"conv{stage}_{number}.weight"] = layer.weight.numpy().copy()
            state[f"conv{stage}_{number}.bias"] = layer.bias.numpy().copy()
        elif isinstance(layer, nn.MaxPool2d):
            stage, number = stage + 1, 0
    state["conv1_1.weight"] = state["conv1_1.weight"][:, ::-1].copy()  # made for RGB
    path = tmp_path / "vggface.npz"
    np.savez(path, **state)
    loaded = perceptual.load("vggface", Weights(str(path), sha256(path), rgb=True))
    x = torch.rand(1, 3, 32, 32)
    assert all(torch.equal(a, b) for a, b in zip(loaded(x), backbone(x), strict=True))


def test_a_url_is_fetched_once_checked_and_cached(
    vgg_file: Path, site: tuple[str, list[str]], tmp_path: Path
) -> None:
    url, asked = site
    weights = Weights(f"{url}/vgg19.pth", sha256(vgg_file))
    for _ in range(2):
        perceptual.load("vgg19", weights, cache=tmp_path)
    assert asked == ["/vgg19.pth"]
    (cached,) = tmp_path.iterdir()
    cached.write_bytes(cached.read_bytes()[:-1])
    with pytest.raises(BackboneUnavailable, match="get the file anew"):
        perceptual.load("vgg19", weights, cache=tmp_path)


def test_a_cached_file_is_read_by_the_suffix_of_its_url_s_path(
    vgg_file: Path, site: tuple[str, list[str]], tmp_path: Path
) -> None:
    url, _ = site
    file = vgg_file.with_name("vgg19.npz")
    np.savez(file, **torch.load(vgg_file))
    weights = Weights(f"{url}/vgg19.npz?download=true", sha256(file))
    perceptual.load("vgg19", weights, cache=tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]


def test_weights_that_cannot_be_had_say_so_in_one_line(
    vgg_file: Path, site: tuple[str, list[str]], tmp_path: Path
) -> None:
    url, _ = site
    page = tmp_path / "page.pth"
    page.write_text("<html>moved</html>")
    fewer = tmp_path / "fewer.pth"
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, fewer)
    odd = tmp_path / "odd.pth"
    torch.save([1, 2], odd)
    narrow = tmp_path / "narrow.pth"
    torch.save({"conv1_1.weight": torch.zeros(64, 1, 3, 3)}, narrow)
    sparse = tmp_path / "sparse.pth"
    first = {"features.0.weight": torch.zeros(64, 3, 3, 3), "features.0.bias": torch.zeros(64)}
    torch.save(first, sparse)
    cache = tmp_path / "cache"
    wrong = "0" * 64
    for name, weights, words in (
        ("vgg20", None, "there are vgg19"),
        ("vggface", None, "choose random or pixels as backbone, which needs none"),
        ("squeezenet", None, "no weights named"),
        ("vgg19", Weights(str(tmp_path / "none.pth")), "no weights at"),
        ("vgg19", Weights(str(vgg_file), wrong), "not 0000"),
        ("vgg19", Weights(str(vgg_file), "xyz"), "hex digits"),
        ("vgg19", Weights(f"{url}/vgg19.pth"), "needs a sha256"),
        ("vgg19", Weights(f"{url}/vgg19.pth", wrong), f"{url}/vgg19.pth has sha256 .* not 0000"),
        ("vgg19", Weights(f"{url}/breaks-off.pth", wrong), r"fetched \(IncompleteRead"),
        ("vgg19", Weights(f"{url}/a b.pth", wrong), "cannot be fetched .*control characters"),
        ("vgg19", Weights("http://host:port/a.pth", wrong), "cannot be fetched .*nonnumeric port"),
        ("vgg19", Weights("http://[::1/a.pth", wrong), "is no URL"),
        ("vgg19", Weights("s3://bucket/a.pth", wrong), "unknown url type: s3"),
        (
            "vgg19",
            Weights("http://me:hunter2@127.0.0.1:9/a.pth?sig=5ec2e7", wrong),
            r"vgg19: http://127\.0\.0\.1:9/a\.pth cannot be fetched \(\w+\);",
        ),
        ("vgg19", Weights(f"{url}/missing.pth", wrong), "404"),
        ("vgg19", Weights("http://127.0.0.1:9/vgg19.pth", wrong), "cannot be fetched"),
        ("vgg19", Weights(str(page)), r"no weights file \(.*\.pth, \.pt\), a \.safetensors or"),
        ("vgg19", Weights(str(fewer)), "no features.0.bias or conv1_1.bias"),
        ("vgg19", Weights(str(odd)), "no features.0.weight or conv1_1.weight"),
        ("vgg19", Weights(str(narrow)), r"conv1_1.weight is \(64, 1, 3, 3\), not \(64, 3, 3, 3\)"),
        ("squeezenet", Weights(str(sparse)), "no features.3.squeeze.weight$"),
        ("vggface", Weights(str(vgg_file)), "does not fit"),
    ):
        with pytest.raises(BackboneUnavailable, match=words) as caught:
            perceptual.load(name, weights, cache=cache)
        assert "\n" not in str(caught.value)
    assert not cache.exists() or not any(cache.iterdir())


def test_the_cache_folder_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIKENESS_CACHE", str(tmp_path))
    assert perceptual.default_cache() == tmp_path / "likeness" / "weights"


def test_squeezenet_of_the_corpus(corpus: Path) -> None:
    path = corpus / "weights" / "squeezenet1_1_caffe.npz"
    if not path.is_file():
        pytest.skip("no squeezenet in the corpus")
    backbone = perceptual.load("squeezenet", Weights(str(path), sha256(path)))
    assert not any(p.requires_grad for p in backbone.parameters())
    features = backbone(torch.zeros(1, 3, 128, 128))
    assert [f.shape[1:] for f in features] == [
        (64, 63, 63),
        (128, 31, 31),
        (256, 15, 15),
        (384, 7, 7),
        (512, 7, 7),
    ]


def test_squeezenet_sorts_photographs(corpus: Path) -> None:
    """The whole chain, names, channel order, mean, pools, by the classes it was trained for."""
    path = corpus / "weights" / "squeezenet1_1_caffe.npz"
    if not path.is_file():
        pytest.skip("no squeezenet in the corpus")
    data = pytest.importorskip("skimage.data")
    backbone = perceptual.load("squeezenet", Weights(str(path)))
    with np.load(path) as arrays:
        weight = torch.from_numpy(arrays["classifier.1.weight"]).float()
        bias = torch.from_numpy(arrays["classifier.1.bias"]).float()
    for picture, label in ((data.chelsea(), 285), (data.coffee(), 967)):
        x = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1
        side = min(x.shape[2:])
        top, left = (x.shape[2] - side) // 2, (x.shape[3] - side) // 2
        x = x[:, :, top : top + side, left : left + side]
        x = F.interpolate(x, (227, 227), mode="bilinear", antialias=True)
        scores = F.relu(F.conv2d(backbone(x)[-1], weight, bias, padding=1)).mean((2, 3))
        assert scores.argmax() == label
