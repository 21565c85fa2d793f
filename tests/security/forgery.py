"""What an attacker writes: a pickle that leaves a mark, and manifests with other words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines import manifest
from pipelines.manifest import ManifestReader, ManifestWriter
from pipelines.params import Params

Row = dict[str, Any]


class Payload:
    """Unpickled, it leaves a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def rewrite(params: Params, stage: str, how: Callable[[Row], Any]) -> None:
    url = params.paths.manifest(stage)
    schema = ManifestReader(url)._file.schema_arrow
    rows = manifest.read(url).to_pylist()
    for row in rows:
        how(row)
    with ManifestWriter(url, schema) as writer:
        writer.write(pa.Table.from_pylist(rows, schema=schema))
