"""What a run of a stage came to: its metrics files and its exit code."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from pipelines import storage
from pipelines.command import EXIT_BUDGET, EXIT_OK, EXIT_STOPPED
from pipelines.params import Params
from pipelines.statuses import FAILURES, Status


@dataclass
class Summary:
    """What a run of a stage did."""

    stage: str
    unit: str
    statuses: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    items: int = 0
    done_before: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_mib: float = 0.0
    slowest: list[dict[str, Any]] = field(default_factory=list)

    @property
    def failed(self) -> int:
        return sum(n for status, n in self.statuses.items() if status in FAILURES)


def write_metrics(params: Params, summary: Summary) -> None:
    """metrics/<stage>.json for `dvc metrics`, and the status counts as a plot's data."""
    metrics = {
        "rows": summary.rows,
        "ok": summary.statuses[Status.OK],
        "failed": summary.failed,
        "statuses": dict(sorted(summary.statuses.items())),
        "items": summary.items,
        "items_done_before": summary.done_before,
        "seconds": round(summary.seconds, 2),
        "cpu_seconds": round(summary.cpu_seconds, 2),
        "rows_per_second": round(summary.rows / max(summary.seconds, 1e-9), 2),
        "peak_mib": round(summary.peak_mib),
        "slowest": summary.slowest,
    }
    folder = params.paths.metrics
    text = json.dumps(metrics, indent=1) + "\n"
    storage.write_bytes(storage.join(folder, f"{summary.stage}.json"), text.encode())
    plot = "status,rows\n" + "".join(f"{s},{n}\n" for s, n in sorted(summary.statuses.items()))
    storage.write_bytes(storage.join(folder, f"{summary.stage}.csv"), plot.encode())


def exit_status(summary: Summary, max_failed: float) -> tuple[int, str]:
    """Exit code and, when it is not 0, the one line that says why."""
    if broken := summary.statuses[Status.INTERNAL_ERROR]:
        return EXIT_STOPPED, (
            f"{summary.stage}: {broken} {summary.unit} hit a fault of Likeness itself; "
            "see `detail` in the manifest"
        )
    share = summary.failed / summary.rows if summary.rows else 0.0
    if share > max_failed:
        # The catalog is no Beam stage: it reads everything anew and has no --retry.
        key, again = ("max_failed", "use --retry")
        if summary.stage == "catalog":
            key, again = ("max_bad", "run the catalog again")
        return EXIT_BUDGET, (
            f"{summary.stage}: {summary.failed} of {summary.rows} {summary.unit} failed "
            f"({share:.0%}), more than {summary.stage}.{key} allows ({max_failed:.0%}); "
            f"the manifest is complete: mend the cause and {again}, or raise the budget"
        )
    if (deferred := summary.statuses[Status.DEFERRED]) and max_failed < 1:
        # Else DVC would call the stage done, and never ask for the rest.
        return EXIT_BUDGET, (
            f"{summary.stage}: {deferred} of {summary.rows} {summary.unit} were not asked for, as "
            "the site wants a proof of not being a bot: take fresh cookies and run it again, "
            f"or go on without them with {summary.stage}.max_failed: 1.0"
        )
    return EXIT_OK, ""
