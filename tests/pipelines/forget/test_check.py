"""The proof that nothing remains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from leaver import LEAVER, OTHER, OWN, STRANGER, annotate, asked, index_of, safetensors

from pipelines import storage
from pipelines.forget import check, requests
from pipelines.forget.__main__ import forget, main
from pipelines.forget.whose import whose
from pipelines.params import Params


def test_the_proof(
    worked: Params, tmp_path: Path, params_file: Callable[..., str], exit_codes: list[int]
) -> None:
    """From what a forgotten person left everywhere to nothing, one remedy after the other."""
    params_path = params_file(worked)
    folder = Path(worked.paths.data)
    folder.mkdir()
    index = index_of(folder / "index.parquet", LEAVER, OWN)
    (tmp_path / "runs").mkdir()
    facts = {"dataset": {"index_sha256": storage.sha256(index)}}
    safetensors(tmp_path / "runs" / "model.safetensors", facts)
    safetensors(tmp_path / "runs" / "stray.safetensors", {"dataset": {"index_sha256": "ee" * 32}})
    safetensors(tmp_path / "runs" / "mute.safetensors", {})
    (tmp_path / "notes.md").write_text(f"ask {LEAVER}")
    Path(worked.paths.cards).mkdir()
    Path(worked.paths.cards, "report.html").write_text(f"<td>{OWN}</td>")
    assert forget(worked, tmp_path, [requests.request("person", LEAVER, "2026-11-23", "")]) == 0

    def proof() -> check.Proof:
        inforce = requests.read(worked.catalog.takedowns)
        return check.check(worked, tmp_path, inforce, whose(worked, inforce))

    first = proof()
    assert {Path(f.file).name for f in first.findings} == {
        "index.parquet",
        "notes.md",
        "report.html",
    }
    assert main(["--params", params_path, "--check"]) == 1
    index_of(index, STRANGER, OTHER)
    Path(worked.paths.cards, "report.html").write_text("")
    (tmp_path / "notes.md").unlink()
    clean = proof()
    assert clean.findings == []
    assert main(["--params", params_path, "--check"]) == 0
    saw = {line.split(":")[0]: line for line in clean.saw}
    assert "data of the person of line 2" in saw["runs/model.safetensors"]
    assert "cannot be told" in saw["runs/stray.safetensors"]
    assert "does not say" in saw["runs/mute.safetensors"]
    assert any("annotations in" in note for note in clean.notes)
    # A deleted file that comes back under any name, and one that no record speaks of.
    storage.write_bytes(str(tmp_path / "backup" / "x.bin"), b"body of crops/11/1101.mp4")
    storage.write_bytes(storage.join(worked.paths.work, "crops/00/0001.mp4"), b"whose?")
    words = {Path(f.file).name: f.what for f in proof().findings}
    assert "it is a file of" in words.pop("x.bin")
    assert "no record tells" in words.pop("0001.mp4")
    assert words == {}


def test_folders_on_another_disk_are_read(
    worked: Params, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    inforce = asked(worked, f"person,{LEAVER}")
    assert forget(worked, tmp_path, []) == 0
    disk = tmp_path_factory.mktemp("disk")
    (disk / "notes.md").write_text(f"ask {LEAVER}")
    (disk.parent / "beside.md").write_text(f"ask {LEAVER}")
    (tmp_path / "elsewhere").symlink_to(disk)
    (disk / "back").symlink_to(tmp_path)
    (tmp_path / "up").symlink_to(tmp_path.parent)
    found = check.check(worked, tmp_path, inforce, whose(worked, inforce)).findings
    assert [finding.file for finding in found] == [str(disk / "notes.md")]


def test_a_line_added_by_hand(
    worked: Params, tmp_path: Path, params_file: Callable[..., str]
) -> None:
    inforce = asked(worked, f"person,{LEAVER}")
    found = check.check(worked, tmp_path, inforce, whose(worked, inforce))
    assert any("added by hand" in note for note in found.notes)
    assert any("records" in f.file for f in found.findings)
    assert main(["--params", params_file(worked), "--again"]) == 0
    found = check.check(worked, tmp_path, inforce, whose(worked, inforce))
    assert not found.findings
    assert not any("added by hand" in note for note in found.notes)


def test_short_ids_are_not_looked_for_in_git_s_history(params: Params, tmp_path: Path) -> None:
    annotate(tmp_path / "metadata", "p1", "v1")
    (tmp_path / ".git").mkdir()
    inforce = asked(params, "person,p1")
    notes = check.check(params, tmp_path, inforce, whose(params, inforce)).notes
    assert "git's history was not searched (ids so short stand in any text by chance)" in notes


def test_nobody_is_told_apart_by_a_prefix(params: Params, tmp_path: Path) -> None:
    annotate(tmp_path / "metadata", LEAVER + "7", OTHER)
    inforce = asked(params, f"person,{LEAVER}")
    (tmp_path / "list.txt").write_text(f"{LEAVER}7 and {STRANGER}")
    assert check.check(params, tmp_path, inforce, whose(params, inforce)).findings == []
