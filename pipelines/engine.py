"""Runs a stage: what is not done yet goes to Beam, and the manifest comes from the records.

A stage is a list of *items* (a video with its clips, or a shard) and a worker that turns an
item into manifest rows. Beam elements are items, never pixels. A finished item leaves a
*record*: its rows, in a file named by the digest of everything that decides them. Records
make a stage resumable on any runner without a shuffle of rows: what has a record is done, and the
manifest is written from the records in the order of the items, so it has the same bytes
whatever the runner, the number of workers or the history. An item without a record, or with
another number of rows than its input, stops the stage.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from pipelines import progress, storage
from pipelines.command import arguments, guarded
from pipelines.errors import StopStage, UserError
from pipelines.job import Item, Job
from pipelines.manifest import ManifestWriter
from pipelines.params import Params, load
from pipelines.records import Records, statuses_of
from pipelines.runner import check_runner, run_items
from pipelines.statuses import STATUS, Status, parse_statuses
from pipelines.summary import Summary, exit_status, write_metrics

RETRY_GROUPS = {"transient", "failed"}


def pending_items(job: Job, retry: frozenset[Status]) -> list[Item]:
    """Items without a record or whose files are gone, and those in a status to try again."""
    work = job.params.paths.work
    records = Records(work, job.stage)
    present = records.present()
    again = retry | job.always_retry
    files = dict(storage.sizes_below(storage.join(work, job.folder))) if job.folder else {}

    if not again and job.folder is None and job.is_done is None:
        return [item for item in job.items if item.fingerprint not in present]
    kept = [item for item in job.items if item.fingerprint in present]
    calls = records.reads(item.fingerprint for item in kept)

    def done(read: Callable[[], tuple[pa.Table, float]]) -> bool:
        try:
            rows, _ = read()
        except (pa.ArrowInvalid, OSError):
            return False
        if again and not again.isdisjoint(statuses_of(_judged(job, rows))):
            return False
        if job.folder and not _are_there(rows, job.folder, files):
            return False
        return job.is_done is None or job.is_done(rows)

    intact = {item.fingerprint for item, read in zip(kept, calls, strict=True) if done(read)}
    return [item for item in job.items if item.fingerprint not in intact]


def _are_there(rows: pa.Table, folder: str, files: Mapping[str, int]) -> bool:
    """Are the rows' files in a folder of the work folder whole? A mirror's own are not ours.

    Where the machine went down, a file may have lost the bytes that its record tells of.
    """
    paths = rows.column("path").to_pylist()
    sizes = rows.column("bytes").to_pylist() if "bytes" in rows.column_names else None
    for path, size in zip(paths, sizes or [None] * len(paths), strict=True):
        if path is not None and path.startswith(f"{folder}/"):
            there = files.get(path.rpartition("/")[2])
            if there is None or (size is not None and there != size):
                return False
    return True


def _judged(job: Job, rows: pa.Table) -> pa.Table:
    return job.judge(rows) if job.judge else rows


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
            rows = _judged(job, rows.slice(first, span.rows))
            writer.write(rows)
            summary.statuses.update(statuses_of(rows))
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
    return rows.replace_schema_metadata(None), seconds


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
        run_items(job, pending)
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
