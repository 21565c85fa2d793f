"""A video site on the loopback interface: serves a folder of videos, and fails on demand.

    python -m pipelines.sample.server FOLDER [--port N]

`/watch/<video>` and `/videos/<video>.mp4` both give the file whose stem is the video id,
whatever its extension. Faults are named per video id: `KIND` for every request, or `KIND:N` for
the first N and then the file. Kinds: 403, 404, 410, 429, 503 (the last two with Retry-After),
`html` (a page under a video's content type), `page` (an honest page), `cut` (half of the bytes
promised), `empty`, `slow`, `bot_check`.
"""

from __future__ import annotations

import argparse
import ipaddress
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from pipelines import progress
from pipelines.command import EXIT_OK, EXIT_STOPPED, EXIT_USAGE
from pipelines.errors import StopStage, UserError
from pipelines.sample.handler import KINDS, SiteServer


@dataclass
class Hits:
    """What was asked of one path, and what left the machine for it."""

    requests: int = 0
    bytes: int = 0
    full: int = 0
    """Answers that carried a whole file to its last byte. A client that hangs up early counts
    here only if the file is small enough (some 200 kB) to sit in the sockets' buffers."""
    partial: int = 0
    """Answers 206."""


class SampleServer:
    """Serves `videos` on a loopback port while used as a context manager.

    `faults` maps video ids to `KIND` or `KIND:N`. Raises ValueError for an unknown fault or a
    host that is not loopback, OSError if the port is taken.
    """

    def __init__(
        self,
        videos: Path,
        faults: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        retry_after: int = 1,
        log: bool = False,
    ) -> None:
        if not _is_loopback(host):
            raise ValueError(f"{host} is not a loopback address: use 127.0.0.1")
        self.videos = videos
        self.retry_after = retry_after
        self.log = log
        self.hits: dict[str, Hits] = {}
        self._faults = {video: _parse_fault(fault) for video, fault in (faults or {}).items()}
        self._spent: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._http = SiteServer((host, port), self)
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._http.server_address[1])

    @property
    def url(self) -> str:
        """The site's root, without a slash at the end."""
        host = str(self._http.server_address[0])
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def template(self) -> str:
        """The address of a video, to be completed by its id."""
        return self.url + "/watch/{video}"

    def __enter__(self) -> SampleServer:
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._thread:
            self._http.shutdown()
            self._thread.join()
        self._http.server_close()

    def find(self, video: str) -> Path | None:
        """The file of a video id. Ids hold no dot and no slash, so none leads out of the folder."""
        matches = (p for p in sorted(self.videos.glob(f"{video}.*")) if p.suffix != ".part")
        return next((p for p in matches if p.is_file()), None)

    def take_fault(self, video: str) -> str:
        """The fault that the next request for a video meets, or an empty string."""
        kind, times = self._faults.get(video, ("", 0))
        with self._lock:
            self._spent[video] += 1
            return kind if times is None or self._spent[video] <= times else ""

    def count(self, path: str, **amounts: int) -> None:
        """Add to the counters of a path."""
        with self._lock:
            hits = self.hits.setdefault(path, Hits())
            for name, amount in amounts.items():
                setattr(hits, name, getattr(hits, name) + amount)

    def total(self) -> Hits:
        """The sum over all paths."""
        with self._lock:
            rows = list(self.hits.values())
        return Hits(*(sum(getattr(h, f) for h in rows) for f in Hits.__dataclass_fields__))


def _parse_fault(fault: str) -> tuple[str, int | None]:
    kind, _, times = fault.partition(":")
    if kind not in KINDS or (times and not times.isdigit()):
        raise ValueError(f"unknown fault {fault!r}; use KIND or KIND:N with {', '.join(KINDS)}")
    return kind, int(times) if times else None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(
    videos: Path, faults: Mapping[str, str] | None = None, port: int = 8998, log: bool = False
) -> int:
    """Serve until interrupted, for a command line; the exit status.

    Raises UserError for a folder, a fault or a port that there cannot be, StopStage where the
    port is taken.
    """
    if not videos.is_dir():
        raise UserError(f"no folder of videos at {videos}")
    try:
        server = SampleServer(videos, faults, port=port, log=log)
    except OverflowError:
        raise UserError(f"--port {port}: expected 0 to 65535 (0 picks a free one)") from None
    except ValueError as error:
        raise UserError(f"--fault: {error}") from None
    except OSError as error:
        raise StopStage(
            f"cannot listen on port {port} ({error.strerror or error}): "
            "stop what uses it, or name another with --port (0 picks a free one)"
        ) from None
    with server:
        sys.stdout.write(f"serving {videos} at {server.template} (Ctrl-C stops)\n")
        sys.stdout.flush()
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return EXIT_OK
    return EXIT_OK


def main(argv: list[str] | None = None) -> int:
    """Serve any folder of videos named by their ids."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.sample.server",
        description="Serve a folder of videos named by id, on this machine alone.",
    )
    parser.add_argument("folder", type=Path, help="holds <video id>.<extension>")
    parser.add_argument("--port", type=int, default=8998, help="0 picks a free one")
    parser.add_argument("--fault", action="append", default=[], metavar="VIDEO=KIND[:N]",
                        help=f"fail on this video; kinds: {', '.join(KINDS)}")  # fmt: skip
    parser.add_argument("--log", action="store_true", help="a line per request on stderr")
    args = parser.parse_args(argv)
    faults = dict(entry.partition("=")[::2] for entry in args.fault)
    try:
        return serve(args.folder, faults, args.port, args.log)
    except UserError as error:
        progress.complain(str(error))
        return EXIT_USAGE
    except StopStage as error:
        progress.complain(str(error))
        return EXIT_STOPPED


if __name__ == "__main__":
    raise SystemExit(main())
