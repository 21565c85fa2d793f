"""Pictures of people that no id stands in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from leaver import LEAVER, OWN, STRANGER, asked, index_of, safetensors

from pipelines import storage
from pipelines.forget import check, requests
from pipelines.forget.__main__ import forget, main
from pipelines.forget.whose import whose
from pipelines.params import Params
from pipelines.schemas import DOWNLOADS


def run_of(params: Params, name: str, digest: str) -> Path:
    """A run as training leaves it, pictures and all."""
    run = Path(params.paths.work, "runs", name)
    for folder in ("grids", "tensorboard", "checkpoints"):
        (run / folder).mkdir(parents=True)
    (run / "grids" / "newest.png").write_bytes(b"a face")
    (run / "tensorboard" / "events").write_bytes(b"the same face")
    (run / "history.jsonl").write_text("{}")
    safetensors(run / "checkpoints" / "step-1.safetensors", {"dataset": {"index_sha256": digest}})
    return run


def test_pictures_of_runs_that_held_them_go(
    worked: Params, tmp_path: Path, params_file: Callable[..., str], exit_codes: list[int]
) -> None:
    params_path = params_file(worked)
    Path(worked.paths.data).mkdir()
    index = Path(worked.paths.data, "index.parquet")
    other = run_of(worked, "other", storage.sha256(index_of(index, STRANGER)))
    # What that dataset held was noted while it was there.
    inforce = asked(worked, f"person,{LEAVER}")
    assert forget(worked, tmp_path, []) == 0
    theirs = run_of(worked, "theirs", storage.sha256(index_of(index, LEAVER)))
    unknown = run_of(worked, "unknown", "ee" * 32)

    found = check.check(worked, tmp_path, inforce, whose(worked, inforce)).findings
    pictures = {f.file: f for f in found if "pictures of a run" in f.what}
    assert {Path(name).parent.name for name in pictures} == {"unknown"}, "the index names the other"
    assert all("--again" in finding.remedy for finding in pictures.values())

    caches = Path(worked.paths.work, "shard_cache", "tars"), Path(worked.paths.work, "evaluate")
    for cache in caches:
        cache.mkdir(parents=True)
        (cache / "x").write_bytes(LEAVER.encode())
    assert main(["--params", params_path, "--again"]) == 0
    assert not any(cache.exists() for cache in caches)
    for run in (theirs, unknown):
        assert not (run / "grids").exists() and not (run / "tensorboard").exists()
        assert (run / "history.jsonl").exists() and (run / "checkpoints").exists()
    assert (other / "grids" / "newest.png").exists()
    index_of(index, STRANGER)
    after = check.check(worked, tmp_path, inforce, whose(worked, inforce))
    assert after.findings == []
    assert {line.split(": ")[0].split("/")[-3] for line in after.saw} == {"theirs", "unknown"}


def test_a_typo_does_not_say_that_pictures_went(
    worked: Params, params_file: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Empty folders of caches are no pictures."""
    Path(worked.paths.work, "shard_cache", "tars").mkdir(parents=True)
    assert main(["--params", params_file(worked), "--person", "id0O017"]) == 0
    said = capsys.readouterr()
    assert "no annotation knows this person" in said.err
    assert "show people" not in said.out


def test_the_report_goes_and_one_that_came_back_is_told(
    worked: Params,
    tmp_path: Path,
    params_file: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
    exit_codes: list[int],
) -> None:
    """No stage of DVC writes it: `dvc repro` would not help."""
    params_path = params_file(worked)
    report = Path(worked.paths.results, "report.html")
    report.parent.mkdir(parents=True)
    report.write_text(LEAVER)
    cache = Path(worked.paths.work, "evaluate", "frames")
    cache.mkdir(parents=True)
    (cache / "a").write_bytes(b"a face")
    (cache / "b").write_bytes(b"another")
    assert main(["--params", params_path, "--person", LEAVER]) == 0
    assert not report.exists() and not cache.exists()
    said = capsys.readouterr().out
    assert "2 cached files, 1 report" in said and "python -m pipelines.report " in said
    report.write_text(LEAVER)
    assert main(["--params", params_path, "--check"]) == 1
    (told,) = [line for line in capsys.readouterr().out.splitlines() if "report.html" in line]
    assert "python -m pipelines.report` writes it anew" in told and "dvc repro" not in told


