"""Records that are damaged or gone."""

from __future__ import annotations

import contextlib

import pyarrow as pa
import pytest
import toy_stage
from toy_folder import Toy

from pipelines import engine, storage
from pipelines.records import Records


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


def test_a_changed_bit_of_a_record_is_never_another_row(
    toy: Toy, without_beam: list[list[str]]
) -> None:
    toy.plan(a=("ok", 40))
    toy.main()
    records, name = Records(toy.params.paths.work, "download"), storage.digest("toy", "a")
    good, rows = toy.record("a").read_bytes(), records.read(name)[0]
    told = 0
    for at in range(0, len(good), 3):
        toy.record("a").write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
        try:
            assert records.read(name)[0].equals(rows)
        except pa.ArrowInvalid:
            told += 1
    assert told


def test_a_record_of_an_older_version_is_read(toy: Toy, without_beam: list[list[str]]) -> None:
    toy.plan(a="ok")
    toy.main()
    rows = pa.ipc.open_file(toy.record("a").read_bytes()).read_all()
    old = rows.replace_schema_metadata({"seconds": "1.5"})
    with pa.ipc.new_file(toy.record("a"), old.schema) as writer:
        writer.write_table(old)
    read = Records(toy.params.paths.work, "download").read(storage.digest("toy", "a"))
    assert read == (rows.replace_schema_metadata(None), 1.5)


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
