"""Where a process computes, and what it is told before it does."""

from __future__ import annotations

import ctypes
import re
import sys

import torch

from pipelines.errors import UserError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of mallopt(3)."""


def device_named(name: str) -> torch.device:
    """Where a command computes, prepared for that. Raises UserError where there is no such one."""
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UserError(f"device {name}: give cpu, cuda or cuda:N")
    try:
        device = torch.device(name)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise UserError(f"device {name}: torch sees no GPU here; use cpu")
        torch.empty(1, device=device).cpu()  # a number that is too high, a backend not built in
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"device {name}: {str(error).splitlines()[0]}") from None
    if device.type == "cpu":
        keep_freed()
    return device


def tune(device: torch.device) -> None:
    """Prepare this process for training, before the first step.

    CUDA chooses its fastest convolutions, and TF32 for what stays in float32; on a CPU freed memory
    is kept.
    """
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    else:
        keep_freed()


def keep_freed() -> None:
    """Keep memory that tensors free for the next one; for this process, from now on.

    glibc gives every large block back to the kernel, which clears each page of the next one anew.
    What this saves and holds: benchmarks/README.md. Elsewhere than on glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