def test_nothing_is_deleted_while_nobody_is_forgotten(worked: Params, tmp_path: Path) -> None:
    run = run_of(worked, "any", "ee" * 32)
    assert requests.read(worked.catalog.takedowns) == []
    assert forget(worked, tmp_path, []) == 0
    assert (run / "grids").exists()


def test_pictures_of_evaluations_that_held_them_go(
    worked: Params, tmp_path: Path, params_file: Callable[..., str], exit_codes: list[int]
) -> None:
    params_path = params_file(worked)
    Path(worked.paths.data).mkdir()
    index = Path(worked.paths.data, "index.parquet")
    digests = {"other": storage.sha256(index_of(index, STRANGER)), "unknown": "ee" * 32}
    inforce = asked(worked, f"person,{LEAVER}")
    assert forget(worked, tmp_path, []) == 0
    digests["theirs"] = storage.sha256(index_of(index, LEAVER))
    for name in (*digests, "untold"):
        folder = Path(worked.paths.results, name)
        folder.mkdir(parents=True)
        (folder / "grid.png").write_bytes(b"a face")
        (folder / "user_study.html").write_text("a face")
        facts = {"index_sha256": digests.get(name), "split": "test"}
        told = {"kind": "evaluation", "setting": "s", "model": {}, "code": "1", "dataset": facts}
        if name in digests:
            (folder / "results.json").write_text(json.dumps(told))
    assert main(["--params", params_path, "--again"]) == 0
    left = {path.parent.name for path in Path(worked.paths.results).glob("*/grid.png")}
    assert left == {"other"}
    assert {p.parent.name for p in Path(worked.paths.results).glob("*/*.html")} == {"other"}
    index_of(index, STRANGER)
    again = Path(worked.paths.results, "untold", "grid.png")
    again.write_bytes(b"a face")
    (found,) = check.check(worked, tmp_path, inforce, whose(worked, inforce)).findings
    assert found.file == str(again.relative_to(tmp_path)) and "does not tell" in found.what


def test_pictures_of_evaluations_in_a_store_go(
    worked: Params, tmp_path: Path, params_file: Callable[..., str]
) -> None:
    results = f"memory://{tmp_path.name}/results"
    paths = worked.paths.model_copy(update={"results": results})
    params = worked.model_copy(update={"paths": paths})
    storage.write_bytes(f"{results}/tiny/grid.png", b"a face")
    storage.write_bytes(f"{results}/tiny/results.json", b"torn")
    storage.write_bytes(f"{results}/tiny/table.md", b"numbers")
    inforce = asked(params, f"person,{LEAVER}")
    (found,) = [
        finding
        for finding in check.check(params, tmp_path, inforce, whose(params, inforce)).findings
        if "pictures" in finding.what
    ]
    assert found.file.endswith("/results/tiny/grid.png") and "does not tell" in found.what
    assert forget(params, tmp_path, []) == 0
    assert not storage.exists(f"{results}/tiny/grid.png")
    assert storage.exists(f"{results}/tiny/table.md")


def test_videos_of_a_mirror_are_known_by_their_bytes(
    worked: Params, tmp_path: Path, params_file: Callable[..., str]
) -> None:
    """They are read in place: nothing of the work folder tells what they were."""
    body = b"a video in a mirror"
    row = {"source": "vox", "video": OWN, "status": "ok", "detail": "", "origin": "mirror"}
    row |= {"path": "/mirror/x.mp4", "sha256": storage.digest_bytes(body), "bytes": len(body)}
    table = pa.Table.from_pylist([dict.fromkeys(DOWNLOADS.names) | row], schema=DOWNLOADS)
    Path(worked.paths.data).mkdir()
    pq.write_table(table, worked.paths.manifest("download"))
    assert main(["--params", params_file(worked), "--person", LEAVER]) == 0
    Path(worked.paths.manifest("download")).unlink()
    (tmp_path / "copy.bin").write_bytes(body)
    inforce = requests.read(worked.catalog.takedowns)
    findings = check.check(worked, tmp_path, inforce, whose(worked, inforce)).findings
    assert {f.what for f in findings if f.file == "copy.bin"} == {
        "it is a file of the person of line 2"
    }
