"""torchvision, where it works."""

from __future__ import annotations

import importlib

import pytest


@pytest.fixture(scope="module")
def torchvision():
    try:  # it does not work beside every torch
        return importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"no torchvision that works beside this torch: {error}")
