"""Runs a stage on Beam: the only place that builds Beam options.

A stage is a list of *items* (a video with its clips, or a shard) and a worker that turns an
item into manifest rows. Beam elements are items, never pixels. A finished item leaves a
*record*: its rows, in a file named by the digest of everything that decides them. Records
make a stage resumable on any runner without a shuffle: what has a record is done, and the
manifest is written from the records in the order of the items, so it has the same bytes
whatever the runner, the number of workers or the history. An item without a record, or with
another number of rows than its input, stops the stage.
"""

from __future__ import annotations

import contextlib
import json
import logging
import resource
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import pyarrow as pa

from pipelines import progress

progress.mute_import_chatter()

import apache_beam as beam  # noqa: E402
import grpc  # type: ignore[import-untyped]  # noqa: E402
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions  # noqa: E402
from apache_beam.runners.runner import create_runner  # noqa: E402

from pipelines import storage  # noqa: E402
from pipelines.attend import WorkerLost, attend  # noqa: E402
from pipelines.command import (  # noqa: E402
    EXIT_BUDGET,
    EXIT_OK,
    EXIT_STOPPED,
    arguments,
    guarded,
)
from pipelines.errors import (  # noqa: E402
    FATAL_ERRNOS,
    StopStage,
    UserError,
    clean_detail,
    nearest,
    redact,
)
from pipelines.manifest import ManifestWriter  # noqa: E402
from pipelines.params import Params, load  # noqa: E402
from pipelines.records import Records  # noqa: E402
from pipelines.schemas import FAILURES, STATUS, Status, parse_statuses  # noqa: E402

LOCAL_RUNNERS = {"FnApiRunner", "DirectRunner", "BundleBasedDirectRunner", "PrismRunner"}
RETRY_GROUPS = {"transient", "failed"}


class Span(NamedTuple):
    """Rows [start, stop) of the stage's input manifest, and the manifest rows they come out as."""

    start: int
    stop: int
    rows: int


@dataclass(frozen=True, slots=True)
class Item:
    """One unit of work: rows [start, stop) of the stage's input manifest."""

    name: str
    fingerprint: str
    """Digest of everything that decides the item's rows: inputs, params, kernel version."""
    start: int
    stop: int
    rows: int
    """Manifest rows that [start, stop) comes out as."""
    also: tuple[Span, ...] = ()
    """Further spans, later in the input: a video's clips of another person or source."""

    @property
    def spans(self) -> tuple[Span, ...]:
        """All its spans, in the order of the input and of the rows it comes out as."""
        return Span(self.start, self.stop, self.rows), *self.also

    @property
    def total(self) -> int:
        """Manifest rows it must come out as."""
        return sum(span.rows for span in self.spans)


class Worker(Protocol):
    """Turns items into manifest rows. Pickled to Beam's workers; `setup` runs once in each."""

    threads: int

    def setup(self) -> None:
        """Load models, open manifests."""

    def process(self, item: Item, scratch: Path) -> pa.Table:
        """The rows of one item. Any exception not for people becomes INTERNAL_ERROR rows."""

    def blame(self, item: Item, status: Status, detail: str) -> pa.Table:
        """The rows of an item that could not be processed."""


@dataclass(frozen=True)
class Job:
    """A stage made ready to run."""

    stage: str
    params: Params
    schema: pa.Schema
    worker: Worker
    items: Sequence[Item]
    unit: str
    max_failed: float
    always_retry: frozenset[Status] = frozenset()
    """Statuses taken up again on every run, asked or not."""
    folder: str | None = None
    """Where in the work folder the rows' `path` lies: a file gone from it is made again."""
    is_done: Callable[[pa.Table], bool] | None = None
    """Further checks that what a record speaks of still holds."""
    finish: Callable[[], None] | None = None
    """Runs after the manifest is complete."""

    @property
    def manifest(self) -> str:
        return self.params.paths.manifest(self.stage)


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


