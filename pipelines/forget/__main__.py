"""Forget: take people, videos or clips out, and prove that nothing of them remains.

Adds lines to takedowns.csv, deletes what the work folder holds of them, and notes by digest
which datasets held them (forgotten.json). `dvc repro` then rewrites only the shards that held
them, and `dvc gc` clears the cache and the remotes. `--check` looks everywhere and exits with 1
while anything remains. docs/takedown.md tells the whole way.
"""

from __future__ import annotations

import argparse
import datetime
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines import progress
from pipelines.command import EXIT_OK, EXIT_STOPPED, arguments, guarded, joined
from pipelines.errors import UserError
from pipelines.forget import ledger, repository, requests, runs
from pipelines.forget.check import check
from pipelines.forget.held import files, note
from pipelines.forget.models import Sight
from pipelines.forget.requests import Request
from pipelines.forget.whose import unknown, whose
from pipelines.forget.work import counted, purge
from pipelines.params import Params, load

KINDS = ("person", "video", "clip")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = arguments(__doc__ or "")
    made.add_argument("--person", action="append", default=[], metavar="ID", help="id00017")
    made.add_argument("--video", action="append", default=[], metavar="ID")
    made.add_argument(
        "--clip", action="append", default=[], metavar="KEY", help="person_video_utterance"
    )
    made.add_argument(
        "--list",
        action="append",
        default=[],
        metavar="FILE",
        help="lines of kind,id[,date,reason]",
    )
    made.add_argument("--reason", default="", metavar="TEXT")
    made.add_argument("--date", metavar="YYYY-MM-DD", help="default: today")
    made.add_argument(
        "--again", action="store_true", help="delete once more what takedowns.csv names already"
    )
    made.add_argument("--check", action="store_true", help="prove that nothing remains")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m pipelines.forget`."""
    made = parser()
    options = made.parse_args(joined(made, sys.argv[1:] if argv is None else argv))

    def command() -> int:
        date = options.date or datetime.date.today().isoformat()
        wanted = [
            requests.request(kind, name, date, options.reason)
            for kind in KINDS
            for name in getattr(options, kind)
        ]
        for path in options.list:
            wanted += requests.read_list(path, date, options.reason)
        if bool(wanted) + options.again + options.check != 1:
            raise UserError(
                "name whom to forget (--person, --video, --clip, --list), or give --again or "
                "--check alone"
            )
        params = load(options.params)
        project = Path(options.params).absolute().parent
        if options.check:
            return prove(params, project)
        return forget(params, project, wanted)

    return guarded(command)


def forget(params: Params, project: Path, wanted: Sequence[Request]) -> int:
    """Add the lines, delete, and say what comes next."""
    path = params.catalog.takedowns
    repo = repository.find(project)  # before anything is written: it may be broken
    added = requests.add(path, wanted)
    inforce = requests.read(path)
    if wanted:
        progress.say(f"{path}: {len(added)} added, {len(wanted) - len(added)} there already")
    forgotten = whose(params, inforce)
    for source in forgotten.unread:
        progress.complain(f"annotations could not be read: {source}")
    ids = {(r.kind, r.id) for r in wanted}
    for stranger in unknown(forgotten):
        if (stranger.kind, stranger.id) in ids:
            progress.complain(
                f"{path}:{stranger.line}: no annotation knows this {stranger.kind}; is the id "
                "right? The line stays and takes it out should it appear"
            )
    # What held them is noted before anything is deleted that could tell it.
    book = note(params, project, inforce, forgotten, list(files(params, forgotten)))
    try:
        purged = purge(params, forgotten)
    except UserError as error:
        kept = f" ({path} keeps the lines: what is rebuilt meanwhile is without them)"
        raise UserError(f"{error}{kept if added else ''}") from None
    # The index that is here has just been noted: it is known like any other.
    shown = runs.purge(params, Sight(inforce, book, None))
    note(params, project, inforce, forgotten, purged.files, book)
    progress.say(f"deleted from {params.paths.work}: {counted(purged.counts)}")
    if any(shown.values()):
        progress.say(f"deleted, as they may show people: {counted(shown)}")
    if forgotten.shared:
        progress.say(f"kept: {len(forgotten.shared)} videos in which others stay")
    steps = [
        "dvc repro    # rewrites only the shards that held them; every other tar keeps its bytes"
    ]
    if shown["report"]:
        steps.append("python -m pipelines.report    # where you want the report again")
    if repo is not None:
        steps.append(
            "dvc gc --workspace    # clears the cache of ALL that this workspace does not use"
        )
        steps += [remote.command for remote in repo.remotes]
    tracked = " ".join(shlex.quote(name) for name in (path, ledger.url(params)))
    steps.append(
        f"git add {tracked} dvc.lock {shlex.quote(params.paths.cards)} && git commit    "
        "# its earlier commits stay: see docs/takedown.md"
    )
    steps.append("python -m pipelines.forget --check")
    progress.say("\n  ".join(["next:", *steps]))
    return EXIT_OK


def prove(params: Params, project: Path) -> int:
    """Say what remains; 1 while anything does."""
    path = params.catalog.takedowns
    inforce = requests.read(path)
    if not inforce:
        progress.say(f"{path} names nobody: nothing to look for")
        return EXIT_OK
    proof = check(params, project, inforce, whose(params, inforce))
    for finding in proof.findings:
        progress.say(f"{finding.file}: {finding.what}; {finding.remedy}")
    for words in proof.saw:
        progress.say(f"made: {words}")
    for words in proof.notes:
        progress.say(f"note: {words}")
    looked = f"{proof.files:,} files, {proof.bytes / 1e6:,.1f} MB, {len(inforce)} takedowns"
    if proof.findings:
        count = len(proof.findings)
        remain = "1 thing remains" if count == 1 else f"{count} things remain"
        progress.complain(f"forget: {remain} ({looked})")
        return EXIT_STOPPED
    progress.say(f"forget: nothing remains ({looked})")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
