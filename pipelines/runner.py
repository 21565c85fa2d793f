"""Runs a stage's items on Beam: the only place that knows Beam and builds its options."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipelines import progress

progress.mute_import_chatter()

import apache_beam as beam  # noqa: E402
import grpc  # type: ignore[import-untyped]  # noqa: E402
import pyarrow as pa  # noqa: E402
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions  # noqa: E402
from apache_beam.runners.runner import create_runner  # noqa: E402
from apache_beam.transforms.environments import SubprocessSDKEnvironment  # noqa: E402

from pipelines import storage  # noqa: E402
from pipelines.attend import WorkerLost, attend  # noqa: E402
from pipelines.errors import (  # noqa: E402
    FATAL_ERRNOS,
    StopStage,
    UserError,
    clean_detail,
    nearest,
    redact,
)
from pipelines.job import Item, Job, Worker  # noqa: E402
from pipelines.params import Params  # noqa: E402
from pipelines.records import Records, statuses_of  # noqa: E402
from pipelines.sdk_worker_main import BEAMS_OWN  # noqa: E402
from pipelines.statuses import Status  # noqa: E402

LOCAL_RUNNERS = {"FnApiRunner", "DirectRunner", "BundleBasedDirectRunner", "PrismRunner"}


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
                rows = self._rows(item, scratch)
                seconds = time.monotonic() - started
                self._records.write(item.fingerprint, rows, seconds, scratch)
        except OSError as error:  # of the machine or the work folder; the item's own became rows
            what = error.strerror or error
            # Of a copy that failed the second name is the target's.
            file = error.filename2 or error.filename
            where = Path(file).parent if file else f"below {self._work}"
            raise StopStage(f"{self._stage}: {what} while writing {where}") from error
        statuses = Counter(statuses_of(rows))
        self._reporter.item(statuses)
        for status, count in statuses.items():
            beam.metrics.Metrics.counter(self._stage, status).inc(count)
        return list(statuses.items())

    def _rows(self, item: Item, scratch: Path) -> pa.Table:
        """The item's rows, or as many that tell what went wrong."""
        try:
            rows = self._worker.process(item, scratch)
            if len(rows) != item.total:
                raise AssertionError(f"{item.name}: {item.total} rows in, {len(rows)} out")
            return rows
        except (StopStage, UserError):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in FATAL_ERRNOS:
                raise
            words = redact(traceback.format_exc())
            logging.getLogger(__name__).error("%s: %s", item.name, words)
            detail = clean_detail(f"{type(error).__name__}: {error}")
            return self._worker.blame(item, Status.INTERNAL_ERROR, detail)


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


def build_nothing(params: Params) -> None:
    """Make a pipeline as a stage would, and run nothing. Raises what its runner raises."""
    built = beam.Pipeline(options=_options(params))
    shutil.rmtree(built.local_tempdir, ignore_errors=True)  # Beam does so after a run


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


@contextlib.contextmanager
def _own_workers() -> Iterator[None]:
    """Let Beam start workers that end with this process, and below a folder of any name.

    It hands the interpreter's path to a shell as it is. Without `exec` that shell would be their
    parent, and outlive us.
    """
    make = SubprocessSDKEnvironment.__dict__["from_command_string"]

    def ours(kind: Any, command_string: str) -> Any:
        words = f"{sys.executable} -m {BEAMS_OWN}"
        python = shlex.quote(sys.executable)
        mine = f"exec {python} -m pipelines.sdk_worker_main {os.getpid()}"
        return make.__get__(None, kind)(command_string.replace(words, mine, 1))

    SubprocessSDKEnvironment.from_command_string = classmethod(ours)
    try:
        yield
    finally:
        SubprocessSDKEnvironment.from_command_string = make


def run_items(job: Job, pending: Sequence[Item]) -> None:
    """Leave a record of every item. Raises StopStage where the runner cannot go on."""
    local = job.params.beam.runner in LOCAL_RUNNERS
    rows = sum(item.total for item in pending)
    work = job.params.paths.work
    with progress.watch(job.stage, job.unit, rows, local) as reports:
        size = job.worker.threads * 4 if job.worker.threads > 1 else 1
        batches = [list(pending[i : i + size]) for i in range(0, len(pending), size)]
        process = beam.ParDo(ProcessItems(job.stage, job.worker, work, reports))
        started: list[Any] = []
        try:
            pipeline = beam.Pipeline(options=_options(job.params))
            _ = (
                pipeline
                | "Items" >> beam.Create(batches, reshuffle=False)
                | "Spread" >> beam.Reshuffle()
                | job.stage.capitalize() >> process
            )
            with _on_loopback(), _own_workers():
                attend(lambda: _finished(pipeline, started))
        except (WorkerLost, KeyboardInterrupt) as lost:
            if not local:  # or it would go on beside the next run
                for result in started:
                    with contextlib.suppress(Exception):  # not every runner can
                        result.cancel()
            why = f"{job.stage}: {lost}; finished items are kept, run the stage again"
            progress.Reporter(reports).stop(why)
            if isinstance(lost, KeyboardInterrupt):
                raise
            raise StopStage(why) from None
        except Exception as error:
            raise StopStage(progress.stop_reason(reports) or _beam_words(job, error)) from error


def _finished(pipeline: beam.Pipeline, started: list[Any]) -> None:
    started.append(pipeline.run())
    started[0].wait_until_finish()


def _beam_words(job: Job, error: Exception) -> str:
    last = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
    return f"{job.stage}: the Beam runner {job.params.beam.runner} failed: {clean_detail(last)}"
