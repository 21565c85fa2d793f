"""Beam's worker process, which ends with the driver that started it.

Beam's own waits for ever for a driver that was killed before the two had met.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading
import time

BEAMS_OWN = "apache_beam.runners.worker.sdk_worker_main"
LOOK_EVERY = 1.0
"""Seconds."""


def _end_with(driver: int) -> None:
    while os.getppid() == driver:
        time.sleep(LOOK_EVERY)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with, args=(int(sys.argv.pop()),), daemon=True).start()
    runpy.run_module(BEAMS_OWN, run_name="__main__", alter_sys=True)
