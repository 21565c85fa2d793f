"""Two drawings as inline SVG: the funnel and a histogram.

Colours come from the page's CSS variables, so that light and dark need one drawing each.
Every mark carries a <title>: a tooltip for the eye, words for a screen reader.
"""

from __future__ import annotations

import math
from html import escape

from pipelines.report.facts import Histogram
from pipelines.report.funnel import Funnel, Step, kind

# --- the funnel ------------------------------------------------------------------------------

WIDTH, TOP, BAND = 1000, 64, 190
"""The page's width, the first node's top edge, and the height of all annotated clips."""
NODE, GAP, RUN, LABEL = 12, 232, 52, 21
"""A node's width, the way to the next node, a loss's way down and its label's height."""
LEFT = (WIDTH - 4 * GAP - NODE) / 2
NAMES = {
    "catalog": "annotated",
    "download": "wanted",
    "crop": "downloaded",
    "landmarks": "cropped",
    "shard": "in shards",
}


def funnel_svg(funnel: Funnel) -> str:
    """Clips from annotation to shard; widths are proportional to clips."""
    scale = BAND / max(funnel.annotated, 1)
    parts: list[str] = []
    bottom = float(TOP + BAND)
    for at, step in enumerate(funnel.steps):
        x = LEFT + at * GAP
        drawn, low = _losses(step, x, scale, funnel.annotated)
        parts += [_main(x, step.clips_out * scale), *drawn]
        parts += _node(x, step.stage, step.clips_in, scale, funnel.annotated, "start")
        bottom = max(bottom, low)
    x = LEFT + len(funnel.steps) * GAP
    parts += _node(x, "shard", funnel.shards, scale, funnel.annotated, "end")
    height = math.ceil(bottom + 12)
    words = f"{funnel.annotated:,} annotated clips, {funnel.shards:,} in shards"
    return (
        f'<svg class="funnel" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="Funnel: {words}">{"".join(parts)}</svg>'
    )


def _node(x: float, stage: str, clips: int, scale: float, annotated: int, anchor: str) -> list[str]:
    height = max(clips * scale, 1)
    text_x = x if anchor == "start" else x + NODE
    share = f"{clips / annotated:.1%}" if annotated else ""
    return [
        f'<rect class="node" x="{x:.1f}" y="{TOP}" width="{NODE}" height="{height:.1f}" rx="2"/>',
        f'<text class="big" x="{text_x:.1f}" y="26" text-anchor="{anchor}">{clips:,}</text>',
        f'<text class="soft" x="{text_x:.1f}" y="46" text-anchor="{anchor}">'
        f"{NAMES[stage]} · {share}</text>",
    ]


def _main(x: float, height: float) -> str:
    if not height:
        return ""
    return (
        f'<rect class="flow" x="{x + NODE:.1f}" y="{TOP}" width="{GAP - NODE}" '
        f'height="{height:.1f}"/>'
    )


def _losses(step: Step, x: float, scale: float, annotated: int) -> tuple[list[str], float]:
    """Ribbons that leave the band's lower edge, each to its own label; and the lowest point."""
    parts = []
    source = TOP + step.clips_out * scale
    target = source + 20
    if step.losses:
        # The stage's name and its sum head the list.
        parts.append(
            f'<text class="lost" x="{x + NODE + RUN + 10:.1f}" y="{target + 14:.1f}">'
            f'{step.stage} <tspan class="count">−{step.losses.total():,}</tspan></text>'
        )
        target += LABEL
    for status, clips in step.ordered:
        thick = clips * scale
        drawn = max(thick, 1.0)
        end = x + NODE + RUN
        y0, y1 = source + thick / 2, target + max(thick, LABEL) / 2
        title = f"{clips:,} clips lost at {step.stage}: {status} ({clips / annotated:.1%})"
        parts.append(
            f'<g class="loss {kind(status)}"><title>{escape(title)}</title>'
            f"{_ribbon(x + NODE, y0, end, y1, drawn)}"
            f'<rect x="{end:.1f}" y="{y1 - max(drawn, 4) / 2:.1f}" width="4" '
            f'height="{max(drawn, 4):.1f}" rx="1"/>'
            f'<text x="{end + 10:.1f}" y="{y1 + 4:.1f}">{escape(status)} '
            f'<tspan class="count">{clips:,}</tspan></text></g>'
        )
        source += thick
        target += max(thick, LABEL)
    return parts, target


def _ribbon(x0: float, y0: float, x1: float, y1: float, thick: float) -> str:
    """An area as high as `thick` everywhere, so that neighbours never cross."""
    half, middle = thick / 2, (x0 + x1) / 2
    return (
        f'<path d="M{x0:.1f} {y0 - half:.2f}C{middle:.1f} {y0 - half:.2f} '
        f"{middle:.1f} {y1 - half:.2f} {x1:.1f} {y1 - half:.2f}V{y1 + half:.2f}"
        f"C{middle:.1f} {y1 + half:.2f} {middle:.1f} {y0 + half:.2f} "
        f'{x0:.1f} {y0 + half:.2f}Z"/>'
    )


