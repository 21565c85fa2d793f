"""Checks of the machine: disk, memory, clock, limits, folders."""

from __future__ import annotations

import importlib
import os
import resource
import shutil
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import psutil

from pipelines import storage
from pipelines.doctor import corpus, plan
from pipelines.doctor.verdict import Verdicts, fail, ok, warn
from pipelines.errors import StopStage, UserError
from pipelines.params import Params
from pipelines.records import Records

GIB = 1024**3
SKEW = 60.0
"""Seconds a clock may be off: signed requests of object stores bear minutes."""
FILES, SHM, TEMPORARY = 1024, GIB, GIB
OLD = 0.05e9
"""Bytes of what nothing reads any more that are worth a word."""


def space(params: Params) -> Verdicts:
    """Free disk and memory against the plan of this catalog."""
    own = corpus.count(params)
    estimate = plan.estimate(params, own, plan.workers_of(params))
    work = storage.local_path(params.paths.work) if storage.is_local(params.paths.work) else None
    past = _past(params) if work else 0.0
    needs: dict[Path, float] = defaultdict(float)
    present: dict[Path, float] = defaultdict(float)
    for folder, need in _folders(params, estimate).items():
        place = _mount(folder)
        needs[place] += need
        # What else lies in a folder makes no room for another.
        present[place] += min(need, _size(folder) - (past if folder == work else 0.0))
    for place, need in sorted(needs.items()):
        there = present[place]
        free = shutil.disk_usage(place).free
        words = f"{_gb(free)} free on {place}, {_gb(need)} needed, {_gb(there)} of it there"
        if work and _mount(work) == place and past > OLD:
            words += f", besides {_gb(past)} of other versions or settings"
            words += " (`python -m pipelines.prune` frees them)"
        left = need - there
        if free < left:
            remedy = "free some, or move paths.work, paths.data or DVC's cache (`dvc cache dir`)"
            yield fail("disk", words, remedy)
        elif free < 1.5 * left:
            yield warn("disk", words, "the plan may be a half off: keep more free")
        else:
            yield ok("disk", words)
    if not needs:
        yield ok("disk", "paths.work and paths.data are not on this machine")
    free = psutil.virtual_memory().available
    words = f"{_gb(free)} available, {_gb(estimate.memory)} needed by {estimate.workers} workers"
    if free < estimate.memory:
        yield fail("memory", words, "lower beam.options.direct_num_workers")
    else:
        yield ok("memory", words)


def _folders(params: Params, estimate: plan.Plan) -> dict[Path, float]:
    """The folders of this machine that the plan fills, and the bytes that it leaves in each."""
    filled: dict[Path, float] = defaultdict(float)
    for stage in estimate.stages:
        in_work = stage.name in ("download", "crop", "landmarks", "meta_train")
        url = params.paths.work if in_work else params.paths.data
        if storage.is_local(url):
            folder = _cache() if stage.name == "DVC cache" else storage.local_path(url)
            filled[folder] += stage.bytes
    return filled


def _cache() -> Path:
    """Where DVC keeps its copies, or would after a `dvc init`."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        return Path(Repo(str(Path.cwd())).cache.local.path)
    except DvcException:  # told by a check of its own
        return Path.cwd() / ".dvc" / "cache"


def _past(params: Params) -> float:
    """Bytes in a local work folder, about, that runs of today make anew and do not replace."""
    total = 0.0
    for stage in ("crop", "landmarks"):
        if not (present := Records(params.paths.work, stage).present()):
            continue
        try:
            job = importlib.import_module(f"pipelines.{stage}").prepare(params)
        except (UserError, StopStage):  # what it will make is not known yet
            continue
        kept = len(present & {item.fingerprint for item in job.items})
        size = _size(storage.local_path(storage.join(params.paths.work, job.folder)))
        total += size * (1 - kept / len(present))
    return total


def _mount(path: Path) -> Path:
    path = path.absolute()
    while not path.is_mount():
        path = path.parent
    return path


def _size(folder: Path) -> int:
    total = 0
    for top, _, names in os.walk(folder):
        for name in names:
            total += os.lstat(os.path.join(top, name)).st_size  # noqa: PTH118 - a million
    return total


def _gb(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"


def clock(params: Params) -> Verdicts:
    """This machine's clock against its file system's and against what is installed."""
    with tempfile.NamedTemporaryFile(dir=_work(params)) as file:
        file.write(b"now")
        file.flush()
        skew = time.time() - Path(file.name).stat().st_mtime
    newest = Path(__file__).stat().st_mtime
    remedy = "set the clock (chronyd, ntpd)"
    if abs(skew) > SKEW:
        yield fail("clock", f"{skew:+.0f} s off the file system's", remedy)
    elif time.time() < newest - SKEW:
        yield fail("clock", "it is earlier than the files of this program", remedy)
    else:
        yield ok("clock", f"{time.strftime('%Y-%m-%d %H:%M:%S %Z')}, as the file system has it")


def _work(params: Params) -> Path | None:
    """A folder on the work folder's file system, making none; None for the temporary one."""
    if not storage.is_local(params.paths.work):
        return None
    path = storage.local_path(params.paths.work).absolute()
    while not path.is_dir():
        path = path.parent
    return path if os.access(path, os.W_OK) else None


def files(params: Params) -> Verdicts:
    """How many files a process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= FILES:
        yield ok("open files", f"{soft} at once")
        return
    say = fail if soft < FILES // 4 else warn
    yield say("open files", f"{soft} at once (may be raised to {hard})", "ulimit -n 4096")


def shm(params: Params) -> Verdicts:
    """Shared memory: Ray's store and the loader's workers live in it."""
    path = Path("/dev/shm")
    if not path.is_dir():
        yield ok("/dev/shm", "none on this system")
        return
    free = shutil.disk_usage(path).free
    if free < SHM:
        yield warn("/dev/shm", f"{_gb(free)} free", "docker run --shm-size=8g; training needs it")
    else:
        yield ok("/dev/shm", f"{_gb(free)} free")


def folders(params: Params) -> Verdicts:
    """The temporary folder and the folders of params.yaml take a file."""
    temporary = Path(tempfile.gettempdir())
    free = shutil.disk_usage(temporary).free
    if why := _refuses(temporary):
        yield fail("temp folder", f"{temporary}: {why}", "set TMPDIR to a folder you may write")
    elif free < TEMPORARY:
        yield warn("temp folder", f"{temporary}: {_gb(free)} free", "set TMPDIR to a larger disk")
    else:
        yield ok("temp folder", f"{temporary}, {_gb(free)} free")
    for name in ("data", "work", "metrics", "cards", "models", "results"):
        url = getattr(params.paths, name)
        if not storage.is_local(url):
            continue
        path = storage.local_path(url).absolute()
        while not path.exists():
            path = path.parent
        if why := _refuses(path):
            yield fail(f"paths.{name}", f"{path}: {why}", "mend its permissions, or choose another")


def _refuses(folder: Path) -> str:
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        return error.strerror or str(error)
    return ""
