"""Prune: what the work folder holds that no stage reads any more, of older versions and settings.

Videos, crops, landmarks, half videos of URLs that are no longer asked for, plans of shards, and
shards fetched from an object store in another state of the dataset. Lists it; --delete deletes it.
Needs a finished rebuild, so that nothing in use is taken for old.
What another branch or experiment would still use is made anew there when it is needed; lineage
no longer knows what was given a crop that is deleted here.

Exits with 0, also where there is nothing; 2 while a stage has work to do or is at work, or a
run is being trained.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from pipelines import manifest, progress, storage
from pipelines.command import EXIT_OK, arguments, guarded
from pipelines.errors import UserError
from pipelines.params import Params, load
from pipelines.records import Records
from pipelines.work_folder import (
    RECORDS,
    files_below,
    inside,
    refuse_while_busy,
    refuse_while_training,
    shard_cache,
)


@dataclass
class Superseded:
    """URLs of what nothing reads any more."""

    files: dict[str, list[str]] = field(default_factory=dict)
    """By folder of the work folder."""
    records: list[str] = field(default_factory=list)


def superseded(params: Params) -> Superseded:
    """Find it. Raises UserError where a stage has items without a record, or is at work."""
    work, found, kept = params.paths.work, Superseded(), set[str]()
    refuse_while_busy(work)
    refuse_while_training(work)
    for stage in RECORDS:
        job = importlib.import_module(f"pipelines.{stage}").prepare(params)
        live, records = {item.fingerprint for item in job.items}, Records(work, stage)
        present = records.present()
        if missing := live - present:
            raise UserError(
                f"{stage} has {len(missing)} of {len(live)} items to do; run `dvc repro card` "
                "first, so that nothing in use is taken for old (where DVC sees no change, "
                f"`python -m pipelines.{stage}`)"
            )
        try:
            kept.update(_files(records, sorted(live)))
        except pa.ArrowInvalid as error:
            raise UserError(f"{stage}: {error}; run `python -m pipelines.{stage}` first") from None
        found.records += [records.url(name) for name in sorted(present - live)]
        if stage == "download":
            # Half a video waits for the next try, as long as somebody may ask for it.
            asked = {fingerprint[:16] for fingerprint in live}
            urls = files_below(storage.join(work, "partial"))
            found.files["partial"] = [url for url in urls if asked.isdisjoint(url.split("/"))]
        elif stage == "shard":
            urls = files_below(storage.join(work, "plans"))
            found.files["plans"] = [url for url in urls if url != job.worker.plan]
    found.files["shard_cache"] = list(_stale_tars(params))
    for folder in filter(None, RECORDS.values()):
        urls = files_below(storage.join(work, folder))
        found.files[folder] = sorted(url for url in urls if inside(folder, url) not in kept)
    return found


def _stale_tars(params: Params) -> Iterator[str]:
    """Of the shards fetched from a store, those of another state of the dataset than this one."""
    urls = list(files_below(shard_cache(params)))
    if not urls:
        return
    index, live = params.paths.manifest("shard"), set[str]()
    if not storage.is_local(index):
        live = set(manifest.read(index, ["shard_sha256"])["shard_sha256"].to_pylist())
        live.add(storage.digest_bytes(storage.read_bytes(index))[:16])
    for url in urls:
        if live.isdisjoint({*url.split("/"), Path(url).stem}):
            yield url


def _files(records: Records, fingerprints: Sequence[str]) -> Iterator[str]:
    """Paths that the rows of records name."""
    for read in records.reads(fingerprints):
        rows = read()[0]
        if "path" in rows.column_names:
            yield from filter(None, rows["path"].to_pylist())


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m pipelines.prune`."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--delete", action="store_true", help="delete what is listed")
    options = parser.parse_args(argv)

    def command() -> int:
        params = load(options.params)
        found = superseded(params)
        files = [url for urls in found.files.values() for url in urls]
        size = sum(map(storage.size, files))
        counts = [f"{len(urls):,} of {folder}" for folder, urls in found.files.items() if urls]
        words = f"{', '.join(counts) or 'no file'}, {size / 1e6:,.1f} MB"
        if not files and not found.records:
            progress.say(f"prune: nothing in {params.paths.work} is old")
        elif options.delete:
            # Records last: a run that is interrupted finds its way again.
            for url in (*files, *found.records):
                storage.remove(url)
            progress.say(f"prune: deleted {words}, and {len(found.records):,} records")
        else:
            progress.say(f"prune: no stage reads {words}, and {len(found.records):,} records")
            progress.say("prune: nothing is deleted without --delete")
        return EXIT_OK

    return guarded(command)


if __name__ == "__main__":
    sys.exit(main())
