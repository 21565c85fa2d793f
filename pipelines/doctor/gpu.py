"""Is there a GPU wherever params ask for one? Torch is loaded only then."""

from __future__ import annotations

import importlib.util

from pipelines.doctor.verdict import Verdicts, fail, ok
from pipelines.params import Params

REMEDY = "a CUDA build of torch and its driver, or "


def gpu(params: Params) -> Verdicts:
    """A line for every key that asks for a GPU; workers of a cluster are asked by Ray's check."""
    asking = {}
    if params.landmarks.device.startswith("cuda"):
        asking["landmarks.device"] = "landmarks.device: cpu"
    if params.ray.gpus_per_worker and params.ray.address in (None, "local"):
        asking["ray.gpus_per_worker"] = "ray.gpus_per_worker: 0"
    if params.evaluate.device.startswith("cuda"):
        asking["evaluate.device"] = "evaluate.device: cpu"
    if not asking:
        yield ok("gpu", "none asked for")
        return
    why, names = _seen()
    for key, instead in asking.items():
        if why:
            yield fail("gpu", f"{key} wants one, but {why}", f"{REMEDY}{instead}")
        else:
            yield ok("gpu", f"{key}: {names}")


def _seen() -> tuple[str, str]:
    """What speaks against a GPU, or what there is."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed", ""
    import torch

    if not torch.cuda.is_available():
        return f"torch {torch.__version__} sees none", ""
    count = torch.cuda.device_count()
    return "", ", ".join(torch.cuda.get_device_name(n) for n in range(count))
