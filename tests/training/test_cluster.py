"""Training on a real Ray cluster of two raylets, and what happens when parts of it die.

Every run is the real command. Its history must be, bit for bit, that of an undisturbed run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from tiny_setting import SETTING
from tiny_shards import PEOPLE, Shards

from training.device import ONE_ARENA

pytest.importorskip("ray", reason="the extra `train`")

REPO = Path(__file__).resolve().parents[2]
EPOCHS, STEPS = 48, 60  # 5 videos, 4 a step
TOKEN = "of these tests" * 3


@dataclass
class Project:
    """A folder with shards and params."""

    folder: Path

    def __post_init__(self) -> None:
        self.shards = Shards(self.folder / "data", PEOPLE, set())
        self.params: dict[str, Any] = {
            "name": "tiny",
            "catalog": {"metadata": ".", "sources": [{"name": "a", "reader": "mp4"}]},
            "card": {"title": "t", "licence": "other", "description": "d"},
            "setting": "tiny",
            "settings": {"tiny": SETTING | {"epochs": EPOCHS, "batch": 4}},
            "ray": {"workers": 2, "checkpoint_every": 10, "grid_every": 1000, "keep": 3},
        }
        self.save()

    def save(self) -> None:
        (self.folder / "params.yaml").write_text(yaml.safe_dump(self.params))

    def start(self, address: str | None, **more: str) -> subprocess.Popen[str]:
        env = os.environ | {"PYTHONPATH": str(REPO)} | more
        env.pop("RAY_ADDRESS", None)
        if address:
            env["RAY_ADDRESS"] = address
        return subprocess.Popen(
            [sys.executable, "-m", "training.meta_train"],
            cwd=self.folder,
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, address: str | None = None, timeout: float = 240) -> str:
        process = self.start(address)
        out, err = process.communicate(timeout=timeout)
        assert process.returncode == 0, out + err
        return out

    @property
    def run_folder(self) -> Path:
        [folder] = (self.folder / "work" / "runs").iterdir()
        return folder

    def history(self) -> list[dict[str, Any]]:
        runs = self.folder / "work" / "runs"
        found = list(runs.glob("*/history.jsonl")) if runs.exists() else []
        lines = found[0].read_text().splitlines(keepends=True) if found else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def wait_for(self, step: int, process: subprocess.Popen[str]) -> None:
        give_up = time.monotonic() + 180
        while not any(line["step"] >= step for line in self.history()):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < give_up, "training does not get on"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes on this machine: a head that only drives, and one that trains."""
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = TOKEN
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray._raylet import Config
    from ray.cluster_utils import Cluster

    Config.initialize("")  # Ray reads its mode once, when it is imported
    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": 2**27},
    )
    made.add_node(num_cpus=2, object_store_memory=2**27)
    yield made
    made.shutdown()
    del os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "data").mkdir()
    return Project(tmp_path)


@pytest.fixture(scope="module")
def undisturbed(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The history of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "data").mkdir()
    project = Project(folder)
    out = project.run(cluster.address)
    assert f"2 workers on the cluster at {cluster.address}" in out
    history = project.history()
    assert [line["step"] for line in history] == list(range(1, STEPS + 1))
    assert (project.folder / "models" / "tiny.safetensors").is_file()
    return history


def train_workers(project: Project) -> list[psutil.Process]:
    """The processes of Ray that train in a project's folder."""
    processes = psutil.process_iter(["cmdline", "cwd"])
    return [
        process
        for process in processes
        if "RayTrainWorker" in " ".join(process.info["cmdline"] or ())
        and process.info["cwd"] == str(project.folder)
    ]


@pytest.mark.timeout(600)
def test_a_killed_worker_is_replaced_and_nothing_is_lost(
    cluster: Any, project: Project, undisturbed: list[dict[str, Any]]
) -> None:
    process = project.start(cluster.address)
    project.wait_for(23, process)
    worker = train_workers(project)[-1]
    assert worker.environ().items() >= ONE_ARENA.items()
    worker.send_signal(signal.SIGKILL)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, out + err
    assert project.history() == undisturbed


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_kill_are_told(cluster: Any, project: Project, number: int, code: int) -> None:
    process = project.start(cluster.address)
    project.wait_for(3, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert err.strip().splitlines()[-1].startswith("likeness: interrupted"), err
    assert "Traceback" not in err and "SIGTERM received" not in err


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_cannot_be_shown_ends_the_run(cluster: Any, project: Project) -> None:
    project.params["ray"]["max_failures"] = -1
    project.save()
    (project.folder / "metrics").mkdir()
    (project.folder / "metrics" / "training").write_text("a file where the curves should go")
    process = project.start(cluster.address)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1 and "metrics" in err, err
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_driver_goes_on_even_with_a_truncated_newest_checkpoint(
    cluster: Any, project: Project, undisturbed: list[dict[str, Any]]
) -> None:
    process = project.start(cluster.address)
    project.wait_for(33, process)
    process.kill()
    process.communicate()
    gone = time.monotonic() + 60
    while train_workers(project) and time.monotonic() < gone:
        time.sleep(0.2)
    newest = sorted((project.run_folder / "checkpoints").glob("step-*.safetensors"))[-1]
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])

    process = project.start(cluster.address)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert f"{newest.name}: damaged" in err and "passed over" in err
    assert project.history() == undisturbed


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_node_is_made_up_for(
    cluster: Any, project: Project, undisturbed: list[dict[str, Any]]
) -> None:
    [node] = [n for n in cluster.list_all_nodes() if n is not cluster.head_node]
    process = project.start(cluster.address)
    project.wait_for(13, process)
    cluster.remove_node(node, allow_graceful=False)
    cluster.add_node(num_cpus=2, object_store_memory=2**27)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    assert project.history() == undisturbed


