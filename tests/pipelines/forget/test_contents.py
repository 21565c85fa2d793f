"""The search in files of every kind."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
from leaver import LEAVER, clip_row, index_of

from pipelines import storage
from pipelines.forget.contents import Searcher
from pipelines.forget.requests import Request
from pipelines.forget.whose import Forgotten


@pytest.fixture
def searcher() -> Searcher:
    by = [Request("person", LEAVER, 2), Request("person", "_x", 3)]
    body = b"a deleted file"
    return Searcher(Forgotten(by), {(len(body), storage.digest_bytes(body)): by[0]})


def tar_of(path: Path, **members: bytes) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name.replace("__", "."))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("person", [LEAVER, "_x"])
def test_tables_and_tars_by_meaning(searcher: Searcher, tmp_path: Path, person: str) -> None:
    """Ids of any length, compressed or not."""
    line = "line 2" if person == LEAVER else "line 3"
    facts = json.dumps({"person": person, "video": "v", "key": f"{person}_v_1"}).encode()
    files = [
        index_of(tmp_path / "index.parquet", person),
        tar_of(tmp_path / "a.tar", one__jpg=b"jpg", one__json=facts),
    ]
    with pa.OSFile(str(tmp_path / "r.arrow"), "wb") as sink:
        table = pa.Table.from_pylist([clip_row(person, "v", "1", None)])
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(sink, table.schema, options=options) as writer:
            writer.write_table(table)
    for path in [*files, tmp_path / "r.arrow"]:
        found = searcher.look(path, path.name)
        assert found
        assert line in found
    assert searcher.look(index_of(tmp_path / "b.parquet", "id00002"), "b.parquet") is None
    other = facts.replace(person.encode(), b"id00002")
    assert searcher.look(tar_of(tmp_path / "b.tar", one__json=other), "b.tar") is None


def test_other_files(searcher: Searcher, tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data, words in (
        (b"\xff\xd8 pixels id00001 pixels", "names the person of line 2"),
        (b"a deleted file", "it is a file of the person of line 2"),
        (b"PAR1 cut short", "cannot be read"),
        (b"nothing", None),
        (b"", None),
        (b"x_x", None),
    ):
        path.write_bytes(data)
        found = searcher.look(path, "file")
        assert (found is None) if words is None else (words in str(found))
    assert "its name" in str(searcher.look(path, "grids/id00001.png"))
    # What is reported never repeats the id: reports get kept.
    assert "id00001" not in str(searcher.look(path, "grids/id00001.png"))
