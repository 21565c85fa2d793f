"""A toy stage's folder, and ways to run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import toy_stage

from pipelines import manifest, storage
from pipelines.params import Params
from pipelines.records import Records

ROOT = Path(__file__).resolve().parents[2]


class Toy:
    """A toy stage's folder, and ways to run it."""

    def __init__(self, folder: Path, params: Params, file: str) -> None:
        self.folder, self.params, self.file = folder, params, file
        Path(params.catalog.metadata).mkdir()

    def plan(self, **items: str | tuple[str, int]) -> None:
        plan = {n: b if isinstance(b, tuple) else (b, 1) for n, b in items.items()}
        Path(self.params.catalog.metadata, "plan.json").write_text(json.dumps(plan))

    def main(self, *words: str) -> int:
        """The command in this process."""
        return toy_stage.main(["--params", self.file, *words])

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The command in a process of its own."""
        process = self.start(*words)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """The command in a process of its own, under way."""
        places = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)])}
        return subprocess.Popen(
            [sys.executable, "-m", "toy_stage", "--params", self.file, *words],
            env=os.environ | places,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def calls(self) -> list[str]:
        """Names processed since the last look."""
        log = Path(self.params.catalog.metadata, "calls.log")
        names = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return names

    def rows(self) -> list[tuple[str, str]]:
        table = manifest.read(self.params.paths.manifest("download"))
        return [(row["name"], row["status"]) for row in table.to_pylist()]

    def record(self, name: str) -> Path:
        url = Records(self.params.paths.work, "download").url(storage.digest("toy", name))
        return Path(url)

    def metrics(self) -> dict[str, Any]:
        return json.loads(Path(self.params.paths.metrics, "download.json").read_text())
