"""Ray Train: the only place that imports Ray.

The driver starts workers that run `training.trainer.Worker`; their events come back through a
queue and are handed to whoever shows them. A worker or a node that dies is replaced by Ray, and
all workers go on from the newest checkpoint; when the driver dies, the same command does.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import secrets
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")

import ray
import ray.train
import torch
from ray.exceptions import AuthenticationError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines import progress, storage
from pipelines.errors import StopStage, UserError
from pipelines.params.training import Ray
from pipelines.work_folder import RUN_LOCK
from training.device import ONE_ARENA, tune
from training.events import Event, Report
from training.meta import Reducer
from training.parallel import DistributedReducer
from training.run import Run
from training.trainer import Worker

TIMEOUT = 6 * 3600
"""Seconds that workers wait for one another: one may still be fetching all shards. Ray itself
sees a dead worker or node long before."""
POLL = 0.5
"""Seconds between two looks at the workers' events."""
SILENT = 600.0
"""Seconds without any of them after which that is told."""


@contextlib.contextmanager
def connected(params: Ray) -> Iterator[str]:
    """A connection to the cluster of params or `RAY_ADDRESS`, or to one of this machine.

    Yields words for people. Raises UserError where the address does not answer.
    """
    address = params.address or os.environ.get("RAY_ADDRESS") or "local"
    if address.startswith("ray://"):
        raise UserError(
            f"ray.address {address}: Ray Train needs a driver inside the cluster; give HOST:6379, "
            "its own address, or hand the command to `ray job submit`"
        )
    own: dict[str, Any] = {}
    if address == "local":
        own = {
            "num_cpus": math.ceil(params.workers * params.cpus_per_worker),
            "include_dashboard": False,
        }
        if params.workers > (cores := os.cpu_count() or 1):
            raise UserError(
                f"ray.workers is {params.workers}, but this machine has {cores} CPUs: lower it, or "
                "name a cluster in ray.address"
            )
        # Ray listens on all of this machine's addresses, and who gets in runs code as this user:
        # of the cluster that this command starts only its own processes know the token.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    _knock(address)
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        context = ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (AuthenticationError, ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
        raise _not_joined(address, str(error).strip().splitlines()[0]) from error
    except OSError as error:
        if "AF_UNIX" not in str(error):
            raise
        folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
        raise UserError(
            f"Ray cannot start: the names of its sockets below {folder} would be too long; set "
            "TMPDIR to a folder with a shorter one"
        ) from error
    if callable(terminate) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminate)  # Ray's own prints a stack first
    try:
        where = "this machine" if own else f"the cluster at {context.address_info['gcs_address']}"
        using = f"{params.gpus_per_worker:g} GPU each" if params.gpus_per_worker else "CPU"
        unused = ray.cluster_resources().get("GPU", 0) and not params.gpus_per_worker
        hint = "; a GPU is there, but ray.gpus_per_worker is 0" if unused else ""
        yield f"{params.workers} worker{'s' * (params.workers > 1)} on {where} ({using}{hint})"
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Ray itself would try for minutes at an address where nothing listens."""
    if address in ("local", "auto"):
        return
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        raise _no_cluster(address, "no HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, getattr(error, "strerror", None) or str(error)) from error


def _no_cluster(address: str, reason: str) -> UserError:
    return UserError(
        f"no Ray cluster answers at {address} ({reason}); start one with `ray start --head`, "
        "correct ray.address or RAY_ADDRESS, or unset both to train on this machine"
    )


def _not_joined(address: str, reason: str) -> UserError:
    if address == "local":
        return UserError(f"Ray cannot start on this machine: {reason}")
    return UserError(
        f"the Ray cluster at {address} lets nobody in ({reason}); where it was started with "
        "RAY_AUTH_MODE=token, export that here too, and its token as RAY_AUTH_TOKEN or in "
        "~/.ray/auth_token (`ray get-auth-token` prints it)"
    )


def fit(run: Run, params: Ray, show: Report) -> None:
    """Train on the connected cluster until the run is done or stopped; `show` gets every event.

    Raises UserError where the cluster is too small, StopStage where workers died more often
    than `max_failures` allows, and what `show` raised: nothing trains on unseen.
    """
    _check_size(params)
    # With the driver, not on some node that may die and take the run's only ear along.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
    trainer = TorchTrainer(
        _work,
        train_loop_config={
            "run": run,
            "queue": queue,
            "threads": int(params.cpus_per_worker),
            "folder": str(Path.cwd()),
        },
        torch_config=TorchConfig(
            backend="nccl" if params.gpus_per_worker else "gloo", timeout_s=TIMEOUT
        ),
        scaling_config=ScalingConfig(
            num_workers=params.workers,
            use_gpu=params.gpus_per_worker > 0,
            resources_per_worker=_resources(params),
        ),
        run_config=RunConfig(
            name=run.name,
            storage_path=_ray_storage(run),
            failure_config=FailureConfig(max_failures=params.max_failures),
            worker_runtime_env={} if params.gpus_per_worker else {"env_vars": ONE_ARENA},
        ),
    )
    listener = Listener(queue, show, _interrupt)
    listener.start()
    failure: Exception | None = None
    interrupted = False
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        failure = error
    except (KeyboardInterrupt, SystemExit):  # that Ray makes of it
        interrupted = True
    finally:
        listener.close()
        queue.shutdown()
    if listener.error:
        raise listener.error
    if interrupted:
        raise KeyboardInterrupt
    if failure:
        raise StopStage(
            f"training failed: {_reason(failure)}; checkpoints are kept, the same command goes on "
            f"from the newest. Ray's logs: {_logs()}"
        ) from failure


def _work(config: dict[str, Any]) -> None:
    """What Ray runs in every worker."""
    if Path(config["folder"]).is_dir():
        os.chdir(config["folder"])  # so that relative paths mean what they mean to the driver
    context = ray.train.get_context()
    world = context.get_world_size()
    threads = max(1, config["threads"])
    torch.set_num_threads(threads)
    # Of each worker; inductor's own choice is one for every core of the machine.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(threads))
    queue: Queue = config["queue"]
    device = get_device()
    tune(device)
    worker = Worker(
        run=config["run"],
        rank=context.get_world_rank(),
        world=world,
        device=device,
        reducer=DistributedReducer() if world > 1 else Reducer(),
        report=queue.put,
        check=partial(_check_shared, config["run"]),
    )
    worker.train()


def _check_shared(run: Run) -> None:
    """The driver's lock lies in the run's folder: who does not see it looks at another folder."""
    if storage.is_local(run.folder) and not (storage.local_path(run.folder) / RUN_LOCK).exists():
        raise UserError(
            f"{run.folder} is not the driver's folder on {socket.gethostname()}: paths.work must "
            "be one folder that all nodes share, or in an object store"
        )


class Listener(threading.Thread):
    """Hands the workers' events to whoever shows them, until it is closed."""

    def __init__(self, queue: Queue, show: Report, stop: Callable[[], None]) -> None:
        """stop: ends the training when `show` raises."""
        super().__init__(daemon=True)
        self._queue, self._show, self._end_training = queue, show, stop
        self._ended = threading.Event()
        self.error: BaseException | None = None
        """What `show` raised."""

    def run(self) -> None:
        """Of the thread."""
        try:
            self._listen()
        except BaseException as error:  # noqa: BLE001 - told by whoever waits for the workers
            self.error = error
            self._end_training()

    def close(self) -> None:
        """Show what is left, and end."""
        self._ended.set()
        self.join(timeout=60)

    def _listen(self) -> None:
        heard = time.monotonic()
        while True:
            last = self._ended.is_set()
            events = _waiting(self._queue)
            for event in events:
                self._show(event)
            if events:
                heard = time.monotonic()
            elif time.monotonic() - heard > SILENT:
                heard = time.monotonic()
                progress.complain(
                    f"meta_train: nothing heard of the workers for {SILENT / 60:.0f} minutes; they "
                    f"prepare, wait for a node, or hang: `ray status` and {_logs()} tell"
                )
            if last and not events:
                return
            if not events:
                self._ended.wait(POLL)


