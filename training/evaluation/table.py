"""An evaluation as Markdown for people, JSON for programs and flat numbers for DVC."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from training.evaluation.instruments import FOUND, LANDMARK_ERROR, Metric
from training.evaluation.methods import ORDER, UNTRAINED
from training.evaluation.person import CROSS, SELF
from training.evaluation.protocol import LeftOut
from training.evaluation.summary import COMPARED, Cell, Summary
from training.metrics.bootstrap import Estimate
from training.metrics.distribution import FEW_FRAMES, FEW_PEOPLE

NOTHING = "–"
MOST_NAMED = 5
"""Methods that a note names."""
TITLES = {
    SELF: "Self-reenactment: a person driven by held-out frames of the same video",
    CROSS: "Cross-reenactment: a person driven by another",
}

READING = (
    "Mean over people of each person's mean over frames; in brackets the percentile interval of "
    "{count:,} resamplings of people ({confidence:.0%}). FID and FD are over all frames of all "
    "people, without one; KID and KD beside them (unbiased, so 0 is no lower limit) have one over "
    "people where there are {few_people} or more.",
    "SSIM: Gaussian window 11 x 11, sigma 1.5, RGB 0..255. PSNR in dB. Landmark error: mean "
    "distance of 68 points / distance of the outer eye corners, between what the detector finds "
    "in the generated and in the real frame. Jitter: second differences of landmarks in time, over "
    "neighbours among the held-out frames, output over driver, 1 is best.",
    "CSIM of a frame without a detectable face is measured where the face should be; landmark "
    "error and jitter are over the frames with one, whose share is `found`.",
    "`nearest source`: the source frame whose landmarks are nearest after a similarity transform, "
    "copied. `mean of sources`: their mean picture. `untrained`: the same network before any "
    "training, FF. `real`: other real frames of the same video instead of generated ones, each "
    "against all that are held out: how alike real frames of a person are. A copy of a frame next "
    "to the target can be more alike.",
    "Cross-reenactment has no real frame to compare with: CSIM is to the person's own real frames, "
    "landmark error to the driver's landmarks after a similarity transform, FD to the person's "
    "real frames. Landmarks are not adapted to the person.",
)


def markdown(
    summary: Summary,
    head: Mapping[str, str],
    framewise: Sequence[Metric],
    distributional: Sequence[Metric],
    notes: Iterable[str],
    left_out: Iterable[LeftOut],
) -> str:
    """table.md."""
    settings = summary.settings
    lines = ["# Evaluation", "", *(f"- {key}: {value}" for key, value in head.items()), ""]
    lines += [f"> {note}\n" for note in notes]
    lines += _paper(summary, framewise, distributional)
    for mode in summary.modes:
        lines += [f"## {TITLES[mode]}", ""]
        for shots in summary.shots:
            lines += _table(summary, mode, shots, [*distributional, *framewise])
    lines += _differences(summary, framewise)
    lines += _left_out(left_out)
    count, confidence = settings.bootstrap, settings.confidence
    lines += ["## How to read this", ""]
    known = {"count": count, "confidence": confidence, "few_people": FEW_PEOPLE}
    lines += [f"- {line.format(**known)}" for line in READING]
    return "\n".join(lines) + "\n"


def _paper(
    summary: Summary, framewise: Sequence[Metric], distributional: Sequence[Metric]
) -> list[str]:
    """The table of arXiv 1905.08233: a row for each method, a column for each T."""
    csim = next((m for m in framewise if m.name.startswith("CSIM")), None)
    ssim = next(m for m in framewise if m.name == "SSIM")
    metrics = [m for m in (distributional[0] if distributional else None, ssim, csim) if m]
    lines = [f"## {' / '.join(m.name for m in metrics)}", ""]
    lines += header_lines(["", *(f"T={shots}" for shots in summary.shots)])
    for method in summary.methods:
        cells = [
            " / ".join(
                _value(summary.estimates.get(Cell(SELF, shots, method, metric.name)), metric)
                for metric in metrics
            )
            for shots in summary.shots
        ]
        lines.append(table_row([method, *cells]))
    return [
        *lines,
        "",
        "USER comes from people: send them user_study.html; `python -m training.user_study` prints "
        "this table with what they answer.",
        "",
    ]


def _table(summary: Summary, mode: str, shots: int, metrics: Sequence[Metric]) -> Iterator[str]:
    """All metrics of one T with their intervals; a method is a row."""
    cells = {c: e for c, e in summary.estimates.items() if (c.mode, c.shots) == (mode, shots)}
    metrics = [m for m in metrics if any(cell.metric == m.name for cell in cells)]
    people = max(estimate.people for estimate in cells.values())
    frames = summary.frames.get((mode, shots))
    yield f"### T = {shots}, {people} people" + (f", {frames:,} frames" if frames else "")
    yield ""
    yield from header_lines(["", *(_heading(metric) for metric in metrics)])
    for method in (name for name in ORDER if any(cell.method == name for cell in cells)):
        row = [cells.get(Cell(mode, shots, method, metric.name)) for metric in metrics]
        shown = (_interval(e, m, people) for e, m in zip(row, metrics, strict=True))
        yield table_row([method, *shown])
    yield ""


def _differences(summary: Summary, framewise: Sequence[Metric]) -> Iterator[str]:
    """Paired: the same people, so that what people differ by cancels out."""
    cells = {c: e for c, e in summary.differences.items() if e.people}
    if not cells:
        return
    metrics = [m for m in framewise if any(cell.metric == m.name for cell in cells)]
    yield "## Differences, paired by person"
    yield ""
    yield (
        f"Self-reenactment, over frames in which both have a value. **Bold** where the interval "
        f"holds no 0, of {FEW_PEOPLE} people or more: fewer agree by chance too often."
    )
    yield ""
    yield from header_lines(["", "T", *(_heading(metric) for metric in metrics)])
    pairs = list(dict.fromkeys((cell.method, cell.shots) for cell in cells))
    order = [f"{ours} - {theirs}" for ours, theirs in COMPARED]
    for method, shots in sorted(pairs, key=lambda pair: (order.index(pair[0]), pair[1])):
        row = [cells.get(Cell(SELF, shots, method, m.name)) for m in metrics]
        shown = []
        for estimate, metric in zip(row, metrics, strict=True):
            text = _interval(estimate, metric, estimate.people if estimate else 0, sign="+")
            enough = estimate and estimate.people >= FEW_PEOPLE
            sure = enough and estimate and (estimate.low > 0 or estimate.high < 0)
            shown.append(f"**{text}**" if sure else text)
        yield table_row([method.replace(" - ", " − "), str(shots), *shown])
    yield ""


def _left_out(left_out: Iterable[LeftOut]) -> list[str]:
    rows = [table_row([x.person, ", ".join(f"T={t}" for t in x.shots), x.why]) for x in left_out]
    return ["## Left out", "", *header_lines(["person", "of", "why"]), *rows, ""] if rows else []


def header_lines(cells: Sequence[str]) -> list[str]:
    """A Markdown table's first two lines."""
    return [table_row(cells), "|---" * len(cells) + "|"]


