"""What all commands share: the options, the exit statuses, and errors as one line for people."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

from pipelines import progress
from pipelines.errors import StopStage, UserError

EXIT_OK, EXIT_STOPPED, EXIT_USAGE, EXIT_BUDGET, EXIT_INTERRUPTED = 0, 1, 2, 3, 130
EXIT_TERMINATED = 143
EXIT_UNREAD = 141
"""As of a program that SIGPIPE ended: nobody reads any more."""


def arguments(doc: str) -> argparse.ArgumentParser:
    """The options every stage has."""
    spec = sys.modules["__main__"].__spec__  # how `python -m` was told the module's name
    parser = argparse.ArgumentParser(
        prog=f"python -m {spec.name.removesuffix('.__main__')}" if spec else None,
        description=doc.strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--params", default="params.yaml", metavar="FILE", help="default: %(default)s"
    )
    return parser


OF_IDS = ("--person", "--video", "--clip")


def joined(parser: argparse.ArgumentParser, argv: Sequence[str]) -> list[str]:
    """`--video -x` as `--video=-x`: an id may look like an option, but not be one, nor `--`."""
    known = {name for action in parser._actions for name in action.option_strings}
    words, rest = [], list(argv)
    while rest:
        word = rest.pop(0)
        if word in OF_IDS and rest and rest[0] != "--" and rest[0].partition("=")[0] not in known:
            word = f"{word}={rest.pop(0)}"
        words.append(word)
    return words


def _nobody_reads() -> bool:
    """Whether what stdout went to has closed, as in `... | head`; a store's pipe may break too."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


KEPT = "finished items are kept, run the same command to go on"
NOTHING_KEPT = "nothing was written"


@contextlib.contextmanager
def _terminable(came: threading.Event) -> Iterator[None]:
    """SIGTERM, of `kill`, a container or a batch system, cleans up all that Ctrl-C does.

    It sets `came` too, for a library may make another KeyboardInterrupt of the one raised here.
    """

    def terminate(number: int, frame: object) -> None:
        came.set()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def guarded(command: Callable[[], int], after: str = KEPT) -> int:
    """Run a command; a user's mistake or a stop becomes one line and an exit status.

    after: what is said of the work after Ctrl-C.
    """
    terminated = threading.Event()
    try:
        with _terminable(terminated):
            code = command()
        sys.stdout.flush()
    except UserError as error:
        progress.complain(str(error))
        code = EXIT_USAGE
    except StopStage as error:
        progress.complain(str(error))
        code = EXIT_STOPPED
    except KeyboardInterrupt:
        progress.complain(f"interrupted; {after}")
        code = EXIT_TERMINATED if terminated.is_set() else EXIT_INTERRUPTED
    except OSError as error:
        code = EXIT_STOPPED
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = EXIT_UNREAD
        else:
            progress.complain(f"{error.filename or 'a file'}: {error.strerror or error}")
    sys.stdout.flush()
    sys.stderr.flush()
    if code in (EXIT_STOPPED, EXIT_INTERRUPTED, EXIT_TERMINATED):
        # Beam's worker threads do not end by themselves after a failed bundle.
        os._exit(code)
    return code