def _interrupt() -> None:
    """As Ctrl-C does: Ray then ends the workers in good order."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def _waiting(queue: Queue) -> list[Event]:
    with contextlib.suppress(Empty, ray.exceptions.RayActorError):
        if count := queue.qsize():
            events: list[Event] = queue.get_nowait_batch(count)
            return events
    return []


def _resources(params: Ray) -> dict[str, float]:
    needs = {"CPU": params.cpus_per_worker}
    return needs | ({"GPU": params.gpus_per_worker} if params.gpus_per_worker else {})


def _check_size(params: Ray) -> None:
    """Ray would wait for ever for what the cluster does not have."""
    needs = _resources(params)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for name, each in needs.items():
        have = sum(node.get(name, 0) for node in nodes)
        if each * params.workers > have:
            raise UserError(
                f"ray.workers {params.workers} x {each:g} {name} each, but the cluster has "
                f"{have:g} {name}: lower ray.workers or ray.{name.lower()}s_per_worker"
            )
    # A worker does not stretch over nodes.
    room = sum(min(int(node.get(name, 0) / needs[name]) for name in needs) for node in nodes)
    if room < params.workers:
        each_node = "; ".join(
            ", ".join(f"{node.get(name, 0):g} {name}" for name in needs) for node in nodes
        )
        worker = ", ".join(f"{each:g} {name}" for name, each in needs.items())
        raise UserError(
            f"ray.workers is {params.workers}, but of workers with {worker} each the cluster's "
            f"nodes take {room} ({each_node}): lower ray.workers or what each of them asks for"
        )


def _ray_storage(run: Run) -> str:
    """Where Ray keeps its own notes of a run: beside ours, seen by all nodes."""
    folder = storage.join(run.folder, "ray")
    return str(Path(storage.local_path(folder)).resolve()) if storage.is_local(folder) else folder


def _reason(error: Exception) -> str:
    failures = getattr(error, "worker_failures", {}) or {}
    told = []
    for rank, failure in sorted(failures.items()):
        lines = [line for line in str(failure).splitlines() if line.strip()]
        told.append(f"worker {rank}: {lines[-1].strip() if lines else type(failure).__name__}")
    # Where one dies the others fail as well, for it does not answer them: that is not the cause.
    told.sort(key=lambda line: bool(_BEREAVED.search(line)))
    return told[0] if told else str(error).strip().splitlines()[0]


_BEREAVED = re.compile(r"by peer|DistBackendError|NCCL|[Gg]loo|Connection (reset|refused|closed)")


def _logs() -> str:
    node = ray._private.worker._global_node
    return node.get_logs_dir_path() if node else "see `ray logs`"
