"""The engine: nothing is lost, nothing is done twice, and stderr is for people."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import toy_stage

from pipelines import command, engine, manifest, storage
from pipelines.params import Params
from pipelines.records import Records
from pipelines.runner import check_runner
from pipelines.summary import Summary, exit_status

ROOT = Path(__file__).resolve().parents[2]
PROCESSES = {"direct_running_mode": "multi_processing", "direct_num_workers": 2}


class Toy:
    """A toy stage's folder, and ways to run it."""

    def __init__(self, folder: Path, params: Params, file: str) -> None:
        self.folder, self.params, self.file = folder, params, file
        Path(params.catalog.metadata).mkdir()

    def plan(self, **items: str | tuple[str, int]) -> None:
        plan = {n: b if isinstance(b, tuple) else (b, 1) for n, b in items.items()}
        Path(self.params.catalog.metadata, "plan.json").write_text(json.dumps(plan))

    def main(self, *words: str) -> int:
        """The command in this process."""
        return toy_stage.main(["--params", self.file, *words])

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The command in a process of its own."""
        places = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)])}
        return subprocess.run(
            [sys.executable, "-m", "toy_stage", "--params", self.file, *words],
            env=os.environ | places,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def calls(self) -> list[str]:
        """Names processed since the last look."""
        log = Path(self.params.catalog.metadata, "calls.log")
        names = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return names

    def rows(self) -> list[tuple[str, str]]:
        table = manifest.read(self.params.paths.manifest("download"))
        return [(row["name"], row["status"]) for row in table.to_pylist()]

    def record(self, name: str) -> Path:
        url = Records(self.params.paths.work, "download").url(storage.digest("toy", name))
        return Path(url)

    def metrics(self) -> dict[str, Any]:
        return json.loads(Path(self.params.paths.metrics, "download.json").read_text())


@pytest.fixture
def toy(
    tmp_path: Path, make_params: Callable[..., Params], params_file: Callable[[Params], str]
) -> Toy:
    params = make_params(download={"max_failed": 0.5})
    return Toy(tmp_path, params, params_file(params))


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


def test_retry_redoes_the_statuses_asked_for_and_deferred_always(
    toy: Toy, without_beam: list[list[str]]
) -> None:
    statuses = ("ok", "removed", "network", "throttled", "deferred", "excluded")
    toy.plan(**{status: status for status in statuses})
    toy.main()
    toy.calls()
    for words, redone in [
        ([], ["deferred"]),
        (["--retry", "removed"], ["removed", "deferred"]),
        (["--retry", "removed,excluded"], ["removed", "deferred", "excluded"]),
        (["--retry", "removed", "--retry", "network"], ["removed", "network", "deferred"]),
        (["--retry", "transient"], ["network", "throttled", "deferred"]),
        (["--retry", "failed"], ["removed", "network", "throttled", "deferred"]),
    ]:
        toy.main(*words)
        assert toy.calls() == redone
    toy.plan(**dict.fromkeys(statuses, "ok"))
    toy.main("--retry", "failed")
    assert Counter(status for _, status in toy.rows()) == {"ok": 5, "excluded": 1}


def test_an_unknown_status_to_retry_is_one_line(
    toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.plan(a="ok")
    assert toy.main("--retry", "remved") == 2
    assert capsys.readouterr().err.startswith("likeness: --retry: unknown status 'remved'; use ")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("", "name statuses, transient or failed"),
        (",", "name statuses, transient or failed"),
        ("too_small", "download never gives too_small; pipelines.crop does"),
        ("removed,no_face", "download never gives no_face; pipelines.landmarks does"),
    ],
)
def test_a_retry_that_would_do_nothing_is_one_line(
    toy: Toy,
    without_beam: list[list[str]],
    capsys: pytest.CaptureFixture[str],
    words: str,
    line: str,
) -> None:
    toy.plan(a="removed")
    assert toy.main("--retry", words) == 2
    assert capsys.readouterr().err == f"likeness: --retry: {line}\n"
    assert without_beam == []


def test_statuses_of_every_stage_and_groups_are_retried_by_all() -> None:
    for stage in ("download", "crop", "landmarks", "shard"):
        engine.check_given(stage, ["internal_error,transient", "failed"])
    with pytest.raises(engine.UserError, match="crop never gives excluded; "):
        engine.check_given("crop", ["excluded"])


def test_the_catalog_is_told_of_its_own_key_and_of_no_retry() -> None:
    for stage, there, absent in (
        ("catalog", "catalog.max_bad allows (10%)", "--retry"),
        ("crop", "crop.max_failed allows (10%)", "max_bad"),
    ):
        summary = Summary(stage, "clips", Counter(ok=1, bad_annotation=1), rows=2)
        code, why = exit_status(summary, 0.1)
        assert code == 3
        assert there in why and absent not in why
    assert "use --retry" in why


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


@pytest.mark.parametrize("rubbish", [b"", b"ARROW1", b"rubbish"])
def test_a_damaged_record_is_done_again(
    toy: Toy, without_beam: list[list[str]], rubbish: bytes
) -> None:
    toy.plan(a="ok", b="ok")
    toy.main()
    toy.calls()
    toy.record("a").write_bytes(rubbish)
    assert toy.main() == 0
    assert toy.calls() == ["a"]


@pytest.mark.parametrize("at", [40, 200, -40])
def test_a_torn_record_is_never_a_traceback(
    toy: Toy, without_beam: list[list[str]], at: int
) -> None:
    toy.plan(a="ok")
    toy.main()
    good = toy.record("a").read_bytes()
    toy.record("a").write_bytes(good[:at] + bytes(8) + good[at:][8:])
    records = Records(toy.params.paths.work, "download")
    with contextlib.suppress(pa.ArrowInvalid):
        records.read(storage.digest("toy", "a"))
    toy.record("a").write_bytes(good[: len(good) // 2])
    with pytest.raises(pa.ArrowInvalid):
        records.read(storage.digest("toy", "a"))


def test_where_no_record_is_read_beforehand_a_damaged_one_is_removed_and_said(
    toy: Toy, without_beam: list[list[str]]
) -> None:
    import dataclasses

    toy.plan(a="ok")
    job = dataclasses.replace(toy_stage.prepare(toy.params), always_retry=frozenset())
    engine.run(job)
    toy.record("a").write_bytes(b"ARROW1")
    with pytest.raises(engine.StopStage, match="the record of a was damaged and is removed"):
        engine.run(job)
    assert engine.run(job).statuses == {"ok": 1}


def test_a_record_that_vanishes_stops_the_stage(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "run_items", lambda job, pending: None)
    toy.plan(a="ok")
    with pytest.raises(
        engine.StopStage, match="the runner finished without a; run the stage again"
    ):
        engine.run(toy_stage.prepare(toy.params))
    assert not storage.exists(toy.params.paths.manifest("download"))


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


# --- with Beam itself --------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, PROCESSES], ids=["in_memory", "multi_processing"])
def test_beam_runs_all_items_and_keeps_quiet(
    toy: Toy,
    options: dict[str, Any],
    make_params: Callable[..., Params],
    params_file: Callable[[Params], str],
    without_beam: list[list[str]],
) -> None:
    names = [f"item{n}" for n in range(12)]
    toy.plan(**{name: ("removed" if name == "item3" else "ok", 2) for name in names})
    toy.main()
    alone = storage.read_bytes(toy.params.paths.manifest("download"))
    toy.calls()
    params_file(make_params(beam={"options": options}, paths={"work": str(toy.folder / "other")}))
    done = toy.command()
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(toy.calls()) == sorted(names)
    assert storage.read_bytes(toy.params.paths.manifest("download")) == alone


def test_beam_stops_with_the_worker_s_own_line(toy: Toy) -> None:
    toy.plan(**{"a": "ok", "b": "ok", "!": "ok"})
    done = toy.command()
    assert done.returncode == 1
    assert done.stderr == "likeness: toy: the weights are missing\n"


@pytest.mark.parametrize(
    ("runner", "words"),
    [
        ("FlikRunner", "Beam has no runner 'FlikRunner'; did you mean 'FlinkRunner'?"),
        ("x", "Beam has no runner 'x'; known: "),
        ("no.such.Runner", "'no.such.Runner': No module named 'no'"),
        ("pipelines.engine.run", "'pipelines.engine.run': run() missing 1 required positional"),
        ("apache_beam.NoRunner", "'apache_beam.NoRunner': module 'apache_beam' has no attribute"),
    ],
)
def test_an_unknown_runner_is_one_line_also_when_all_is_done(
    toy: Toy,
    without_beam: list[list[str]],
    make_params: Callable[..., Params],
    params_file: Callable[[Params], str],
    capfd: pytest.CaptureFixture[str],
    runner: str,
    words: str,
) -> None:
    toy.plan(a="ok")
    toy.main()
    params_file(make_params(beam={"runner": runner}))
    capfd.readouterr()
    assert toy.main() == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"likeness: beam.runner: {words}")


@pytest.mark.parametrize("runner", ["FnApiRunner", "direct", "toy_stage.ToyRunner"])
def test_runners_go_by_name_and_by_the_path_of_their_class(
    runner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner

    monkeypatch.setattr(toy_stage, "ToyRunner", BundleBasedDirectRunner, raising=False)
    check_runner(runner)
