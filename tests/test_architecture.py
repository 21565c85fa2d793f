"""Who may import what: the rooms that docs/architecture.md promises, in real interpreters."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BESIDES = "pipelines.detectors.face_alignment"  # the one backend that is a torch model


def importers(package: str) -> set[str]:
    """Files of ours that import a package, at whatever depth of their code."""
    found = set()
    for folder in ("pipelines", "training"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module or ""]
                if any(name.split(".")[0] == package for name in names):
                    found.add(str(path.relative_to(ROOT)))
    return found


@pytest.mark.parametrize(
    ("package", "files"),
    [
        ("ray", {"training/cluster.py"}),
        ("apache_beam", {"pipelines/runner.py"}),
        ("webdataset", {"training/stream.py"}),
        ("face_alignment", {"pipelines/detectors/face_alignment.py"}),
    ],
)
def test_a_framework_is_known_in_one_place(package: str, files: set[str]) -> None:
    assert importers(package) == files


def test_nothing_below_imports_what_is_above() -> None:
    assert not {name for name in importers("training") if name.startswith("pipelines/")}


def interpreter(code: str) -> str:
    """Run code in an interpreter of its own; returns what it printed."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_pipelines_run_where_there_is_no_torch_and_no_ray() -> None:
    said = interpreter(
        "import sys, importlib, pkgutil\n"
        "for name in ('torch', 'ray', 'training'):\n"
        "    sys.modules[name] = None\n"
        "import pipelines\n"
        "names = [m.name for m in pkgutil.walk_packages(pipelines.__path__, 'pipelines.')]\n"
        "for name in names:\n"
        f"    if name != {BESIDES!r} and not name.endswith('__main__'):\n"
        "        importlib.import_module(name)\n"
        "print(len(names))\n"
    )
    assert int(said.split()[-1]) > 60, "all of them"


def test_the_meta_learner_needs_torch_numpy_pyarrow_and_an_image_decoder() -> None:
    said = interpreter(
        "import sys\n"
        "import torch, numpy, pyarrow.parquet, PIL.Image\n"
        "sys.modules['cv2'] = None\n"
        "known = {name.split('.')[0] for name in sys.modules} | set(sys.stdlib_module_names)\n"
        "import training.meta, training.networks, training.episodes\n"
        "new = {name.split('.')[0] for name in sys.modules} - known\n"
        "print(*(name for name in new if not name.startswith('_')))\n"
    )
    assert said.split() == ["training"]
