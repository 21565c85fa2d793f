"""Pictures of people that no id stands in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from leaver import LEAVER, STRANGER, asked, index_of, safetensors

from pipelines import storage
from pipelines.forget import check, requests
from pipelines.forget.__main__ import forget, main
from pipelines.forget.whose import whose
from pipelines.params import Params


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


def test_nothing_is_deleted_while_nobody_is_forgotten(worked: Params, tmp_path: Path) -> None:
    run = run_of(worked, "any", "ee" * 32)
    assert requests.read(worked.catalog.takedowns) == []
    assert forget(worked, tmp_path, []) == 0
    assert (run / "grids").exists()
