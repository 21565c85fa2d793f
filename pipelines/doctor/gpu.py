"""Are the GPUs there that params ask for? Torch is loaded only then."""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.detectors import check_device
from pipelines.doctor.verdict import Verdicts, fail, ok
from pipelines.errors import UserError
from pipelines.params import Params

_DEVICE = re.compile(r"cpu|cuda(?::(\d+))?")


@dataclass(frozen=True)
class Wish:
    """A key that asks for GPUs of this machine."""

    words: str
    count: int
    instead: str
    """What the key may say without them."""


def gpu(params: Params) -> Verdicts:
    """A line for every key that asks for a GPU; workers of a cluster are asked by Ray's check."""
    refused = list(_refused(params))
    wishes = list(_wishes(params))
    yield from refused
    if not wishes:
        if not refused:
            yield ok("gpu", "none asked for")
        return
    why, names = _seen()
    for wish in wishes:
        if why:
            remedy = f"{wish.instead}, or a CUDA build of torch and its driver"
            yield fail("gpu", f"{wish.words} wants a GPU, but {why}", remedy)
        elif wish.count > len(names):
            words = f"{wish.words} wants {wish.count} GPUs, torch sees {len(names)}"
            yield fail("gpu", words, f"{wish.instead}, or no more than there are")
        else:
            yield ok("gpu", f"{wish.words}: {', '.join(names)}")


def _refused(params: Params) -> Verdicts:
    """Devices that their stage can have on no machine."""
    try:
        check_device(params.landmarks.backend, params.landmarks.device)
    except UserError as error:
        yield fail("gpu", str(error), "the stage stops there")
    if not _DEVICE.fullmatch(device := params.evaluate.device):
        words = f"evaluate.device: {device!r} is none of cpu, cuda and cuda:N"
        yield fail("gpu", words, "evaluate.device: cpu")


def _wishes(params: Params) -> Iterator[Wish]:
    if params.landmarks.backend != "mediapipe":  # which has no use for one
        yield from _device("landmarks.device", params.landmarks.device)
    own = params.ray
    if own.gpus_per_worker and own.address in (None, "local"):
        count = math.ceil(own.workers * own.gpus_per_worker)
        yield Wish("ray.gpus_per_worker", count, "ray.gpus_per_worker: 0")
    yield from _device("evaluate.device", params.evaluate.device)


def _device(key: str, device: str) -> Iterator[Wish]:
    if device != "cpu" and (named := _DEVICE.fullmatch(device)):
        yield Wish(f"{key} {device}", int(named[1] or 0) + 1, f"{key}: cpu")


def _seen() -> tuple[str, list[str]]:
    """What speaks against a GPU, or what there is."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed", []
    import torch

    if not torch.cuda.is_available():
        return f"torch {torch.__version__} sees none", []
    count = torch.cuda.device_count()
    return "", [torch.cuda.get_device_name(n) for n in range(count)]
