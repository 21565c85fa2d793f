"""Which trained files saw the forgotten."""

from __future__ import annotations

import struct
from pathlib import Path

from leaver import safetensors

from pipelines.forget import models


def test_what_a_model_was_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    assert models.datasets(safetensors(path, {"dataset": {"index_sha256": "aa"}})) == {"aa"}
    person = {"model": {"facts": {"dataset": {"index_sha256": "aa"}}}, "parents": [{}]}
    assert models.datasets(safetensors(path, person)) == {"aa"}
    assert models.datasets(safetensors(path, {})) is None
    for junk in (b"", b"\xff" * 40, struct.pack("<Q", 4) + b"{}", struct.pack("<Q", 2) + b"[]"):
        path.write_bytes(junk)
        assert models.datasets(path) is None
