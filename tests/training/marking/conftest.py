"""A home of one's own for the development pair, and a signed video."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from marked_media import FACTS, pictures, write_mp4

if TYPE_CHECKING:
    from training.marking import Keys


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config"


@pytest.fixture
def own() -> Keys:
    from training.marking import keys  # needs c2pa, and the tests say so

    return keys(None, None)


@pytest.fixture
def video(tmp_path: Path, own: Keys) -> Path:
    from training.marking import draw_label, sign

    path = write_mp4(tmp_path / "out.mp4", draw_label(pictures(), "AI-generated"))
    sign(path, facts=FACTS, label="AI-generated", keys=own)
    return path
