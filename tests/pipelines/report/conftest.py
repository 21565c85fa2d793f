"""A built card, and a browser to look at it with; both are shared by all tests of the report."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser
from card_run import build_card

from pipelines.params import Params


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Params, Path]:
    """A built card; read only."""
    pytest.importorskip("jinja2")
    return build_card(tmp_path_factory.mktemp("card"))


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium; skips where there is none."""
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()
