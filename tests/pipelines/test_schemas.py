"""The manifests' columns."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines import schemas

MANIFEST_SCHEMAS = [
    *(schemas.CATALOG, schemas.DOWNLOADS, schemas.CROPS, schemas.LANDMARKS, schemas.INDEX)
]


@pytest.mark.parametrize("schema", MANIFEST_SCHEMAS)
def test_columns_have_distinct_names_and_a_row_is_told_by_required_ones(
    schema: schemas.pa.Schema,
) -> None:
    assert len(set(schema.names)) == len(schema.names)
    assert not schema.field("video").nullable
    assert not schema.field("source").nullable


def test_place_is_known_to_the_catalog_and_the_index_alone() -> None:
    with_place = [schema for schema in MANIFEST_SCHEMAS if "split" in schema.names]
    assert with_place == [schemas.CATALOG, schemas.INDEX]


def test_every_column_is_described() -> None:
    text = Path(__file__).parents[2].joinpath("docs/dataset.md").read_text()
    head, *sections = text.split("\n## ")
    common = set(re.findall(r"`(\w+)`", head))
    for schema, section in zip(MANIFEST_SCHEMAS, sections, strict=True):
        first = (line.split("|")[1] for line in section.splitlines() if line.startswith("| `"))
        told = {name for cell in first for name in re.findall(r"`(\w+)`", cell)}
        assert told <= set(schema.names), "and nothing that is not there"
        assert set(schema.names) - told <= common
