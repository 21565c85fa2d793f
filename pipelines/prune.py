"""Prune: what the work folder holds that no stage reads any more, of older versions and settings.

Lists it; --delete deletes it. Needs a finished rebuild, so that nothing in use is taken for old.
What another branch or experiment would still use is made anew there when it is needed; lineage
no longer knows what was given a crop that is deleted here.

Exits with 0, also where there is nothing; 2 while a stage has work to do or is at work.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from pipelines import progress, storage
from pipelines.command import EXIT_OK, arguments, guarded
from pipelines.errors import UserError
from pipelines.params import Params, load
from pipelines.records import Records
from pipelines.work_folder import RECORDS, files_below, inside, refuse_while_busy


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
    for stage in RECORDS:
        job = importlib.import_module(f"pipelines.{stage}").prepare(params)
        live, records = {item.fingerprint for item in job.items}, Records(work, stage)
        present = records.present()
        if missing := live - present:
            raise UserError(
                f"{stage} has {len(missing)} of {len(live)} items to do; run `dvc repro card` "
                "first, so that nothing in use is taken for old"
            )
        try:
            kept.update(_files(records, sorted(live)))
        except pa.ArrowInvalid as error:
            raise UserError(f"{stage}: {error}; run `python -m pipelines.{stage}` first") from None
        found.records += [records.url(name) for name in sorted(present - live)]
    for folder in filter(None, RECORDS.values()):
        urls = files_below(storage.join(work, folder))
        found.files[folder] = sorted(url for url in urls if inside(folder, url) not in kept)
    return found


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
