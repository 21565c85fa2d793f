"""Download: fetch every video of the catalog once, politely, and probe what arrived.

Reads catalog.parquet, writes downloads.parquet: one row per video. Videos stay in the work
folder (or in the mirror folder, untouched). Bot-checks open a circuit breaker that leaves the
rest `deferred`; deferred videos are taken up again by the next run, other failures by
`--retry transient` or `--retry STATUS,...`.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines import engine, storage
from pipelines.errors import UserError, clean_detail, conceal, redact
from pipelines.job import Item, Job, Span
from pipelines.manifest import ManifestReader
from pipelines.params import Params, environment
from pipelines.params.dataset import Download
from pipelines.schemas import DOWNLOADS, PLAIN_NAME
from pipelines.site import fetch
from pipelines.site.fetch_errors import FetchError
from pipelines.site.throttle import Breaker, TokenBucket, backoff, state_file
from pipelines.statuses import Status
from pipelines.video.probe import MediaError, Probe, probe

STAGE = "download"
COLUMNS = ["source", "person", "video", "utterance", "url", "media", "status"]
Row = dict[str, Any]
VERSION = 1
"""Raise when the same input would now give other rows."""
STAMP = b"stamp"
"""In the metadata of a record's rows: size and time of the video in a mirror's folder."""


class DownloadWorker:
    """Fetches videos; `params.download.concurrency` of them at once."""

    def __init__(self, params: Params, run: str) -> None:
        self._params = params
        # Of the machine that starts the stage: workers elsewhere need not have the variables.
        self._secrets = environment.values(params.download)
        self._settings = environment.filled(params.download, self._secrets)
        self.threads = self._settings.concurrency
        egress = self._settings.proxy or "direct"
        self._bucket = TokenBucket(
            state_file("bucket", egress), self._settings.per_minute, self._settings.burst
        )
        self._breaker = Breaker(state_file("breaker", run), self._settings.breaker)

    def setup(self) -> None:
        """Open the catalog; this process, too, shall tell no secret."""
        conceal(self._secrets.values())
        self._catalog = ManifestReader(self._params.paths.manifest("catalog"), COLUMNS)

    def _input(self, item: Item) -> Row:
        row: Row = self._catalog.rows(item.start, item.start + 1).to_pylist()[0]
        return row

    def blame(self, item: Item, status: Status, detail: str) -> pa.Table:
        """The row of a video that could not be fetched."""
        return _row(self._input(item), status, detail)

    def process(self, item: Item, scratch: Path) -> pa.Table:
        """Fetch, probe and publish one video."""
        video = self._input(item)
        if video["status"] == Status.EXCLUDED:
            return _row(video, Status.EXCLUDED, "")
        if video["media"] is not None:
            return self._ready(item)
        address = redact(fetch.site_url(video["video"], video["url"], self._params.download))
        if (kept := self._published(item)) is not None:
            # Killed between publishing the video and recording it: never fetched twice.
            origin, url = kept
            work = self._params.paths.work.rstrip("/") + "/"
            with storage.local_copy(url, scratch) as path, suppress(MediaError):
                found = probe(path, deep=True)
                return self._ok(video, found, path, url.removeprefix(work), origin, address)
            storage.remove(url)  # torn by a bad disk since it was published: fetched anew
        parts = self._parts(item, scratch)
        try:
            body, facts = fetch.fetch(
                str(video["video"]),
                video["url"],
                self._settings,
                parts,
                self._ask,
                lambda attempt, after: backoff(self._settings.backoff, attempt, after),
                _probe,
            )
        except FetchError as error:
            if error.status == Status.BOT_CHECK:
                self._breaker.trip()
            # By what it holds now, the next run sees whether it may give more.
            held = _mirror_stamp(str(video["video"]), self._settings)
            row = _row(video, error.status, redact(error.detail), url=address)
            return row.replace_schema_metadata({STAMP: held})
        asked = redact(body.url)
        if body.in_place:
            # A mirror folder that is itself called `videos` is not the work folder's.
            place = storage.join(".", body.url)
            stamp = storage.stamp(place)  # before the digest: what is written meanwhile shows
            row = self._ok(video, facts, body.path, place, body.origin, asked)
            return row.replace_schema_metadata({STAMP: _words(stamp)})
        target = f"{self._home(item)}-{body.origin}{body.path.suffix}"
        row = self._ok(video, facts, body.path, target, body.origin, asked)
        storage.publish(body.path, storage.join(self._params.paths.work, target))
        shutil.rmtree(parts, ignore_errors=True)
        return row

    def _ask(self) -> None:
        """Wait until the site may be asked. Raises FetchError once it has asked for a proof."""
        if not self._breaker.is_open():
            self._bucket.take()
        if self._breaker.is_open():  # also since this one waits for its turn
            raise FetchError(Status.DEFERRED, "the bot-check breaker is open")

    def _ready(self, item: Item) -> pa.Table:
        """The row of a video whose crops are on disk already: nothing to fetch."""
        clips = [
            row
            for span in item.spans
            for row in self._catalog.rows(span.start, span.stop).to_pylist()
            if row["status"] == Status.OK
        ]
        digests, total, gone = [], 0, []
        for clip in clips:
            url = storage.join(self._params.catalog.metadata, clip["media"])
            if not storage.exists(url):
                gone.append(ready_file(clip))
                continue
            data = storage.read_bytes(url)
            total += len(data)
            digests.append(storage.digest_bytes(data))
        detail = f"{', '.join(gone)} {'is' if len(gone) == 1 else 'are'} gone" if gone else ""
        if not digests:
            return _row(clips[0], Status.REMOVED, detail, origin="local")
        sha256 = storage.digest(*digests)
        return _row(clips[0], Status.OK, detail, origin="local", bytes=total, sha256=sha256)

    def _home(self, item: Item) -> str:
        return f"videos/{item.fingerprint[:2]}/{item.fingerprint[:16]}"

    def _published(self, item: Item) -> tuple[str, str] | None:
        folder, _, stem = self._home(item).rpartition("/")
        for name in storage.names(storage.join(self._params.paths.work, folder)):
            if name.startswith(stem + "-"):
                origin = Path(name).stem.rpartition("-")[2]
                return origin, storage.join(self._params.paths.work, folder, name)
        return None

    def _parts(self, item: Item, scratch: Path) -> Path:
        work = self._params.paths.work
        if not storage.is_local(work):
            return scratch / "parts"
        return storage.local_path(work) / "partial" / item.fingerprint[:16]

    def _ok(
        self,
        video: Row,
        facts: Probe,
        file: Path,
        path: str,
        origin: str,
        url: str,
    ) -> pa.Table:
        return _row(
            video,
            Status.OK,
            "",
            origin=origin,
            url=url,
            path=path,
            sha256=storage.sha256(file),
            bytes=file.stat().st_size,
            codec=facts.codec,
            width=facts.width,
            height=facts.height,
            fps=facts.fps,
            seconds=facts.seconds,
            has_audio=facts.has_audio,
        )


def video_name(clip: Row) -> str:
    """What a clip's video is called in downloads.parquet.

    A site has one of a name, whoever names it; ready crops are their source's and person's own.
    """
    if not clip["media"]:
        return str(clip["video"])
    return f"{clip['source']}/{clip['person']}/{clip['video']}"


def older_name(clip: Row) -> str:
    """The same in manifests of before, which did not tell the sources of ready crops apart."""
    return f"{clip['person']}/{clip['video']}" if clip["media"] else str(clip["video"])


def ready_file(clip: Row) -> str:
    """A ready crop's own name, as `detail` tells of those that are gone."""
    return Path(clip["media"]).name