# --- histograms ------------------------------------------------------------------------------

W, H, LOW, HIGH = 320, 150, 124, 18
"""The drawing, and where its bars begin and end."""


def histogram_svg(chart: Histogram) -> str:
    """Bars for what passed with what was turned away on top; thresholds as dashed lines."""
    first, last = _shown(chart)
    total = int((chart.kept + chart.lost).sum())
    peak = max(int((chart.kept + chart.lost).max()), 1)
    step = (W - 8) / (last - first)
    scale = (LOW - HIGH) / peak
    parts = []
    for at in range(first, last):
        kept, lost = int(chart.kept[at]), int(chart.lost[at])
        if not kept + lost:
            continue
        x = 4 + (at - first) * step
        words = f"{_range(chart, at)}: {kept:,} clips" + (f", {lost:,} turned away" if lost else "")
        # A single clip among a million still shows.
        top = max(kept * scale, 1.5 if kept else 0)
        above = max(lost * scale, 1.5 if lost else 0)
        parts.append(f"<g><title>{escape(words)}</title>")
        for name, y, height in (("bar", LOW - top, top), ("bar lost", LOW - top - above, above)):
            if height:
                parts.append(
                    f'<rect class="{name}" x="{x + 0.5:.1f}" y="{y:.1f}" '
                    f'width="{max(step - 1, 1):.1f}" height="{height:.1f}"/>'
                )
        parts.append("</g>")
    parts.append(f'<path class="axis" d="M4 {LOW + 0.5}H{W - 4}"/>')
    for limit in chart.limits:
        if (place := _place(chart, limit, first, last)) is not None:
            x = 4 + place * step
            title = f"the limit of params.yaml: {number(limit)} {chart.unit}"
            parts.append(
                f"<g><title>{escape(title)}</title>"
                f'<path class="limit" d="M{x:.1f} {HIGH}V{LOW}"/></g>'
            )
    parts += _ticks(chart, first, last, step)
    parts.append(
        f'<text class="tick" x="{W - 4}" y="{HIGH - 4}" text-anchor="end">'
        f"{f'highest bar {peak:,}' if total else 'no values'}</text>"
    )
    away = int(chart.lost.sum())
    words = f"Histogram of {chart.title}: {total:,} clips, {away:,} of them turned away"
    return (
        f'<svg class="histogram" viewBox="0 0 {W} {H}" role="img" '
        f'aria-label="{escape(words)}">{"".join(parts)}</svg>'
    )


def _range(chart: Histogram, at: int) -> str:
    """What a bin holds, in words; the first and the last also hold all that lies beyond."""
    low, high = (f"{number(edge)} {chart.unit}".strip() for edge in chart.edges[at : at + 2])
    if at == 0:
        return f"less than {high}"
    if at == len(chart.edges) - 2:
        return f"{low} or more"
    return f"{number(chart.edges[at])} to {high}"


def _shown(chart: Histogram) -> tuple[int, int]:
    """The bins to show: those that hold something and a margin, at least a third of them."""
    total = chart.kept + chart.lost
    filled = total.nonzero()[0]
    bins = len(total)
    if not len(filled):
        return 0, bins
    first, last = int(filled[0]) - 1, int(filled[-1]) + 2
    spare = max(bins // 3 - (last - first), 0)
    first, last = first - spare // 2, last + spare - spare // 2
    if first < 0:
        first, last = 0, last - first
    return max(first - max(last - bins, 0), 0), min(last, bins)


def _place(chart: Histogram, value: float, first: int, last: int) -> float | None:
    """Where a value lies, in bins from the first one shown; None outside."""
    edges = chart.edges
    if not edges[first] <= value <= edges[last]:
        return None
    at = min(int(edges.searchsorted(value, side="right")) - 1, last - 1)
    return at - first + float((value - edges[at]) / (edges[at + 1] - edges[at]))


def _ticks(chart: Histogram, first: int, last: int, step: float) -> list[str]:
    """A few round numbers below the axis."""
    parts = []
    for value in round_values(float(chart.edges[first]), float(chart.edges[last]), chart.log):
        place = _place(chart, value, first, last)
        if place is None:
            continue
        x = 4 + place * step
        anchor = "start" if x < 14 else "end" if x > W - 14 else "middle"
        parts.append(
            f'<path class="axis" d="M{x:.1f} {LOW}v4"/>'
            f'<text class="tick" x="{x:.1f}" y="{LOW + 17}" text-anchor="{anchor}">'
            f"{number(value)}</text>"
        )
    return parts


def round_values(low: float, high: float, log: bool) -> list[float]:
    """Up to seven round numbers from low to high: powers of two, or 1, 2 or 5 times ten to n."""
    if log:
        powers = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
        return [2.0**power for power in powers[:: 1 + len(powers) // 8]]
    rough = (high - low) / 7
    ten = 10.0 ** math.floor(math.log10(rough))
    step = next(ten * factor for factor in (1, 2, 5, 10) if ten * factor >= rough)
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def number(value: float) -> str:
    """Short: 12, 0.25, 1,024."""
    value = float(value)
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}".replace("-", "−")
