"""Which code made a thing: the release, and the commit where it runs from a checkout."""

from __future__ import annotations

import functools
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@functools.cache
def code_version() -> str:
    """`0.1.0`, `0.1.0+g1a2b3c4d5e6f` in a checkout, `….changed` where its files differ from it."""
    try:
        release = version("likeness")
    except PackageNotFoundError:
        release = "0"
    root = Path(__file__).resolve().parents[1]
    commit = _git(root, "rev-parse", "--short=12", "HEAD")
    if not commit:
        return release
    dirty = _git(
        root, "status", "--porcelain", "--untracked-files=no", "--", "pipelines", "training"
    )
    return f"{release}+g{commit}{'.changed' if dirty else ''}"


def _git(root: Path, *words: str) -> str:
    if not (root / ".git").exists():
        return ""
    try:
        done = subprocess.run(
            ["git", *words], cwd=root, capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
