"""`python -m pipelines`: the stages, and what each would do now."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from rich.table import Table

from pipelines import engine, progress, storage
from pipelines.command import EXIT_OK, arguments, guarded
from pipelines.errors import StopStage, UserError
from pipelines.params import Params, load

BEAM_STAGES = ("download", "crop", "landmarks", "shard")
TRAINING = {
    "training.meta_train": "meta-learns the networks of the setting, on Ray Train",
    "training.evaluate": "measures the trained model on people it never saw",
}
"""The DVC stages after the card. Named only: asking them would need torch."""
TOOLS = {
    "pipelines.report": "the card's report with the training runs; report.compare: two datasets",
    "pipelines.doctor": "find today what would fail later; --plan: hours, bytes, money",
    "pipelines.forget": "take people out, and prove that nothing remains",
    "pipelines.lineage": "from a file back to clips and links, from a clip on to all it touched",
    "pipelines.prune": "free the work folder of what older versions and settings left",
    "pipelines.verify": "re-read manifests and tars and stop at the first lie",
    "pipelines.sample": "build and serve the embedded sample, run the demo",
    "training.adapt": "learn one person from a few frames",
    "training.animate": "bring portraits to life with a driver's motion",
    "training.user_study": "USER, of what raters answered to an evaluation's page",
    "training.inspect": "did Likeness make this file, and is it as it was made?",
}


def outlook(params: Params, stage: str) -> str:
    """What a Beam stage would do if it were run now."""
    try:
        job = importlib.import_module(f"pipelines.{stage}").prepare(params)
    except UserError as error:
        return f"waits: {error}"
    except StopStage as error:
        return f"cannot start: {error}"
    pending = engine.pending_items(job, frozenset())
    if not pending:
        fresh = "" if storage.exists(job.manifest) else "; writes its manifest"
        return f"nothing: all {len(job.items)} items are done{fresh}"
    rows = sum(item.total for item in pending)
    return f"{len(pending)} of {len(job.items)} items to do, {rows} {job.unit}"


def _catalog_outlook(params: Params) -> str:
    there = storage.exists(params.paths.manifest("catalog"))
    sources = ", ".join(source.name for source in params.catalog.sources)
    return f"{'writes again from' if there else 'reads'} {sources}"


def main(argv: Sequence[str] | None = None) -> int:
    """List the stages with what each would do now."""
    options = arguments(__doc__ or "").parse_args(argv)

    def command() -> int:
        params = load(options.params)
        table = Table(title=f"{options.params}: {params.name}", title_justify="left")
        table.add_column("python -m", no_wrap=True)
        table.add_column("now", overflow="fold")
        table.add_row("pipelines.catalog", _catalog_outlook(params))
        for stage in BEAM_STAGES:
            table.add_row(f"pipelines.{stage}", outlook(params, stage))
        table.add_row("pipelines.card", "writes the card and the report from the manifests")
        for stage, words in TRAINING.items():
            table.add_row(stage, words)
        table.add_section()
        for tool, words in TOOLS.items():
            table.add_row(tool, words)
        progress.Page(width=None if sys.stdout.isatty() else 110, markup=False).print(table)
        progress.say("Each takes --help; `dvc repro` runs those above the line in order.")
        return EXIT_OK

    return guarded(command)


if __name__ == "__main__":
    sys.exit(main())
