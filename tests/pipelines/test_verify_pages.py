"""Verify reads all of every manifest: what nothing is held against has its page's checksum."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import manifest, verify
from pipelines.errors import UserError
from pipelines.manifest import ManifestWriter
from pipelines.params import Params


@pytest.mark.parametrize("stage", ["catalog", "download", "crop", "landmarks", "shard"])
def test_a_changed_value_in_a_column_that_nothing_is_held_against(told: Params, stage: str) -> None:
    """Its page's checksum tells."""
    path = Path(told.paths.manifest(stage))
    table = manifest.read(str(path))
    width = pa.array([f"{n:06d}" for n in range(len(table))])
    with ManifestWriter(str(path), pa.schema([*table.schema, pa.field("note", pa.string())])) as to:
        to.write(table.append_column("note", width))
    verify.verify(told)
    column = pq.ParquetFile(path).metadata.row_group(0).column(len(pq.read_schema(path)) - 1)
    assert column.path_in_schema == "note"
    whole = bytearray(path.read_bytes())
    whole[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    path.write_bytes(whole)
    with pytest.raises(UserError, match="not a readable manifest"):
        verify.verify(told)
