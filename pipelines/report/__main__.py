"""Report: the card's report.html, and the training runs that used the dataset.

Reads the manifests as the card stage does, and finds the runs below paths.work and paths.models
whose facts name this dataset's index. Writes <paths.results>/report.html, or where -o says. It
is no DVC stage: training comes after the card and may still be under way.

Exits with 0 when the page is written, 1 when it had to stop, 2 for a mistake in the call or in
params.yaml, 130 after Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pipelines import outputs, progress, storage
from pipelines.command import EXIT_OK, arguments, guarded
from pipelines.errors import UserError
from pipelines.params import MANIFESTS, load
from pipelines.report.facts import read_dataset, read_histograms
from pipelines.report.funnel import read_funnel
from pipelines.report.page import report
from pipelines.report.templating import size
from pipelines.report.training import read_training


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m pipelines.report`."""
    parser = arguments(__doc__ or "")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="default: <paths.results>/report.html"
    )
    options = parser.parse_args(argv)

    def command() -> int:
        out = options.output
        if out and storage.is_local(out) and storage.local_path(out).is_dir():
            file = storage.join(out, "report.html")
            raise UserError(f"-o {out}: is a folder; name a file, such as {file}")
        params = load(options.params)
        if out:
            inputs = [("a manifest", params.paths.manifest(stage)) for stage in MANIFESTS]
            outputs.check_file("-o", out, [*inputs, ("--params", options.params)])
        funnel, dataset = read_funnel(params), read_dataset(params)
        training = read_training(params, dataset.digest)
        url = out or storage.join(params.paths.results, "report.html")
        page = report(params, funnel, dataset, read_histograms(params), training)
        storage.write_bytes(url, page)
        for note in training.notes:
            progress.complain(note)
        runs = [f"{run.name} (step {run.step:,})" for run in training.runs]
        progress.say(f"report: training runs of this dataset: {', '.join(runs) or 'none'}")
        progress.say(f"report: wrote {url}, {size(len(page))}")
        return EXIT_OK

    return guarded(command)


if __name__ == "__main__":
    sys.exit(main())