# --- the Beam side ---------------------------------------------------------------------------


class ProcessItems(beam.DoFn):  # type: ignore[misc]
    """Runs the worker over a batch of items and leaves a record for each."""

    def __init__(self, stage: str, worker: Worker, work: str, reports: str | None) -> None:
        self._stage, self._worker, self._work, self._reports = stage, worker, work, reports

    def setup(self) -> None:
        self._reporter = progress.Reporter(self._reports)
        self._records = Records(self._work, self._stage)
        try:
            self._worker.setup()
        except (StopStage, UserError) as stop:
            self._reporter.stop(str(stop))
            raise

    def process(self, batch: Sequence[Item]) -> Iterator[tuple[str, int]]:
        try:
            if self._worker.threads == 1 or len(batch) == 1:
                for item in batch:
                    yield from self._one(item)
            else:
                with ThreadPoolExecutor(self._worker.threads) as pool:
                    for counts in pool.map(self._one, batch):
                        yield from counts
        except (StopStage, UserError) as stop:
            self._reporter.stop(str(stop))
            raise

    def _one(self, item: Item) -> list[tuple[str, int]]:
        started = time.monotonic()
        try:
            with storage.scratch_folder(self._work) as scratch:
                rows = self._worker.process(item, scratch)
                if len(rows) != item.total:
                    raise AssertionError(f"{item.name}: {item.total} rows in, {len(rows)} out")
                seconds = time.monotonic() - started
                self._records.write(item.fingerprint, rows, seconds, scratch)
        except (StopStage, UserError):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in FATAL_ERRNOS:
                what = error.strerror or error
                where = Path(error.filename).parent if error.filename else f"below {self._work}"
                raise StopStage(f"{self._stage}: {what} while writing {where}") from error
            words = redact(traceback.format_exc())
            logging.getLogger(__name__).error("%s: %s", item.name, words)
            detail = clean_detail(f"{type(error).__name__}: {error}")
            rows = self._worker.blame(item, Status.INTERNAL_ERROR, detail)
            self._records.write(item.fingerprint, rows, time.monotonic() - started)
        statuses = Counter(_statuses(rows))
        self._reporter.item(statuses)
        for status, count in statuses.items():
            beam.metrics.Metrics.counter(self._stage, status).inc(count)
        return list(statuses.items())


def check_runner(name: str) -> None:
    """Raises UserError where Beam has no runner of that name; a dotted path names a class."""
    try:
        create_runner(name)  # what beam.Pipeline does first; runners start nothing before `run`
    except ValueError:
        known = StandardOptions.KNOWN_RUNNER_NAMES
        hint = nearest(name, known) or f"; known: {', '.join(known)}"
        raise UserError(f"beam.runner: Beam has no runner {name!r}{hint}") from None
    except Exception as error:  # noqa: BLE001 - a path leads anywhere, classes raise anything
        raise UserError(f"beam.runner: {name!r}: {clean_detail(error)}") from None


