"""Fixtures of every test."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# As `training` sets it, here before any test has loaded torch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# No test reaches the network: a repository that a test makes would have DVC report to its makers.
os.environ["DVC_NO_ANALYTICS"] = "1"

# A shell's `&` has the tests, and all they start, ignore Ctrl-C; some are about Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more of the machine than of the code.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")

CORPUS = Path(__file__).resolve().parents[1] / "../shared/corpus"


@pytest.fixture(scope="session")
def corpus() -> Path:
    """Real annotations and videos, where this machine has them; they are not in the repository."""
    if not CORPUS.is_dir():
        pytest.skip("no ../shared/corpus beside the repository")
    return CORPUS.resolve()
