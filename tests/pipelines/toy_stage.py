"""A stage whose items do as a file of theirs says, to see what the engine makes of it.

Stands in for `download`; a module of its own, so that Beam's worker processes can import it.
"""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path

import pyarrow as pa

from pipelines import engine, storage
from pipelines.errors import StopStage
from pipelines.job import Item, Job
from pipelines.params import Params
from pipelines.statuses import Status

SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), False),
        pa.field("status", pa.string(), False),
        pa.field("detail", pa.string(), False),
    ]
)


class ToyWorker:
    """`plan.json`: name -> (behaviour, rows). `calls.log`: a line per item processed."""

    threads = 1

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def setup(self) -> None:
        """Read the plan."""
        self._plan = json.loads((self._folder / "plan.json").read_text())
        if "!" in self._plan:
            raise StopStage("toy: the weights are missing")

    def blame(self, item: Item, status: Status, detail: str) -> pa.Table:
        """All rows of an item with one status."""
        return _rows(item, status, detail, item.rows)

    def process(self, item: Item, scratch: Path) -> pa.Table:
        """Do as the plan says."""
        with (self._folder / "calls.log").open("a") as log:
            log.write(item.name + "\n")
        behaviour = self._plan[item.name][0]
        (scratch / "half").write_text("written")
        if behaviour == "raise":
            raise ValueError(f"cannot do {item.name}")
        if behaviour == "stop":
            raise StopStage("toy: nothing more can be done")
        if behaviour == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        if behaviour == "short":
            return _rows(item, Status.OK, "", item.rows - 1)
        return _rows(item, Status(behaviour), f"{item.name} is {behaviour}", item.rows)


def _rows(item: Item, status: Status, detail: str, count: int) -> pa.Table:
    rows = [{"name": item.name, "status": str(status), "detail": detail}] * count
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def prepare(params: Params) -> Job:
    """One item per line of the plan; an item's digest is its name's alone."""
    folder = Path(params.catalog.metadata)
    plan = json.loads((folder / "plan.json").read_text())
    items = [
        Item(name, storage.digest("toy", name), 0, rows, rows)
        for name, (_, rows) in plan.items()
        if name != "!"
    ]
    return Job(
        stage="download",
        params=params,
        schema=SCHEMA,
        worker=ToyWorker(folder),
        items=items,
        unit="rows",
        max_failed=params.download.max_failed,
        always_retry=frozenset({Status.DEFERRED}),
    )


def main(argv: list[str] | None = None) -> int:
    """The toy's command line."""
    return engine.main(prepare, "A toy.", argv)


if __name__ == "__main__":
    from toy_stage import main

    sys.exit(main())
