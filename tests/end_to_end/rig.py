"""A rebuild of the tiny corpus in a folder of its own, run through the real commands."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import yaml

REPO = Path(__file__).resolve().parents[2]
BEAM_STAGES = ("download", "crop", "landmarks", "shard")
STAGES = ("catalog", *BEAM_STAGES)
MANIFESTS = {
    "catalog": "catalog.parquet",
    "download": "downloads.parquet",
    "crop": "crops.parquet",
    "landmarks": "landmarks.parquet",
    "shard": "index.parquet",
}
OUTPUTS = {
    "download": ("work/videos", "work/partial"),
    "crop": ("work/crops",),
    "landmarks": ("work/landmarks",),
    "shard": ("data/shards",),
}
"""Where a stage's work lies, besides its records and its manifest."""


@dataclass
class Run:
    """What a finished command left."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def complaints(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.strip()]

    def check(self) -> Run:
        assert self.code == 0, f"exit {self.code}\n{self.out}\n{self.err}"
        return self

    def one_line(self, code: int) -> str:
        """The only line on stderr, of a command that ended with `code`."""
        assert self.code == code, f"exit {self.code}\n{self.out}\n{self.err}"
        assert len(self.complaints) == 1, f"more than a line:\n{self.err}"
        assert "Traceback" not in self.out
        return self.complaints[0]


@dataclass
class Rig:
    """A folder with params.yaml, data and work."""

    folder: Path
    params: dict[str, Any]
    env: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
        (self.folder / "takedowns.csv").write_text("kind,id,date,reason\n")
        self.save()

    def save(self) -> None:
        (self.folder / "params.yaml").write_text(yaml.safe_dump(self.params))

    def change(self, section: str, **values: Any) -> None:
        self.params[section] = self.params.get(section, {}) | values
        self.save()

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    # --- commands

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "PYTEST_"))}
        own = {"PYTHONPATH": str(REPO), "TMPDIR": str(self.folder / "tmp"), "NO_COLOR": "1"}
        own["RAY_TMPDIR"] = tempfile.gettempdir()  # the names of Ray's sockets must be short
        return kept | own | self.env

    def start(self, stage: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", f"pipelines.{stage}", "--params", "params.yaml", *arguments],
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(self, process: subprocess.Popen[str], timeout: float = 120) -> Run:
        started = time.monotonic()
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            kill_group(process)
            out, err = process.communicate()
            raise AssertionError(f"still running after {timeout} s\n{out}\n{err}") from None
        return Run(process.returncode, out, err, time.monotonic() - started)

    def run(self, stage: str, *arguments: str, timeout: float = 120) -> Run:
        return self.finish(self.start(stage, *arguments), timeout)

    def run_all(self, *stages: str) -> Rig:
        for stage in stages or STAGES:
            self.seconds[stage] = self.run(stage).check().seconds
        return self

    # --- what there is

    def hashes(self, *stages: str) -> dict[str, str]:
        """sha256 of the manifests of these stages (all of them without arguments) and tars."""
        files = [self.data / MANIFESTS[stage] for stage in stages or STAGES]
        if not stages or "shard" in stages:
            files += sorted(self.data.glob("shards/*/*.tar*"))
        return {str(f.relative_to(self.folder)): sha256(f) for f in files}

    def rows(self, stage: str) -> list[dict[str, Any]]:
        return pq.read_table(self.data / MANIFESTS[stage]).to_pylist()

    def records(self, stage: str) -> dict[str, tuple[int, int]]:
        """Inode and mtime of every finished item."""
        return stamps(self.work / "records" / stage, "*/[!.]*.arrow")

    def copy_to(self, folder: Path) -> Rig:
        shutil.copytree(self.folder, folder, symlinks=True)
        return Rig(folder, {**self.params}, {**self.env}, {**self.seconds})

    def forget(self, stage: str) -> None:
        """As if this stage and those after it had never run."""
        for later in STAGES[STAGES.index(stage) :]:
            (self.data / MANIFESTS[later]).unlink(missing_ok=True)
            shutil.rmtree(self.work / "records" / later, ignore_errors=True)
            for output in OUTPUTS[later]:
                shutil.rmtree(self.folder / output, ignore_errors=True)

    def assert_swept(self) -> None:
        """No unfinished file is left anywhere."""
        left = [*self.work.glob("tmp/*"), *self.work.glob("partial/*/*")]
        left += self.folder.rglob(".tmp-*")
        assert not left, f"left behind: {left}"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def stamps(root: Path, pattern: str = "**/*") -> dict[str, tuple[int, int]]:
    """Inode and mtime of files: a file that was written again has others."""
    found = {}
    for path in root.glob(pattern):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        if path.is_file():
            found[str(path.relative_to(root))] = (stat.st_ino, stat.st_mtime_ns)
    return found


def kill_group(process: subprocess.Popen[str], sign: signal.Signals = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, sign)


def wait_until(
    condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 90
) -> bool:
    """Wait for a condition while a process runs; False when it ended first."""
    deadline = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.005)
    return True


def sdk_workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The worker processes of a multi_processing run."""
    found = psutil.Process(process.pid).children(recursive=True)
    return [p for p in found if any("sdk_worker_main" in word for word in p.cmdline())]
