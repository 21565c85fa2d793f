"""Memory that a tensor no longer needs is kept for the next one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from training.device import ONE_ARENA

FAULTS = """
import resource, sys, threading, torch
from training.device import keep_freed
torch.set_num_threads(1)
def work():
    if "kept" in sys.argv:
        keep_freed()
    for turn in range(30):
        torch.ones(1 << 24)  # 64 MiB: glibc keeps up to 32 by itself, and an arena holds less
        if turn == 19:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
if "thread" in sys.argv:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
else:
    work()
"""


def faults(*how: str) -> int:
    """Pages that the kernel clears for ten large tensors, one after the other."""
    command = [sys.executable, "-c", FAULTS, *how]
    environment = os.environ | (ONE_ARENA if "thread" in how else {})
    return int(subprocess.check_output(command, text=True, env=environment))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
@pytest.mark.parametrize("where", [(), ("thread",)], ids=["main", "thread"])
def test_the_kernel_clears_no_pages_once_memory_has_settled(where: tuple[str, ...]) -> None:
    assert faults("kept", *where) < faults(*where) / 4