def _options(params: Params) -> PipelineOptions:
    options = dict(params.beam.options)
    return PipelineOptions(flags=[], runner=params.beam.runner, **options)


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Keep the local runner's servers to this machine.

    Beam lets them listen on every address for its workers, who are all here; whoever else asks
    would be handed the pipeline, params and all.
    """
    make = grpc.server

    def server(*arguments: Any, **options: Any) -> Any:
        made = make(*arguments, **options)
        bind = made.add_insecure_port
        made.add_insecure_port = lambda address: bind(address.replace("[::]", "localhost"))
        return made

    grpc.server = server
    try:
        yield
    finally:
        grpc.server = make


def _run_pipeline(job: Job, pending: Sequence[Item]) -> None:
    local = job.params.beam.runner in LOCAL_RUNNERS
    rows = sum(item.total for item in pending)
    work = job.params.paths.work
    with progress.watch(job.stage, job.unit, rows, local) as reports:
        size = job.worker.threads * 4 if job.worker.threads > 1 else 1
        batches = [list(pending[i : i + size]) for i in range(0, len(pending), size)]
        process = beam.ParDo(ProcessItems(job.stage, job.worker, work, reports))
        try:
            pipeline = beam.Pipeline(options=_options(job.params))
            _ = (
                pipeline
                | "Items" >> beam.Create(batches, reshuffle=False)
                | "Spread" >> beam.Reshuffle()
                | job.stage.capitalize() >> process
            )
            with _on_loopback():
                attend(lambda: pipeline.run().wait_until_finish())
        except (WorkerLost, KeyboardInterrupt) as lost:
            why = f"{job.stage}: {lost}; finished items are kept, run the stage again"
            progress.Reporter(reports).stop(why)
            if isinstance(lost, KeyboardInterrupt):
                raise
            raise StopStage(why) from None
        except Exception as error:
            raise StopStage(progress.stop_reason(reports) or _beam_words(job, error)) from error


def _beam_words(job: Job, error: Exception) -> str:
    last = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
    return f"{job.stage}: the Beam runner {job.params.beam.runner} failed: {clean_detail(last)}"


# --- the driver ------------------------------------------------------------------------------


def pending_items(job: Job, retry: frozenset[Status]) -> list[Item]:
    """Items without a record or whose files are gone, and those in a status to try again."""
    work = job.params.paths.work
    records = Records(work, job.stage)
    present = records.present()
    again = retry | job.always_retry
    files = set(storage.names_below(storage.join(work, job.folder))) if job.folder else set()

    if not again and job.folder is None and job.is_done is None:
        return [item for item in job.items if item.fingerprint not in present]
    kept = [item for item in job.items if item.fingerprint in present]
    calls = records.reads(item.fingerprint for item in kept)

    def done(read: Callable[[], tuple[pa.Table, float]]) -> bool:
        try:
            rows, _ = read()
        except (pa.ArrowInvalid, OSError):
            return False
        if again and not again.isdisjoint(_statuses(rows)):
            return False
        if job.folder and not files.issuperset(_names(rows, job.folder)):
            return False
        return job.is_done is None or job.is_done(rows)

    intact = {item.fingerprint for item, read in zip(kept, calls, strict=True) if done(read)}
    return [item for item in job.items if item.fingerprint not in intact]


def _names(rows: pa.Table, folder: str) -> Iterator[str]:
    """Names of the rows' files in a folder of the work folder; a mirror's own are not ours."""
    for path in rows.column("path").to_pylist():
        if path is not None and path.startswith(f"{folder}/"):
            yield path.rpartition("/")[2]


def _statuses(rows: pa.Table) -> list[str]:
    """The rows' statuses; a manifest without that column (the index) holds only good rows."""
    if "status" not in rows.column_names:
        return [Status.OK] * len(rows)
    return cast("list[str]", rows.column("status").to_pylist())


def _write_manifest(job: Job, summary: Summary) -> None:
    records = Records(job.params.paths.work, job.stage)
    times: list[tuple[float, str]] = []
    # The manifest follows the input: an item of several spans is read once for each.
    pieces = [
        (span, sum(before.rows for before in item.spans[:n]), item)
        for item in job.items
        for n, span in enumerate(item.spans)
    ]
    pieces.sort(key=lambda piece: piece[0].start)
    with ManifestWriter(job.manifest, job.schema) as writer:
        calls = records.reads(item.fingerprint for _, _, item in pieces)
        for (span, first, item), read in zip(pieces, calls, strict=True):
            rows, seconds = _read_whole(job, records, item, read)
            rows = rows.slice(first, span.rows)
            writer.write(rows)
            summary.statuses.update(_statuses(rows))
            if not first:
                times = sorted([*times, (seconds, item.name)], reverse=True)[:20]
        summary.rows = writer.rows
    summary.slowest = [{"name": name, "seconds": round(seconds, 3)} for seconds, name in times]


