"""Runs the checks: each with a time limit, and none can take the doctor down."""

from __future__ import annotations

import queue
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from pipelines.doctor import gpu, inputs, machine, software, weights
from pipelines.doctor.verdict import Verdict, Verdicts, fail
from pipelines.errors import UserError, clean_detail
from pipelines.params import Params, environment


@dataclass(frozen=True)
class Check:
    """One check and the seconds it may take."""

    name: str
    run: Callable[[Params], Verdicts]
    seconds: float = 30.0


CHECKS = (
    Check("python", software.python),
    Check("libraries", software.libraries),
    Check("codecs", software.codecs),
    Check("yt-dlp", software.yt_dlp),
    Check("javascript", software.javascript),
    Check("ffmpeg", software.ffmpeg),
    Check("cookies", inputs.cookies),
    Check("proxy", inputs.proxy),
    Check("annotations", inputs.lists, 120),
    Check("takedowns", inputs.takedowns),
    Check("mirror", inputs.mirror, 120),
    Check("weights", weights.weights, 120),
    Check("space", machine.space, 900),  # a million annotations take minutes to count
    Check("beam", software.beam, 60),
    Check("gpu", gpu.gpu, 60),
    Check("compiler", software.compiler),
    Check("ray", software.ray),
    Check("clock", machine.clock),
    Check("open files", machine.files),
    Check("/dev/shm", machine.shm),
    Check("folders", machine.folders),
    Check("dvc", inputs.dvc, 60),
)


def run(params: Params, checks: tuple[Check, ...] = CHECKS) -> Iterator[Verdict]:
    """All verdicts, in order, as they come."""
    yield from inputs.variables(params)
    with suppress(UserError):  # told by that check
        params = params.model_copy(update={"download": environment.filled(params.download)})
    for check in checks:
        yield from _limited(check, params)


def _limited(check: Check, params: Params) -> list[Verdict]:
    answer: queue.SimpleQueue[list[Verdict]] = queue.SimpleQueue()

    def body() -> None:
        found: list[Verdict] = []
        try:
            for verdict in check.run(params):
                found.append(verdict)
        except UserError as error:
            found.append(fail(check.name, clean_detail(error), "mend that, then ask again"))
        except OSError as error:  # a disk or a store that does not answer, not a fault of ours
            what = f"{error.filename}: " if isinstance(error.filename, str) else ""
            words = clean_detail(f"{what}{error.strerror or error}")
            found.append(fail(check.name, words, "mend that, or the path in params.yaml"))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the other checks go on
            at = traceback.extract_tb(error.__traceback__)[-1]
            words = f"{type(error).__name__}: {clean_detail(error)} ({at.name}:{at.lineno})"
            found.append(fail(check.name, f"the check itself failed: {words}", "please report it"))
        answer.put(found)

    # A thread that hangs in a system call cannot be ended: it is left behind.
    threading.Thread(target=body, name=f"doctor {check.name}", daemon=True).start()
    try:
        return answer.get(timeout=check.seconds)
    except queue.Empty:
        words = f"no answer within {check.seconds:g} s"
        return [fail(check.name, words, "a network or a disk hangs; see what it depends on")]
