"""Lineage: walk from a file back to the clips and links that made it, or from a clip forward.

Back, from a generated video or picture, a person, a model, a checkpoint, a manifest or a tar:
`python -m pipelines.lineage out.mp4`. Forward, to every tar, model, person and video that a clip
went into: `python -m pipelines.lineage --clip KEY`, or --person or --video. It reads what files
say of themselves; `python -m training.inspect` checks whether that was signed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.text import Text
from rich.tree import Tree

from pipelines import progress, storage
from pipelines.command import EXIT_OK, arguments, guarded, joined
from pipelines.errors import UserError
from pipelines.lineage.dataset import Asked, Project, count
from pipelines.lineage.trace import Backward, Forward, Node, as_json, forward
from pipelines.params import Params, load


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m pipelines.lineage`."""
    parser = arguments(__doc__ or "")
    parser.add_argument("file", nargs="?", type=Path, help="walk back from it")
    whose = parser.add_mutually_exclusive_group()
    whose.add_argument("--clip", metavar="KEY", help="person_video_utterance, or with slashes")
    whose.add_argument("--person", metavar="ID")
    whose.add_argument("--video", metavar="ID")
    parser.add_argument(
        "--clips", action="store_true", help="list each clip: key, link, seconds, tar"
    )
    parser.add_argument(
        "--look", action="append", default=[], metavar="FOLDER", help="search here too"
    )
    parser.add_argument(
        "--index", action="append", default=[], metavar="FILE", help="an index.parquet of before"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(joined(parser, sys.argv[1:] if argv is None else argv))

    def command() -> int:
        asked = _asked(options)
        if (asked is None) == (options.file is None):
            raise UserError("name a file to walk back from, or one of --clip, --person, --video")
        params = load(options.params)
        project = Project(params, options.index)
        roots = _roots(params, options.look)
        if asked is None:
            node = Backward(project, roots).walk(options.file)
            _show_back(project, node, options)
        else:
            _show_forward(project, forward(project, asked, roots), options)
        return EXIT_OK

    return guarded(command)


def _asked(options: argparse.Namespace) -> Asked | None:
    if options.clip is not None:
        return Asked("clip", options.clip.replace("/", "_"))
    if options.person is not None:
        return Asked("person", options.person)
    return Asked("video", options.video) if options.video is not None else None


def _roots(params: Params, look: Sequence[str]) -> list[Path]:
    """Where made things lie."""
    paths = params.paths
    usual = [paths.models, storage.join(paths.work, "runs"), paths.results]
    for url in usual:
        if not storage.is_local(url):
            progress.complain(f"{url} is not searched: copy it here and name it with --look")
    for folder in look:
        if not Path(folder).is_dir():
            raise UserError(f"--look {folder}: no such folder")
    return [storage.local_path(url) for url in usual if storage.is_local(url)] + [
        Path(folder) for folder in look
    ]


# --- telling ---------------------------------------------------------------------------------


def _say_tree(tree: Tree) -> None:
    progress.Page(width=None if sys.stdout.isatty() else 110, highlight=False).print(tree)


def _plain(text: str) -> str:
    """Names from outside: nothing in them may move the cursor."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _words(node: Node) -> Text:
    text = Text.assemble((node.kind, "bold"), f" {_plain(node.name)}")
    if node.sha256:
        text.append(f" {_plain(node.sha256[:16])}", "dim")
    for word in filter(None, (node.about, node.note)):
        text.append(f"\n{_plain(word)}")
    return text


def _show_back(project: Project, node: Node, options: argparse.Namespace) -> None:
    clips = node.all_clips() if options.clips else []
    if options.json:
        listed = [row for table in clips for row in project.clip_list(table)]
        progress.say(json.dumps(as_json(node) | ({"clips": listed} if clips else {}), indent=1))
        return
    tree = Tree(_words(node))

    def grow(branch: Tree, one: Node) -> None:
        for below in one.made_from:
            grow(branch.add(_words(below)), below)

    grow(tree, node)
    _say_tree(tree)
    for table in clips:
        _say_clips(project, table)


def _say_clips(project: Project, clips: object) -> None:
    """Tab-separated, for `cut` and `grep`."""
    for row in project.clip_list(clips):
        span = "" if row["start"] is None else f"{row['start']:.2f}-{row['end']:.2f}"
        progress.say("\t".join(_plain(word) for word in (row["key"], row["url"], span, row["tar"])))


def _show_forward(project: Project, found: Forward, options: argparse.Namespace) -> None:
    if options.json:
        plain = {
            "asked": asdict(found.asked),
            "taken_down": found.taken_down,
            "index": project.current,
            "stages": found.stages,
            "tars": found.tars,
            "made": [asdict(one) for one in found.made],
            "damaged": found.damaged,
        }
        if options.clips and found.clips is not None:
            plain["clips"] = list(project.clip_list(found.clips))
        progress.say(json.dumps(plain, indent=1))
        return
    asked = found.asked
    tree = Tree(Text.assemble((asked.kind, "bold"), f" {_plain(asked.id)}"))
    if found.taken_down:
        tree.add(Text("taken out by takedowns.csv: the catalog holds it no more", "bold"))
    for stage, statuses in found.stages.items():
        told = ", ".join(f"{n} {status}" for status, n in sorted(statuses.items()))
        if told:
            tree.add(Text(f"{stage}: {told}"))
    if not any(found.stages.values()):
        tree.add(Text("no manifest of this project knows it"))
    for url, tars in found.tars.items():
        branch = tree.add(Text(f"index {_plain(url)}"))
        for tar in tars:
            branch.add(Text(tar))
    for one in found.made:
        words = Text.assemble((one.kind, "bold"), f" {_plain(one.path)}")
        tree.add(words.append(f"\n{one.relation}: {_plain(one.detail)}"))
    for line in found.damaged:
        tree.add(Text(_plain(line)))
    if not found.made:
        tree.add(Text("no model, person or video found that learned from it or was given it"))
    _say_tree(tree)
    if found.clips is not None:
        progress.say(count(found.clips))
        if options.clips:
            _say_clips(project, found.clips)


if __name__ == "__main__":
    sys.exit(main())