def _probe(path: Path) -> Probe:
    try:
        return probe(path, deep=True)
    except MediaError as error:
        raise FetchError(error.status, clean_detail(error.detail)) from error


def _row(video: Row, status: Status, detail: str, **values: object) -> pa.Table:
    row = dict.fromkeys(DOWNLOADS.names) | {
        "source": video["source"],
        "video": video_name(video),
        "status": str(status),
        "detail": detail,
    }
    return pa.Table.from_pylist([row | values], schema=DOWNLOADS)


def _stamps(params: Params, wanted: list[tuple[int, Row]]) -> Iterator[object]:
    """Ready crops may be replaced on disk: sizes and times tell without reading them."""
    for _, row in wanted:
        if row["media"]:
            url = storage.join(params.catalog.metadata, row["media"])
            yield row["media"], storage.stamp(url) if storage.exists(url) else None


def _is_settled(rows: pa.Table, settings: Download) -> bool:
    """Whether a mirror's folder is what it was: what is read in place there, and what it lacked."""
    known = (rows.schema.metadata or {}).get(STAMP)
    for row in rows.to_pylist():
        if row["path"] and not ours(row["path"]):
            try:
                stamp = storage.stamp(row["path"])
            except OSError:
                return False
            # Older records hold no stamp.
            if known != _words(stamp) if known else stamp[0] != row["bytes"]:
                return False
        elif row["status"] not in (Status.OK, Status.EXCLUDED) and row["origin"] != "local":
            found = _mirror_stamp(row["video"], settings)
            if found and found != known:
                return False
    return True


