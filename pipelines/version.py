"""Which code made a thing: the release, the commit of a checkout, and what the sources do."""

from __future__ import annotations

import ast
import functools
import hashlib
import subprocess
from collections.abc import Iterable
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


def source_digest(files: Iterable[Path]) -> str:
    """Digest of what Python sources do: comments, docstrings and layout change nothing."""
    hasher = hashlib.sha256()
    for path in sorted(files):
        hasher.update(f"{path.name} {_meaning(ast.parse(path.read_bytes()))}\n".encode())
    return hasher.hexdigest()


def _meaning(node: object) -> str:
    """A syntax tree as text, without what is empty: that differs between versions of Python."""
    if isinstance(node, list):
        return f"[{', '.join(_meaning(one) for one in node)}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    parts = []
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(value, list):
            value = [one for one in value if not _is_text(one)]
        if value not in (None, []):
            parts.append(f"{name}={_meaning(value)}")
    return f"{type(node).__name__}({', '.join(parts)})"


def _is_text(node: ast.AST) -> bool:
    """A statement that is a mere string: what it says is for people."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


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
