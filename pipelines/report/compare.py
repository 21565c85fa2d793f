"""Compare two runs of a rebuild: what was gained, lost and changed since.

OLD and NEW are data folders or URLs (`paths.data`) that hold the five manifests; the tars are
not read, for the index knows their sha256. Keep the old ones (`cp data/*.parquet before/`), or
fetch them from DVC's history:

  for m in catalog downloads crops landmarks index; do
    dvc get . data/$m.parquet --rev HEAD~1 -o before/$m.parquet
  done
  python -m pipelines.report.compare before data -o compare.html

Prints a summary. Who was taken out of either on request is counted, never named.

Exits with 0 when both were compared, however much they differ; 3 with --fail-on-loss when a clip
that was ok no longer is, those taken out on request aside; 1 when it had to stop, 2 for a mistake
in the call or a missing manifest, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines import outputs, progress, storage
from pipelines.command import EXIT_BUDGET, EXIT_OK, guarded
from pipelines.errors import UserError
from pipelines.params import MANIFESTS
from pipelines.report.changes import Change, Comparison, Person, compare
from pipelines.report.table import Names, pack
from pipelines.report.templating import render_page, size

LISTED = 20
"""Lines of a list in the summary."""
PEOPLE, NAMED = 500, 2000
"""People and shards in the page."""
CHANGES = 100_000
"""Clips in the page."""
ROOM = 500_000
"""Letters of the tools' words in the page."""


def page(found: Comparison) -> bytes:
    """The page's bytes."""
    from markupsafe import Markup

    return render_page(
        "compare.html.j2",
        found=found,
        stages=list(stages(found)),
        people=found.people[:PEOPLE],
        shards={name: getattr(found.shards, name)[:NAMED] for name in ("changed", "new", "gone")},
        rows=Markup(changes_table(found.changes)),
    )


def changes_table(changes: Sequence[Change]) -> str:
    """JSON for the page's script."""
    shown = list(changes[:CHANGES])
    room, why = ROOM, []
    for told in (one.why for one in shown):
        room -= len(told)
        why.append(told if room >= 0 else "")
    columns = [
        Names("person", "Person", [one.person for one in shown], filter="start", shown=False),
        Names("video", "Video", [one.video for one in shown], shown=False),
        # What could not be read has no names but the file and line that its key tells.
        Names("utterance", "Clip", [_utterance(one) for one in shown], shown=False),
        Names("what", "What", [one.what for one in shown], filter="choice"),
        Names("before", "Before", [one.before for one in shown], filter="choice"),
        Names("after", "After", [one.after for one in shown], filter="choice"),
        Names("source", "Source", [one.source for one in shown], filter="choice"),
        Names("words", "The tool's own words", why, shown=False),
    ]
    return pack(columns, len(shown), len(changes))


def _utterance(one: Change) -> str:
    return one.utterance if one.person or one.video else one.key


def stages(found: Comparison) -> Iterator[tuple[str, str, int, int]]:
    """(stage, status, clips before, clips after), stage by stage."""
    old, new = found.old.statuses, found.new.statuses
    order = list(MANIFESTS)
    for word in sorted(old.keys() | new.keys(), key=lambda w: (order.index(w.split(": ")[0]), w)):
        stage, _, status = word.partition(": ")
        yield stage, status, old.get(word, 0), new.get(word, 0)


# --- the summary -----------------------------------------------------------------------------


def summary(found: Comparison) -> Iterator[str]:
    """Plain lines for people."""
    old, new, clips, shards = found.old, found.new, found.clips, found.shards
    yield f"old  {old.folder}: {old.ok:,} of {old.annotated:,} clips, digest {old.digest[:16]}"
    yield f"new  {new.folder}: {new.ok:,} of {new.annotated:,} clips, digest {new.digest[:16]}"
    if found.identical:
        yield "The two are the same, byte for byte."
        return
    yield (
        f"clips   {clips['gained']:,} gained, {clips['lost']:,} lost, {clips['changed']:,} with "
        f"other bytes, {clips['moved']:,} failed otherwise, {clips['same']:,} as before"
        + (f", {found.taken_out:,} taken out on request" if found.taken_out else "")
    )
    yield (
        f"shards  {len(shards.identical):,} byte-identical, {len(shards.changed):,} changed, "
        f"{len(shards.new):,} new, {len(shards.gone):,} gone"
    )
    lines = [f"  {was} -> {now}: {n:,}" for was, now, n in found.transitions]
    yield from _listed("status before -> after:", lines)
    yield from _listed("people:", [_person(one) for one in found.people])
    names = [f"  {name}" for name in shards.changed]
    yield from _listed("shards with other bytes:", names)


def _person(one: Person) -> str:
    return (
        f"  {one.person}: {one.before:,} -> {one.after:,} ok "
        f"({one.gained:,} gained, {one.lost:,} lost, {one.changed:,} changed)"
    )


def _listed(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield title
        yield from lines[:LISTED]
        if lines[LISTED:]:
            yield f"  and {len(lines) - LISTED:,} more"


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m pipelines.report.compare`."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.report.compare",
        description=(__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("old", metavar="OLD", help="data folder or URL of the earlier run")
    parser.add_argument("new", metavar="NEW", help="data folder or URL of the later run")
    parser.add_argument("-o", "--output", metavar="FILE", help="also write a page, compare.html")
    parser.add_argument(
        "--json", action="store_true", help="print everything as JSON in place of the summary"
    )
    parser.add_argument(
        "--fail-on-loss", action="store_true", help="exit with 3 when a clip was lost"
    )
    options = parser.parse_args(argv)

    def command() -> int:
        if options.output and Path(options.output).is_dir():
            raise UserError(f"-o {options.output}: is a folder; name a file, such as compare.html")
        if options.output:
            folders = (("OLD", options.old), ("NEW", options.new))
            inputs = [
                (f"{n}/{m}", storage.join(f, m)) for n, f in folders for m in MANIFESTS.values()
            ]
            outputs.check_file("-o", options.output, inputs)
        found = compare(options.old, options.new)
        if options.output:
            data = page(found)
            storage.write_bytes(options.output, data)
        if options.json:
            progress.say(json.dumps(found.plain(), indent=1, ensure_ascii=False))
        else:
            progress.say("\n".join(summary(found)))
            if options.output:
                progress.say(f"compare: wrote {options.output}, {size(len(data))}")
        return EXIT_BUDGET if options.fail_on_loss and found.clips["lost"] else EXIT_OK

    return guarded(command)


if __name__ == "__main__":
    sys.exit(main())