def table_row(cells: Iterable[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _heading(metric: Metric) -> str:
    mark = {"higher": " ↑", "lower": " ↓"}.get(metric.better, "")
    return f"{metric.name}{mark}" + (f" ({metric.unit})" if metric.unit else "")


def _value(estimate: Estimate | None, metric: Metric) -> str:
    if estimate is None or not math.isfinite(estimate.mean):
        return NOTHING
    return f"{estimate.mean * metric.scale:.{metric.digits}f}"


def _interval(estimate: Estimate | None, metric: Metric, people: int, sign: str = "") -> str:
    if estimate is None or not math.isfinite(estimate.mean):
        return NOTHING
    mean, low, high = (f"{x * metric.scale:{sign}.{metric.digits}f}" for x in estimate[:3])
    text = mean if not math.isfinite(estimate.low) else f"{mean} [{low}, {high}]"
    return text if estimate.people == people else f"{text} ({estimate.people} of {people} people)"


def notes(summary: Summary, absent: Iterable[str], extra: Iterable[str] = ()) -> Iterator[str]:
    """What a reader must know before the numbers."""
    yield from extra
    frames = min(summary.frames.values(), default=None)
    if frames is not None and frames < FEW_FRAMES:
        yield (
            f"{frames:,} frames: below {FEW_FRAMES:,} the Fréchet distance is biased upwards; "
            "compare methods within this table only, and by the kernel distance beside it."
        )
    if len(summary.people) < 2:
        yield "One person only: there are no intervals and no cross-reenactment."
    low = {
        f"{cell.method}, {cell.mode}, T={cell.shots}": estimate.mean
        for cell, estimate in summary.estimates.items()
        if cell.metric == FOUND and cell.method != UNTRAINED and estimate.mean < 1
    }
    if low:
        least = sorted(low, key=lambda name: low[name])[:MOST_NAMED]
        yield (
            "The detector found no face in some frames; found in "
            + "; ".join(f"{name}: {low[name]:.1%}" for name in least)
            + f". Their {LANDMARK_ERROR} is over those alone, which flatters who loses more."
        )
    yield from (f"Absent: {line}." for line in absent)


# --- for programs ----------------------------------------------------------------------------


def flat(summary: Summary, content: str) -> dict[str, float | str]:
    """metrics/evaluate.json: `<method>.T<T>.<metric>`, with `.cross` before the metric there.

    content: the backbones of the content loss that the model was trained with.
    """
    numbers: dict[str, float | str] = {"content_backbones": content}
    for cell, estimate in summary.estimates.items():
        if math.isfinite(estimate.mean):
            words = [cell.method, f"T{cell.shots}", *([CROSS] * (cell.mode == CROSS)), cell.metric]
            numbers[".".join(word.replace(" ", "_") for word in words)] = round(estimate.mean, 6)
    return numbers


def nested(summary: Summary) -> dict[str, Any]:
    """Means, intervals and every person's numbers, by mode, T, method and metric."""
    result: dict[str, Any] = {}
    for part, cells in (("all", summary.estimates), ("differences", summary.differences)):
        for cell, estimate in cells.items():
            _at(result, part, cell)[cell.metric] = {
                key: _finite(value) for key, value in estimate._asdict().items()
            }
    for cell, values in summary.per_person.items():
        _at(result, "people", cell)[cell.metric] = {
            person: _finite(value) for person, value in zip(summary.people, values, strict=True)
        }
    return result


def _at(tree: dict[str, Any], part: str, cell: Cell) -> dict[str, Any]:
    node = tree.setdefault(part, {}).setdefault(cell.mode, {})
    found: dict[str, Any] = node.setdefault(f"T={cell.shots}", {}).setdefault(cell.method, {})
    return found


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return round(float(value), 6) if math.isfinite(value) else None


def json_bytes(document: Any) -> bytes:
    """As every JSON file here is written."""
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()
