"""Memory that a tensor no longer needs is kept for the next one."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from training.device import keep_freed
torch.set_num_threads(1)
if sys.argv[1] == "kept":
    keep_freed()
for turn in range(30):
    torch.ones(1 << 24)  # 64 MiB: glibc keeps up to 32 by itself
    if turn == 19:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_the_kernel_clears_no_pages_once_memory_has_settled() -> None:
    given_back, kept = (
        int(subprocess.check_output([sys.executable, "-c", FAULTS, how], text=True))
        for how in ("given back", "kept")
    )
    assert kept < given_back / 4
