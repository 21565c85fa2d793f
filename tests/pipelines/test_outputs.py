"""Outputs that cannot be written are told before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import outputs
from pipelines.errors import UserError


def test_a_name_that_can_be_written_is_fine_and_nothing_is_left(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("kept")
    outputs.check_file("-o", str(there), [("--driver", str(tmp_path / "none")), ("--model", None)])
    outputs.check_file("-o", str(tmp_path / "deep" / "er" / "x.mp4"))
    outputs.check_file("-o", "s3://bucket/x.html", [("a manifest", "s3://bucket/index.parquet")])
    outputs.check_folder("paths.models", str(tmp_path / "models"))
    outputs.check_folder("paths.models", "s3://bucket/models")
    assert [path.name for path in tmp_path.iterdir()] == ["there"] and there.read_text() == "kept"


@pytest.mark.parametrize("link", [False, True])
def test_an_input_is_not_overwritten(tmp_path: Path, link: bool) -> None:
    driver = output = tmp_path / "driver.mp4"
    driver.touch()
    if link:
        output = tmp_path / "other.mp4"
        output.symlink_to(driver)
    with pytest.raises(UserError, match=r"is also --driver: give the output another name"):
        outputs.check_file("-o", str(output), [("--portrait", "none"), ("--driver", str(driver))])


def test_an_input_is_told_by_its_url_too(tmp_path: Path) -> None:
    there = tmp_path / "index.parquet"
    there.touch()
    for output, given in [("s3://b/x", "s3://b/x"), (f"file://{there}", str(there))]:
        with pytest.raises(UserError, match=r"is also a manifest: give the output another name"):
            outputs.check_file("-o", output, [("a manifest", given)])


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("-", "-o -: give a file's name"),
        ("/dev/null", "-o /dev/null is no plain file"),
        ("/proc/x.mp4", r"-o /proc/x.mp4: cannot be written: /proc \("),
        ("{}/file/x.mp4", r"cannot be written: .*/file is a file, not a folder"),
        ("{}/file/deep/x.mp4", r"cannot be written: .*/file is a file, not a folder"),
    ],
)
def test_what_cannot_be_written_is_told(tmp_path: Path, output: str, words: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=words):
        outputs.check_file("-o", output.format(tmp_path))


@pytest.mark.parametrize("place", ["file", "file/deep"])
def test_a_folder_that_is_a_file_is_told_by_its_key(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^paths.models: .*/file is a file, not a folder"):
        outputs.check_folder("paths.models", str(tmp_path / place))
