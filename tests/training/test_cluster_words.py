"""What the driver says of a cluster, without one."""

from __future__ import annotations

import threading
from argparse import Namespace
from typing import Any

import pytest
from tiny_run import run_of
from tiny_shards import Shards

from pipelines import storage
from pipelines.errors import UserError
from pipelines.params.training import Ray
from pipelines.work_folder import RUN_LOCK
from training import cluster


def test_the_cause_is_told_and_not_who_waited_for_it() -> None:
    failures = {
        0: RuntimeError("RuntimeError: [gloo] Connection closed by peer [10.0.0.2]:1234"),
        5: RuntimeError("Traceback ...\ntorch.OutOfMemoryError: CUDA out of memory"),
    }
    error: Any = Namespace(worker_failures=failures)
    assert cluster._reason(error) == "worker 5: torch.OutOfMemoryError: CUDA out of memory"
    del failures[5]
    assert cluster._reason(error).startswith("worker 0: RuntimeError: [gloo]")


@pytest.mark.parametrize(
    ("workers", "cpus", "words"),
    [
        (16, 8, r"of workers with 8 CPU, 1 GPU each the cluster's nodes take 14 \(64 CPU, 0 GPU; "),
        (17, 1, "17 x 1 GPU each, but the cluster has 16 GPU"),
    ],
)
def test_a_worker_does_not_stretch_over_nodes(
    monkeypatch: pytest.MonkeyPatch, workers: int, cpus: int, words: str
) -> None:
    head, node = {"CPU": 64.0}, {"CPU": 60.0, "GPU": 8.0}
    nodes = [{"Alive": True, "Resources": resources} for resources in (head, node, node)]
    nodes.append({"Alive": False, "Resources": node})
    monkeypatch.setattr(cluster.ray, "nodes", lambda: nodes)
    params = Ray(workers=workers, cpus_per_worker=cpus, gpus_per_worker=1)
    with pytest.raises(UserError, match=words):
        cluster._check_size(params)
    cluster._check_size(params.model_copy(update={"workers": 14}))


def test_silence_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster, "SILENT", 0.05)
    monkeypatch.setattr(cluster, "POLL", 0.01)
    looked = threading.Event()
    looks = 0

    def nothing(_: Any) -> list[Any]:
        nonlocal looks
        looks += 1
        if looks > 20:
            looked.set()
        return []

    monkeypatch.setattr(cluster, "_waiting", nothing)
    listener = cluster.Listener(None, print, print)
    listener.start()
    assert looked.wait(10)
    listener.close()
    assert listener.error is None
    assert "nothing heard of the workers" in capsys.readouterr().err


def test_a_folder_that_is_not_shared_is_told(shards: Shards) -> None:
    run = run_of(shards)
    with pytest.raises(UserError, match=r"paths\.work must be one folder that all nodes share"):
        cluster._check_shared(run)
    folder = storage.local_path(run.folder)
    folder.mkdir(parents=True)
    (folder / RUN_LOCK).touch()
    cluster._check_shared(run)


def test_a_temporary_folder_too_long_for_ray_s_sockets_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def init(*_: Any, **__: Any) -> None:
        raise OSError("validate_socket_filename failed: AF_UNIX path length cannot exceed 107")

    monkeypatch.setattr(cluster.ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a token of this test")
    with (
        pytest.raises(UserError, match="set TMPDIR to a folder with a shorter one"),
        cluster.connected(Ray()),
    ):
        pass
