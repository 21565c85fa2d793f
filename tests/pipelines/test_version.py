from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.version import code_version, source_digest

SOURCE = '''"""What it is for."""

def area(a, b=2):
    """Of a rectangle."""
    return a * b  # in metres
'''


def digest(tmp_path: Path, text: str, name: str = "a.py") -> str:
    (tmp_path / name).write_text(text)
    return source_digest([tmp_path / name])


@pytest.mark.parametrize(
    "same",
    [
        SOURCE.replace("in metres", "in miles"),
        SOURCE.replace("Of a rectangle", "Another sentence"),
        SOURCE.replace('    """Of a rectangle."""\n', ""),
        SOURCE.replace("a * b", "(a\n            * b)"),
    ],
)
def test_words_and_layout_change_nothing(tmp_path: Path, same: str) -> None:
    assert same != SOURCE
    assert digest(tmp_path, same) == digest(tmp_path, SOURCE)


@pytest.mark.parametrize(
    "other",
    [
        SOURCE.replace("a * b", "a + b"),
        SOURCE.replace("b=2", "b=3"),
        SOURCE.replace("b=2", "b=2.0"),
        SOURCE.replace("def area", "async def area"),
        SOURCE + "area = None\n",
    ],
)
def test_what_it_does_changes_it(tmp_path: Path, other: str) -> None:
    assert digest(tmp_path, other) != digest(tmp_path, SOURCE)


def test_files_are_told_apart_and_their_order_is_not(tmp_path: Path) -> None:
    assert digest(tmp_path, SOURCE, "a.py") != digest(tmp_path, SOURCE, "b.py")
    a, b = tmp_path / "a.py", tmp_path / "b.py"
    assert source_digest([a, b]) == source_digest([b, a]) != source_digest([a])


def test_the_version_names_a_release() -> None:
    assert code_version().split("+")[0].count(".") >= 1