def _mirror_stamp(video: str, settings: Download) -> bytes:
    """The stamp of the video that a mirror's folder holds; empty where it holds none."""
    if settings.mirror is None or not storage.is_local(settings.mirror):
        return b""
    for url in fetch.mirror_urls(settings.mirror, video, settings.extensions):
        try:
            return _words(storage.stamp(url))
        except OSError:
            continue
    return b""


def _words(stamp: tuple[int, int]) -> bytes:
    return " ".join(map(str, stamp)).encode()


def ours(path: str) -> bool:
    """Does a row's file lie in the work folder, and not in a mirror's?"""
    return path.startswith("videos/")


def prepare(params: Params) -> Job:
    """One item per video of the catalog that is wanted or was taken out."""
    settings = params.download
    items: dict[str, Item] = {}
    catalog = ManifestReader(params.paths.manifest("catalog"), COLUMNS)
    for start, rows in catalog.groups(["source", "person", "video"]):
        wanted = [
            (at, row)
            for at, row in enumerate(rows.to_pylist(), start)
            if row["status"] in (Status.OK, Status.EXCLUDED)
        ]
        if not wanted:
            continue
        first, row = wanted[0]
        if not PLAIN_NAME.fullmatch(row["video"]):
            raise UserError(f"catalog.parquet names the video {row['video']!r}: make it anew")
        stop = wanted[-1][0] + 1
        name = video_name(row)
        if (item := items.get(name)) is not None:
            # One fetch per video, also where two people or two sources share it; of ready crops
            # the rest, behind a clip that was taken out.
            if row["media"]:
                fingerprint = storage.digest(item.fingerprint, *_stamps(params, wanted))
                also = (*item.also, Span(first, stop, 0))
                items[name] = replace(item, fingerprint=fingerprint, also=also)
            continue
        # What decides the content. Manners, cookies, proxy and mirror do not: a video once
        # fetched stays fetched.
        fingerprint = storage.digest(
            STAGE,
            VERSION,
            row["status"],
            name,
            fetch.site_url(row["video"], row["url"], settings),
            settings.format,
            settings.max_height,
            *_stamps(params, wanted),
        )
        items[name] = Item(name, fingerprint, first, stop, 1)
    return Job(
        stage=STAGE,
        params=params,
        schema=DOWNLOADS,
        worker=DownloadWorker(params, run=os.urandom(8).hex()),
        folder="videos",
        items=list(items.values()),
        unit="videos",
        max_failed=settings.max_failed,
        always_retry=frozenset({Status.DEFERRED}),
        is_done=partial(_is_settled, settings=environment.filled(settings)),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m pipelines.download`."""
    return engine.main(prepare, __doc__ or "", argv)


if __name__ == "__main__":
    from pipelines.download import main

    sys.exit(main())
