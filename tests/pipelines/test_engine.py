"""The engine: nothing is lost, nothing is done twice, and stderr is for people."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import toy_stage
from toy_folder import Toy

from pipelines import command, engine, manifest, storage
from pipelines.job import Item, Job
from pipelines.params import Params
from pipelines.records import Records


def test_every_row_in_comes_out_in_the_order_of_the_items(
    toy: Toy, without_beam: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    toy.plan(c=("ok", 3), a=("filtered", 2), b=("removed", 1), d=("ok", 1))
    assert toy.main() == 0
    assert toy.rows() == [("c", "ok")] * 3 + [("a", "filtered")] * 2 + [
        ("b", "removed"),
        ("d", "ok"),
    ]
    metrics = toy.metrics()
    assert (metrics["rows"], metrics["ok"], metrics["failed"], metrics["items"]) == (7, 4, 1, 4)
    plot = Path(toy.params.paths.metrics, "download.csv").read_text()
    assert plot == "status,rows\nfiltered,2\nok,4\nremoved,1\n"
    out, err = capsys.readouterr()
    assert "download: 7 rows in" in out
    assert "Loosen the filter" in out
    assert err == ""


def test_nothing_is_done_twice_and_the_manifest_has_the_same_bytes(
    toy: Toy, without_beam: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    toy.plan(a="ok", b="removed", c="network")
    toy.main()
    first = storage.read_bytes(toy.params.paths.manifest("download"))
    toy.calls()
    storage.remove(toy.params.paths.manifest("download"))
    assert toy.main() == 3
    assert toy.calls() == []
    assert len(without_beam) == 1
    assert storage.read_bytes(toy.params.paths.manifest("download")) == first
    assert "3 of 3 items were already done and kept." in capsys.readouterr().out


def test_an_interrupted_run_goes_on_to_the_same_bytes(
    toy: Toy, without_beam: list[list[str]], exit_codes: list[int]
) -> None:
    toy.plan(a="ok", b="ok", c="stop", d="ok")
    assert toy.main() == 1
    assert exit_codes == [1]
    assert not storage.exists(toy.params.paths.manifest("download"))
    assert toy.calls() == ["a", "b", "c"]
    toy.plan(a="ok", b="ok", c="ok", d="ok")
    assert toy.main() == 0
    assert toy.calls() == ["c", "d"]
    again = storage.read_bytes(toy.params.paths.manifest("download"))
    for path in Path(toy.params.paths.work, "records").rglob("*.arrow"):
        path.unlink()
    toy.main()
    assert storage.read_bytes(toy.params.paths.manifest("download")) == again


def test_a_fault_of_a_worker_becomes_rows_and_exit_code_1(
    toy: Toy,
    without_beam: list[list[str]],
    exit_codes: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    toy.plan(a="ok", b=("raise", 2), c=("short", 2), d="ok")
    assert toy.main() == 1
    table = manifest.read(toy.params.paths.manifest("download")).to_pylist()
    assert [row["status"] for row in table] == ["ok", *["internal_error"] * 4, "ok"]
    assert table[1]["detail"] == "ValueError: cannot do b"
    assert table[3]["detail"] == "AssertionError: c: 2 rows in, 1 out"
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "likeness: download: 4 rows hit a fault of Likeness itself; see `detail` in the manifest"
    )
    assert list(Path(toy.params.paths.work, "tmp").iterdir()) == []


def test_failures_past_the_budget_exit_3_with_the_manifest_complete(
    toy: Toy, without_beam: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    toy.plan(a="ok", b="removed", c="ok", d="removed")
    assert toy.main() == 0
    toy.plan(a="ok", b="removed", c="ok", d="removed", e="private")
    assert toy.main() == 3
    assert len(toy.rows()) == 5
    (line,) = capsys.readouterr().err.splitlines()
    assert "download: 3 of 5 rows failed (60%), more than download.max_failed allows (50%)" in line


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("stop", "toy: nothing more can be done"),
        ("full", "download: No space left on device while writing below"),
    ],
)
def test_what_stops_a_stage_is_one_line(
    toy: Toy,
    without_beam: list[list[str]],
    exit_codes: list[int],
    capsys: pytest.CaptureFixture[str],
    behaviour: str,
    words: str,
) -> None:
    toy.plan(a=behaviour, b="ok")
    assert toy.main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"likeness: {words}")
    assert not storage.exists(toy.params.paths.manifest("download"))


def test_a_record_that_cannot_be_written_is_no_fault_of_its_item(
    toy: Toy,
    without_beam: list[list[str]],
    exit_codes: list[int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    toy.plan(a="ok")
    with monkeypatch.context() as patch:
        patch.setattr(Records, "write", fail)
        assert toy.main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("likeness: download: Input/output error while writing below")
    assert toy.main() == 0
    assert toy.rows() == [("a", "ok")]


def test_a_file_that_lost_bytes_is_made_again(
    make_params: Callable[..., Params], tmp_path: Path
) -> None:
    params = make_params()
    schema = pa.schema([("status", pa.string()), ("path", pa.string()), ("bytes", pa.int64())])
    items = [Item(name, storage.digest(name), 0, 1, 1) for name in ("a", "b", "c")]
    for item, there in zip(items, (b"whole", b"", None), strict=True):
        path = f"videos/{item.name}.mp4"
        if there is not None:
            storage.write_bytes(storage.join(params.paths.work, path), there)
        rows = pa.Table.from_pylist([{"status": "ok", "path": path, "bytes": 5}], schema=schema)
        Records(params.paths.work, "download").write(item.fingerprint, rows, 0.1)
    worker = toy_stage.ToyWorker(tmp_path)
    job = Job("download", params, schema, worker, items, "videos", 0.5, folder="videos")
    assert [item.name for item in engine.pending_items(job, frozenset())] == ["b", "c"]


def test_work_in_an_object_store(
    toy: Toy, without_beam: list[list[str]], make_params: Callable[..., Params]
) -> None:
    params = make_params(paths={"work": "memory://work", "data": "memory://data"})
    toy.plan(a="ok", b=("removed", 2))
    job = toy_stage.prepare(params)
    assert engine.run(job).rows == 3
    assert engine.run(job).done_before == 2
    assert len(manifest.read("memory://data/downloads.parquet")) == 3


@pytest.mark.parametrize("stage", ["download", "crop", "landmarks", "shard"])
def test_a_missing_manifest_is_one_line_and_exit_2(
    stage: str,
    make_params: Callable[..., Params],
    params_file: Callable[[Params], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    import importlib

    module = importlib.import_module(f"pipelines.{stage}")
    assert module.main(["--params", params_file(make_params())]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(".parquet is missing: run the stage that writes it first")


def test_missing_settings_are_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert toy_stage.main(["--params", str(tmp_path / "none.yaml")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted; finished items are kept"),
        (PermissionError(13, "Permission denied", "data/x"), 1, "data/x: Permission denied"),
        (OSError("odd"), 1, "a file: odd"),
        (engine.UserError("one\ntwo"), 2, "one\nlikeness: two"),
    ],
)
def test_what_ends_a_command_is_said_without_a_traceback(
    error: BaseException,
    code: int,
    words: str,
    exit_codes: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> int:
        raise error

    assert command.guarded(fail) == code
    assert capsys.readouterr().err.startswith(f"likeness: {words}")