@pytest.mark.slow
@pytest.mark.timeout(2400)  # of which the compiler takes minutes
def test_compiled_networks_train_on_two_workers(cluster: Any, tmp_path: Path) -> None:
    histories = []
    for compiled in (False, True):
        folder = tmp_path / str(compiled)
        (folder / "data").mkdir(parents=True)
        project = Project(folder)
        setting = project.params["settings"]["tiny"]
        setting |= {"epochs": 3, "meta": setting.get("meta", {}) | {"compile": compiled}}
        project.save()
        project.run(cluster.address, timeout=1100)
        histories.append(project.history())
    eager, compiled_ones = histories
    assert len(eager) == 4
    for expected, found in zip(eager, compiled_ones, strict=True):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)


def _no_shards(project: Project) -> None:
    (project.folder / "data" / "index.parquet").unlink()


def _uneven(project: Project) -> None:
    project.params["ray"]["workers"] = 3
    project.save()


def _no_weights(project: Project) -> None:
    project.params["settings"]["tiny"]["content"] = {
        "squeezenet": {"weight": 1.0, "url": "none.npz"}
    }
    project.save()


def _greedy(project: Project) -> None:
    project.params["ray"]["gpus_per_worker"] = 1
    project.save()


def _few_frames(project: Project) -> None:
    project.params["settings"]["tiny"]["k"] = 90
    project.save()


def _no_folder(project: Project) -> None:
    (project.folder / "file").touch()
    project.params["paths"] = {"models": "file"}
    project.save()


@pytest.mark.parametrize(
    ("break_it", "code", "words"),
    [
        (_no_shards, 2, "index.parquet: no such file; `dvc repro shard`"),
        (_uneven, 2, "settings.tiny.batch: 4 has no equal parts for ray.workers 3"),
        (_no_weights, 1, "settings.tiny: content.squeezenet: no weights at none.npz"),
        (_few_frames, 2, "settings.tiny: "),
        (_no_folder, 2, "is a file, not a folder"),
        (_greedy, 2, "ray.workers 2 x 1 GPU each, but the cluster has 0 GPU"),
    ],
)
def test_what_cannot_be_trained_is_one_line(
    cluster: Any, project: Project, break_it: Callable[[Project], None], code: int, words: str
) -> None:
    break_it(project)
    process = project.start(cluster.address)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code and words in err
    assert len(err.strip().splitlines()) == 1, err


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999", "nohost"])
def test_an_address_that_does_not_answer_is_one_line(project: Project, address: str) -> None:
    process = project.start(address)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2 and f"no Ray cluster answers at {address} (" in err
    assert len(err.strip().splitlines()) == 1, err


def test_a_cluster_lets_nobody_in_without_its_token(cluster: Any, project: Project) -> None:
    process = project.start(cluster.address, RAY_AUTH_TOKEN="of somebody else" * 3)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert f"the Ray cluster at {cluster.address} lets nobody in (" in err.splitlines()[-1]


def test_the_cluster_of_this_machine_lets_nobody_else_in(project: Project) -> None:
    process = project.start(None)
    project.wait_for(1, process)
    processes = psutil.Process(process.pid).children(recursive=True)
    [server] = [one for one in processes if one.name() == "gcs_server"]
    [port] = {one.laddr.port for one in server.net_connections() if one.status == "LISTEN"}
    ask = [Path(sys.executable).with_name("ray"), "status", "--address", f"127.0.0.1:{port}"]
    stranger = os.environ | {"RAY_AUTH_MODE": "disabled"}
    refused = subprocess.run(ask, env=stranger, capture_output=True, text=True, check=False)
    assert process.poll() is None, "it ended before anybody asked"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert refused.returncode and "AuthenticationError" in refused.stderr, refused.stderr


def test_more_workers_than_this_machine_has_cores_are_not_started(project: Project) -> None:
    project.params["ray"] |= {"workers": 100}
    project.params["settings"]["tiny"]["batch"] = 100
    project.save()
    process = project.start(None)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2 and "ray.workers is 100, but this machine has " in err
    assert len(err.strip().splitlines()) == 1, err
