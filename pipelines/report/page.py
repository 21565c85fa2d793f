"""The report: one HTML page that tells what a rebuild made, lost and cost.

The page stands alone: styles, drawings, pictures, data and the script that searches them are
inside it. Its own content policy lets it load nothing, and run no script but its own two.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from pipelines import storage
from pipelines.params import MANIFESTS, Params
from pipelines.report.charts import funnel_svg, histogram_svg
from pipelines.report.clip_table import MOST, clip_table
from pipelines.report.contact_sheet import contact_sheet
from pipelines.report.facts import Dataset, Histogram
from pipelines.report.funnel import Funnel, kind
from pipelines.report.templating import render_page
from pipelines.report.verdicts import read_verdicts
from pipelines.report.wordings import status_pages
from pipelines.statuses import STATUS, Status

if TYPE_CHECKING:
    from pipelines.report.training import Training

EXCLUDED = re.compile(r"(excluded/)?x[0-9a-f]{16}")
"""What the catalog calls those who were taken out: even that digest is not shown."""

Row = dict[str, Any]


def report(
    params: Params,
    funnel: Funnel,
    dataset: Dataset,
    histograms: Sequence[Histogram],
    training: Training | None = None,
) -> bytes:
    """The page's bytes; with `training`, also the runs that used the dataset."""
    from markupsafe import Markup

    metrics = {stage: read_metrics(params, stage) for stage in MANIFESTS}
    verdicts = read_verdicts(params.paths.data)
    listed = pc.sum(pc.not_equal(verdicts["status"], Status.EXCLUDED)).as_py() or 0
    return render_page(
        "report.html.j2",
        name=params.name,
        title=params.card.title,
        description=params.card.description,
        backend=params.landmarks.backend,
        total=dataset.total,
        digest=dataset.digest,
        splits=dataset.splits,
        split_words=dataset.split_words,
        funnel=funnel,
        annotated=funnel.annotated,
        # The drawings escape what they show themselves, and the table's JSON holds no `<`.
        funnel_svg=Markup(funnel_svg(funnel)),
        histograms=[(chart, Markup(histogram_svg(chart))) for chart in histograms],
        rows=Markup(clip_table(params, verdicts)),
        statuses=list(statuses(funnel)),
        pages=status_pages(funnel, verdicts),
        listed=listed,
        shown=min(listed, MOST),
        thumbnails=list(contact_sheet(params)),
        timings=[timing(stage, found) for stage, found in metrics.items()],
        slowest={stage: slowest(found) for stage, found in metrics.items() if slowest(found)},
        missing=[stage for stage, found in metrics.items() if found is None],
        training=training,
        made_by=f"python -m pipelines.{'card' if training is None else 'report'}",
    )


def statuses(funnel: Funnel) -> Iterator[Row]:
    """Every status met, stage by stage: rows of the manifest, clips it cost, what to do."""
    for step in funnel.steps:
        for word in sorted(step.rows, key=lambda w: (w != Status.OK, -step.rows[w], w)):
            status = Status(word)
            yield {
                "stage": step.stage,
                "status": status,
                "kind": "ok" if status == Status.OK else kind(status),
                "rows": step.rows[word],
                "unit": step.unit,
                "share": step.rows[word] / step.rows.total(),
                # A clip without its video is counted where the video was lost.
                "clips": None if status == Status.OK else step.losses[word],
                "meaning": STATUS[status].meaning,
                "remedy": STATUS[status].remedy,
            }


def read_metrics(params: Params, stage: str) -> Row | None:
    """metrics/<stage>.json; None where it is missing or no JSON object."""
    try:
        found = json.loads(storage.read_bytes(storage.join(params.paths.metrics, f"{stage}.json")))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def timing(stage: str, metrics: Row | None) -> Row:
    """What a stage's last run cost; a missing number stays None."""
    found = metrics or {}
    row: Row = {"stage": stage, "known": metrics is not None}
    names = ("rows", "items", "items_done_before", "seconds", "cpu_seconds", "peak_mib")
    for name in (*names, "rows_per_second"):
        value = found.get(name)
        row[name] = value if isinstance(value, int | float) else None
    if row["items_done_before"]:
        # Rows kept from an earlier run took no time in this one: a rate would flatter.
        row["rows_per_second"] = None
    return row


def slowest(metrics: Row | None) -> list[Row]:
    """The slowest items of a stage."""
    items = (metrics or {}).get("slowest")
    return [
        {"name": str(item["name"]), "seconds": float(item["seconds"])}
        for item in (items if isinstance(items, list) else [])
        if isinstance(item, dict)
        and isinstance(item.get("seconds"), int | float)
        and not EXCLUDED.fullmatch(str(item.get("name")))
        and "name" in item
    ]
