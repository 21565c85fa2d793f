"""Where the clips went: every loss from the catalog to the shards, counted in clips.

One pass over the manifests. A clip whose video was not downloaded is counted under the
download's own status, so that each clip of the catalog is counted exactly once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import UserError
from pipelines.manifest import ManifestReader
from pipelines.params import Params
from pipelines.statuses import STATUS, Status

STEPS = ("catalog", "download", "crop", "landmarks")


@dataclass
class Step:
    """One stage: clips in, clips lost by status, the rest handed on."""

    stage: str
    unit: str
    """What a row of its manifest is."""
    clips_in: int = 0
    rows: Counter[str] = field(default_factory=Counter)
    """Manifest rows by status."""
    losses: Counter[str] = field(default_factory=Counter)
    """Clips lost here, by status."""

    @property
    def clips_out(self) -> int:
        return self.clips_in - self.losses.total()

    @property
    def ordered(self) -> list[tuple[Status, int]]:
        """Losses, the largest first."""
        pairs = sorted(self.losses.items(), key=lambda pair: (-pair[1], pair[0]))
        return [(Status(status), clips) for status, clips in pairs]


@dataclass
class Funnel:
    """The steps in order, and what arrived."""

    steps: list[Step]
    shards: int
    """Clips in the index."""

    @property
    def annotated(self) -> int:
        """Clips at the start."""
        return self.steps[0].clips_in

    def excluded(self) -> int:
        """Clips taken out on request."""
        return self.steps[0].losses[Status.EXCLUDED]

    def csv_rows(self) -> Iterator[tuple[str, str, int]]:
        """(stage, status, clips) for every status met, `ok` first."""
        for step in self.steps:
            yield step.stage, Status.OK, step.clips_out
            for status, clips in step.ordered:
                yield step.stage, status, clips
        yield "shard", Status.OK, self.shards


def read_funnel(params: Params) -> Funnel:
    """Count every manifest. Raises UserError where one is missing or they do not agree."""
    paths = params.paths
    catalog, download, crop, landmarks = (
        Step(stage, "videos" if stage == "download" else "clips") for stage in STEPS
    )
    for batch in _batches(params, "catalog"):
        _count(catalog, batch)
    catalog.clips_in = catalog.rows.total()
    catalog.losses = _lost(catalog.rows)

    # Only what failed is remembered: the crops are asked which clips that cost.
    said: dict[str, str] = {}
    for batch in _batches(params, "download", "video"):
        _count(download, batch)
        said.update(zip(batch["video"].to_pylist(), batch["status"].to_pylist(), strict=True))

    download.clips_in = catalog.clips_out
    for batch in _batches(params, "crop", "source", "person", "video"):
        missing = batch.filter(pc.equal(batch["status"], Status.SOURCE_MISSING))
        blamed = [_blame(said, row) for row in missing.to_pylist()]
        download.losses.update(status for status in blamed if status)
        _count(crop, batch)
    crop.clips_in = download.clips_out
    crop.losses = _lost(crop.rows)
    crop.losses[Status.SOURCE_MISSING] -= download.losses.total()
    crop.losses += Counter()

    for batch in _batches(params, "landmarks"):
        _count(landmarks, batch)
    landmarks.clips_in = crop.clips_out
    landmarks.losses = _lost(landmarks.rows)

    shards = len(ManifestReader(paths.manifest("shard"), ["key"]))
    _agree("catalog", catalog.clips_out, "crops", crop.rows.total())
    _agree("crops", crop.rows[Status.OK], "landmarks", landmarks.rows.total())
    _agree("landmarks", landmarks.rows[Status.OK], "index", shards)
    return Funnel([catalog, download, crop, landmarks], shards)


def _batches(params: Params, stage: str, *names: str) -> Iterator[pa.RecordBatch]:
    yield from ManifestReader(params.paths.manifest(stage), ["status", *names]).batches()


def _count(step: Step, batch: pa.RecordBatch) -> None:
    for entry in batch["status"].value_counts().to_pylist():
        step.rows[entry["values"]] += entry["counts"]


def _lost(rows: Counter[str]) -> Counter[str]:
    return Counter({status: n for status, n in rows.items() if status != Status.OK})


def _blame(said: dict[str, str], clip: dict[str, str]) -> str | None:
    """The status of the failed download that a clip waits for, if it is that."""
    older = f"{clip['person']}/{clip['video']}"  # of ready crops, in manifests of before
    ready = f"{clip['source']}/{older}"  # a site's video has neither row
    status = said.get(ready) or said.get(older) or said.get(clip["video"])
    return None if status == Status.OK else status


def _agree(before: str, handed_on: int, after: str, rows: int) -> None:
    if handed_on != rows:
        raise UserError(
            f"{before}.parquet hands on {handed_on} clips, {after}.parquet has {rows} rows: "
            "they are of different runs; run `dvc repro`"
        )


def kind(status: Status) -> str:
    """How a loss reads: on purpose, worth a retry, or for good."""
    if status in (Status.FILTERED, Status.EXCLUDED):
        return "chosen"
    return "transient" if STATUS[status].transient else "lasting"
