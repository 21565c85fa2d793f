"""The manifests' columns."""

from __future__ import annotations

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
