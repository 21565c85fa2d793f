"""Meta-train on the shards: `python -m training.meta_train`, a DVC stage.

Reads index.parquet and the tars of split train, writes `models/<setting>.safetensors` and the
curves in `metrics/training/`. Between, all lives in `work/runs/<run>/`: checkpoints, history,
TensorBoard, picture grids. However it is stopped, the same command goes on from the newest
checkpoint. Trains on this machine, or on the Ray cluster of `ray.address` or `RAY_ADDRESS`.
"""

from __future__ import annotations

import fcntl
import io
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import outputs, progress, storage
from pipelines.command import EXIT_OK, arguments, guarded
from pipelines.errors import StopStage, UserError
from pipelines.params import Params, load
from pipelines.work_folder import RUN_LOCK
from training import setting as settings
from training.index import ShardIndex
from training.run import SPLIT, Run, plan
from training.trained import default_model


def train(params: Params) -> Run:
    """Train until the setting's epochs are over, and leave the model in `paths.models`.

    Raises UserError for what params or shards lack, StopStage where training cannot go on.
    """
    run = prepare(params)
    others = _others(run, params)
    with _alone(run):
        _train(run, params, others)
    return run


def _train(run: Run, params: Params, others: Sequence[str]) -> None:
    # Late, so that mistakes are told before Ray and TensorBoard have loaded.
    from training import cluster
    from training.board import Board

    folder = run.folder if storage.is_local(run.folder) else f"runs/{run.name}"
    content = " + ".join(sorted(run.setting.content))
    board = Board(storage.local_path(folder), Path(params.paths.metrics, "training"), content)
    progress.say(f"meta_train: {run.setting.about or params.setting}; run {run.folder}")
    if others:
        progress.say(
            f"meta_train: a new run, since setting, dataset or training code are not those of "
            f"{', '.join(others)}"
        )
    started = time.monotonic()
    try:
        with cluster.connected(params.ray) as where:
            progress.say(f"meta_train: {where}")
            cluster.fit(run, params.ray, board)
    finally:
        board.close()
    if board.stopped:
        raise (UserError if board.stopped.mistake else StopStage)(board.stopped.why)
    if board.started is None or board.step != board.started.total:
        raise StopStage(
            f"training ended at step {board.step}, before its last one, and said no word why; the "
            "same command goes on from the newest checkpoint"
        )
    target = default_model(params)
    with storage.atomic(target) as path, storage.open_read(run.model) as body:
        path.write_bytes(body.read())
    made = board.step - board.first
    progress.say(
        f"meta_train: {made} steps in {time.monotonic() - started:.0f} s; now at step "
        f"{board.step}\nmodel    {target}\ngrids    {folder}/grids/newest.png\n"
        f"curves   {params.paths.metrics}/training, tensorboard --logdir {folder}/tensorboard"
    )


@contextmanager
def _alone(run: Run) -> Iterator[None]:
    """Two drivers of one run would mix its checkpoints. The lock goes with the process, however
    that ends; runs in object stores have none."""
    if not storage.is_local(run.folder):
        yield
        return
    place = storage.local_path(run.folder) / RUN_LOCK
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise UserError(
                f"{run.folder}: this run is being trained already, by {lock.read().strip()}"
            ) from None
        except OSError:  # a file system without locks
            pass
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        yield


def _others(run: Run, params: Params) -> list[str]:
    """Runs of the same names that are not gone on with, where this one is new."""
    if not storage.is_local(run.folder) or storage.local_path(run.folder).exists():
        return []
    runs = storage.local_path(run.folder).parent
    every = runs.glob(f"{params.name}-{params.setting}-????????????")
    return sorted(path.name for path in every if (path / "history.jsonl").exists())


def prepare(params: Params) -> Run:
    """The run, after everything that can be checked without workers. Raises as `train`."""
    if params.setting not in params.settings:
        raise UserError("params: `settings` is empty; README, Training, shows one to start from")
    index = params.paths.manifest("shard")
    if not storage.exists(index):
        raise UserError(f"{index}: no such file; `dvc repro shard` or `dvc pull` makes it")
    data = storage.read_bytes(index)
    try:
        pq.ParquetFile(io.BytesIO(data))
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{index} is not a readable manifest ({reason}); delete it and rerun the shard stage"
        ) from None
    for name in ("models", "metrics", "work"):
        outputs.check_folder(f"paths.{name}", getattr(params.paths, name))
    setting = params.settings[params.setting]
    if storage.is_local(index):
        try:
            ShardIndex(storage.local_path(index), SPLIT, setting.k + 1, setting.few_frames)
        except ValueError as error:
            raise UserError(f"settings.{params.setting}: {error}") from None
    setting = settings.pinned(setting, params.setting)
    settings.content_loss(setting.content, f"settings.{params.setting}")
    return plan(params, setting, storage.digest_bytes(data))


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m training.meta_train`."""
    options = arguments(__doc__ or "").parse_args(argv)

    def command() -> int:
        train(load(options.params))
        return EXIT_OK

    return guarded(command)


if __name__ == "__main__":
    sys.exit(main())
