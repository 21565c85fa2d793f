"""Doctor: find before a long run what would fail during it, and say what the run will take.

One line a check: ok, warn or fail, and the remedy; exits with 1 when one failed. `--plan` prints
the estimate of this catalog alone, `--plan --dataset voxceleb2-full` that of all VoxCeleb2:
CPU hours, wall hours, bytes and money, with everything that was assumed.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from pipelines import progress
from pipelines.command import EXIT_OK, EXIT_STOPPED, arguments, guarded
from pipelines.doctor import checks
from pipelines.doctor.corpus import count, voxceleb2
from pipelines.doctor.plan import Plan, Prices, estimate, workers_of
from pipelines.errors import UserError
from pipelines.params import Params, load
from pipelines.params.training import Evaluate, Ray

UNTRAINED = {"settings": {}, "ray": Ray(), "evaluate": Evaluate()}
"""Sections of params.yaml as they ask for nothing beyond the dataset."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made, prices = arguments(__doc__ or ""), Prices()
    made.add_argument("--plan", action="store_true", help="the estimate alone")
    made.add_argument(
        "--rebuild", action="store_true", help="the dataset alone: nothing of training"
    )
    made.add_argument(
        "--dataset", choices=("this", "voxceleb2-full"), default="this", help="what to plan"
    )
    made.add_argument("--workers", type=int, metavar="N", help="default: as beam.options say")
    made.add_argument(
        "--samples-per-second", type=float, metavar="X", help="of training, as you measured it"
    )
    for name, default in vars(prices).items():
        flag = f"--price-{name.replace('_', '-')}"
        made.add_argument(flag, type=float, default=default, metavar="$", help=f"{default:g}")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m pipelines.doctor`."""
    line = parser()
    options = line.parse_args(argv)

    def command() -> int:
        # What would change nothing is said rather than ignored.
        others = {"plan", "params", "rebuild"}
        given = [
            k for k, v in vars(options).items() if v != line.get_default(k) and k not in others
        ]
        if given and not options.plan:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise UserError(f"{flags}: only with --plan; add it")
        params = load(options.params)
        if options.rebuild:
            params = params.model_copy(update=UNTRAINED)
        if not options.plan:
            return examine(params)
        workers = workers_of(params) if options.workers is None else options.workers
        rate = options.samples_per_second
        names = ("cpu_hour", "gb_month", "gpu_hour", "egress_gb")
        prices = Prices(**{name: getattr(options, f"price_{name}") for name in names})
        numbers = (rate or 0.0, *vars(prices).values())
        if workers < 1 or (rate is not None and rate <= 0) or min(vars(prices).values()) < 0:
            raise UserError(
                "--workers and --samples-per-second must be positive, prices not below 0"
            )
        if not all(map(math.isfinite, numbers)):
            raise UserError("--samples-per-second and prices must be finite numbers")
        try:
            corpus = count(params) if options.dataset == "this" else voxceleb2(params)
        except UserError as error:
            hint = "; without the lists, --dataset voxceleb2-full plans with the published totals"
            raise UserError(f"{error}{hint}") from None
        show(estimate(params, corpus, workers, rate), prices)
        return EXIT_OK

    return guarded(command)


def examine(params: Params) -> int:
    """Run the checks; 1 when one failed."""
    levels: Counter[str] = Counter()
    for verdict in checks.run(params):
        levels[verdict.level] += 1
        progress.say(verdict.line())
        sys.stdout.flush()
    words = ", ".join(f"{levels[level]} {level}" for level in ("ok", "warn", "fail"))
    progress.say(f"doctor: {words}")
    return EXIT_STOPPED if levels["fail"] else EXIT_OK


def show(plan: Plan, prices: Prices) -> None:
    """The estimate as a table, and what it rests on."""
    table = Table(title=f"{plan.corpus.name}: what it will take", title_justify="left")
    table.add_column("stage")
    for column in ("work", "CPU hours", "wall hours", "GPU hours", "GB", "$"):
        table.add_column(column, justify="right")
    table.add_column("note", overflow="fold")
    for stage in plan.stages:
        table.add_row(
            stage.name,
            stage.units,
            *(
                _number(s / 3600)
                for s in (stage.cpu_seconds, stage.wall_seconds, stage.gpu_seconds)
            ),
            _number(stage.bytes / 1e9),
            _number(stage.money(prices)),
            stage.note,
        )
    cpu, wall, gpu = (
        sum(getattr(stage, name) for stage in plan.stages) / 3600
        for name in ("cpu_seconds", "wall_seconds", "gpu_seconds")
    )
    money = sum(stage.money(prices) for stage in plan.stages)
    totals = (_number(n) for n in (cpu, wall, gpu, plan.disk / 1e9, money))
    table.add_section()
    table.add_row(plan.whole, "", *totals, f"{plan.memory / 1e9:.1f} GB of memory at once")
    Console(width=None if sys.stdout.isatty() else 130).print(table)
    given = ", ".join(
        f"{name.replace('_', ' ')} ${value:g}" for name, value in vars(prices).items()
    )
    for words in (*plan.assumptions, f"prices: {given}; bytes are paid for one month"):
        progress.say(f"assumed: {words}")


def _number(value: float) -> str:
    if not value:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
