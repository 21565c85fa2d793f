"""Fixtures of every test."""

from __future__ import annotations

from pathlib import Path

import pytest

CORPUS = Path(__file__).resolve().parents[1] / "../shared/corpus"


@pytest.fixture(scope="session")
def corpus() -> Path:
    """Real annotations and videos, where this machine has them; they are not in the repository."""
    if not CORPUS.is_dir():
        pytest.skip("no ../shared/corpus beside the repository")
    return CORPUS.resolve()
