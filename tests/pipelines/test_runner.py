"""The engine with Beam itself."""

from __future__ import annotations

import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import toy_stage
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner
from toy_folder import Toy

from pipelines import storage
from pipelines.params import Params
from pipelines.runner import check_runner, run_items

PROCESSES = {"direct_running_mode": "multi_processing", "direct_num_workers": 2}


@pytest.mark.parametrize("options", [{}, PROCESSES], ids=["in_memory", "multi_processing"])
def test_beam_runs_all_items_and_keeps_quiet(
    toy: Toy,
    options: dict[str, Any],
    make_params: Callable[..., Params],
    params_file: Callable[[Params], str],
    without_beam: list[list[str]],
) -> None:
    names = [f"item{n}" for n in range(12)]
    toy.plan(**{name: ("removed" if name == "item3" else "ok", 2) for name in names})
    toy.main()
    alone = storage.read_bytes(toy.params.paths.manifest("download"))
    toy.calls()
    params_file(make_params(beam={"options": options}, paths={"work": str(toy.folder / "other")}))
    done = toy.command()
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(toy.calls()) == sorted(names)
    assert storage.read_bytes(toy.params.paths.manifest("download")) == alone


def test_worker_processes_start_below_a_folder_of_any_name(
    toy: Toy,
    make_params: Callable[..., Params],
    params_file: Callable[[Params], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = toy.folder / "it's a $HOME; été"
    venv.create(folder, symlinks=True)
    places = {"base": str(folder), "platbase": str(folder)}
    packages = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    Path(sysconfig.get_path("purelib", vars=places), "ours.pth").write_text(packages)
    monkeypatch.setattr(sys, "executable", str(folder / "bin" / "python"))
    params_file(make_params(beam={"options": PROCESSES}))
    toy.plan(a="ok", b="ok")
    done = toy.command()
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(toy.calls()) == ["a", "b"]


def test_workers_do_not_outlive_a_driver_that_was_killed(
    toy: Toy, make_params: Callable[..., Params], params_file: Callable[[Params], str]
) -> None:
    """Also where it is killed before they have met: then Beam's own would wait for ever."""
    params_file(make_params(beam={"options": PROCESSES}))
    toy.plan(a="ok", b="ok")
    driver = toy.start()
    workers: list[psutil.Process] = []
    while not workers and driver.poll() is None:
        every = psutil.Process(driver.pid).children(recursive=True)
        workers = [p for p in every if "pipelines.sdk_worker_main" in p.cmdline()]
    assert workers
    driver.kill()
    driver.wait()
    _, left = psutil.wait_procs(workers, timeout=20)
    assert left == []


def test_beam_stops_with_the_worker_s_own_line(toy: Toy) -> None:
    toy.plan(**{"a": "ok", "b": "ok", "!": "ok"})
    done = toy.command()
    assert done.returncode == 1
    assert done.stderr == "likeness: toy: the weights are missing\n"


@pytest.mark.parametrize(
    ("runner", "words"),
    [
        ("FlikRunner", "Beam has no runner 'FlikRunner'; did you mean 'FlinkRunner'?"),
        ("x", "Beam has no runner 'x'; known: "),
        ("no.such.Runner", "'no.such.Runner': No module named 'no'"),
        ("pipelines.engine.run", "'pipelines.engine.run': run() missing 1 required positional"),
        ("apache_beam.NoRunner", "'apache_beam.NoRunner': module 'apache_beam' has no attribute"),
    ],
)
def test_an_unknown_runner_is_one_line_also_when_all_is_done(
    toy: Toy,
    without_beam: list[list[str]],
    make_params: Callable[..., Params],
    params_file: Callable[[Params], str],
    capfd: pytest.CaptureFixture[str],
    runner: str,
    words: str,
) -> None:
    toy.plan(a="ok")
    toy.main()
    params_file(make_params(beam={"runner": runner}))
    capfd.readouterr()
    assert toy.main() == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"likeness: beam.runner: {words}")


@pytest.mark.parametrize("runner", ["FnApiRunner", "direct", "toy_stage.ToyRunner"])
def test_runners_go_by_name_and_by_the_path_of_their_class(
    runner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy_stage, "ToyRunner", BundleBasedDirectRunner, raising=False)
    check_runner(runner)


def test_a_job_elsewhere_is_cancelled_with_its_stage(
    toy: Toy, make_params: Callable[..., Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would go on beside the next run, and undo a takedown."""
    toy.plan(a="ok")
    cancelled: list[bool] = []

    class Elsewhere(BundleBasedDirectRunner):
        def run_pipeline(self, pipeline: Any, options: Any) -> Any:
            return self

        def wait_until_finish(self) -> None:
            raise KeyboardInterrupt

        def cancel(self) -> None:
            cancelled.append(True)

    monkeypatch.setattr(toy_stage, "Elsewhere", Elsewhere, raising=False)
    job = toy_stage.prepare(make_params(beam={"runner": "toy_stage.Elsewhere"}))
    with pytest.raises(KeyboardInterrupt):
        run_items(job, job.items)
    assert cancelled == [True]