def _read_whole(
    job: Job, records: Records, item: Item, read: Callable[[], tuple[pa.Table, float]]
) -> tuple[pa.Table, float]:
    try:
        rows, seconds = read()
    except FileNotFoundError:
        raise StopStage(
            f"{job.stage}: the runner finished without {item.name}; run the stage again"
        ) from None
    except pa.ArrowInvalid:
        storage.remove(records.url(item.fingerprint))
        raise StopStage(
            f"{job.stage}: the record of {item.name} was damaged and is removed; "
            "run the stage again"
        ) from None
    if len(rows) != item.total:
        raise StopStage(f"{job.stage}: {item.name}: {item.total} rows in, {len(rows)} out")
    return rows, seconds


def run(job: Job, retry: frozenset[Status] = frozenset()) -> Summary:
    """Run what is not done yet, write the manifest and the stage's metrics.

    Raises StopStage when nothing more can be done, UserError for a runner that Beam does not
    know. Failed rows do not raise: see `exit_status`.
    """
    check_runner(job.params.beam.runner)
    started, cpu = time.monotonic(), _cpu_seconds()
    paths = job.params.paths
    storage.sweep_scratch(paths.work)
    for folder in (paths.data, paths.metrics):
        storage.sweep_orphans(folder)
    pending = pending_items(job, retry)
    summary = Summary(job.stage, job.unit, items=len(job.items))
    summary.done_before = len(job.items) - len(pending)
    if pending:
        _run_pipeline(job, pending)
    _write_manifest(job, summary)
    if job.finish:
        job.finish()
    summary.seconds = time.monotonic() - started
    summary.cpu_seconds = _cpu_seconds() - cpu
    summary.peak_mib = max(
        resource.getrusage(who).ru_maxrss / 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    write_metrics(job.params, summary)
    return summary


def _cpu_seconds() -> float:
    usage = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usage)


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
    return EXIT_OK, ""


# --- command line ----------------------------------------------------------------------------


def statuses_to_retry(groups: Sequence[str]) -> frozenset[Status]:
    """What the values of --retry name. Raises UserError."""
    words = [word for group in groups for word in group.split(",") if word]
    if groups and not words:
        raise UserError("--retry: name statuses, transient or failed")
    try:
        return parse_statuses(words)
    except ValueError as error:
        raise UserError(f"--retry: {error}") from None


def check_given(stage: str, groups: Sequence[str]) -> None:
    """Raises UserError for a status of --retry that the stage never gives: nothing would be done.

    The groups `transient` and `failed` fit every stage.
    """
    words = {word for group in groups for word in group.split(",") if word} - RETRY_GROUPS
    for word in sorted(words):
        stages = STATUS[Status(word)].stage.split(", ")
        if stage not in stages and "every stage" not in stages:
            does = " and ".join(f"pipelines.{name}" for name in stages)
            verb = "does" if len(stages) == 1 else "do"
            raise UserError(f"--retry: {stage} never gives {word}; {does} {verb}")


def main(prepare: Callable[[Params], Job], doc: str, argv: Sequence[str] | None = None) -> int:
    """The command of a Beam stage; the same code path under `dvc repro`."""
    parser = arguments(doc)
    parser.add_argument(
        "--retry",
        action="append",
        default=[],
        metavar="STATUSES",
        help="redo rows in these statuses too: transient, failed, or names joined by commas",
    )
    options = parser.parse_args(argv)

    def command() -> int:
        retry = statuses_to_retry(options.retry)
        job = prepare(load(options.params))
        check_given(job.stage, options.retry)
        summary = run(job, retry)
        progress.show_summary(summary)
        code, why = exit_status(summary, job.max_failed)
        if why:
            progress.complain(why)
        return code

    return guarded(command)


def remedy(status: str) -> str:
    """What a person does about a status."""
    return STATUS[Status(status)].remedy
