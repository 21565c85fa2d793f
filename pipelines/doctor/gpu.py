"""Is there a GPU wherever params ask for one, and what compiles for it? Torch loads only then."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path

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


def compiler(params: Params) -> Verdicts:
    """torch.compile builds its kernels on the machine that trains, with a C++ compiler."""
    setting = params.settings.get(params.setting) if params.setting else None
    if setting is None or not setting.meta.compile or params.ray.address not in (None, "local"):
        yield ok("compiler", "none needed here")
        return
    found = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
    headers = Path(sysconfig.get_path("include"), "Python.h")
    key = f"settings.{params.setting}.meta.compile"
    remedy = f"install g++ and Python's headers (python3-dev), or {key}: false"
    if not found:
        yield fail("compiler", f"{key} wants a C++ compiler, and there is none", remedy)
    elif not headers.is_file():
        yield fail("compiler", f"{key} wants {headers}, which is not there", remedy)
    else:
        yield ok("compiler", found)


def _seen() -> tuple[str, str]:
    """What speaks against a GPU, or what there is."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed", ""
    import torch

    if not torch.cuda.is_available():
        return f"torch {torch.__version__} sees none", ""
    count = torch.cuda.device_count()
    return "", ", ".join(torch.cuda.get_device_name(n) for n in range(count))
