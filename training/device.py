"""What a process is told before it computes, by the device it computes on."""

from __future__ import annotations

import ctypes
import sys

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of mallopt(3)."""

ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}
"""Environment of a process that computes in a thread of its own, as Ray's workers do: glibc gives
such a thread an arena that returns every block above 64 MiB, whatever it is told later."""


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
