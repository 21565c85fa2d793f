"""A loss over the steps as a small inline SVG: the mean, and how far single steps stray."""

from __future__ import annotations

from html import escape

import numpy as np
import numpy.typing as npt

from pipelines.report.charts import number, round_values

Points = list[tuple[int, float]]
"""(step, value)"""
Floats = npt.NDArray[np.float64]

W, H, LEFT, RIGHT, HIGH, LOW = 320, 170, 44, 314, 10, 146
"""The drawing and its frame."""
BUCKETS = 120
"""Runs of steps that become one point."""


def curve_svg(name: str, points: Points) -> str:
    """The drawing. Steps are put together in equal runs, so that any length reads alike."""
    steps = np.array([step for step, _ in points], np.float64)
    values = np.array([value for _, value in points], np.float64)
    first, last = float(steps.min()), float(steps.max())
    width = max((last - first) / BUCKETS, 1.0)
    bucket = np.minimum((steps - first) // width, BUCKETS - 1).astype(np.int64)
    used = np.unique(bucket)
    groups = [values[bucket == at] for at in used]
    middle = np.array([group.mean() for group in groups])
    low = np.array([group.min() for group in groups])
    high = np.array([group.max() for group in groups])
    place = np.array([steps[bucket == at].mean() for at in used])

    bottom, top = _frame(middle, low, high)
    x = LEFT + (place - first) / max(last - first, 1.0) * (RIGHT - LEFT)

    def y(of: Floats) -> Floats:
        inside: Floats = np.clip(of, bottom, top)
        return LOW - (inside - bottom) / (top - bottom) * (LOW - HIGH)

    edge = [*zip(x, y(high), strict=True), *reversed(list(zip(x, y(low), strict=True)))]
    words = (
        f"{name.replace('_', ' ')} over {len(points):,} steps: "
        f"{number(middle[0])} at first, {number(middle[-1])} at last"
    )
    parts = [f'<path class="band" d="M{_path(edge)}Z"/>'] if len(x) > 1 else []
    for value in round_values(bottom, top, log=False):
        at = LOW - (value - bottom) / (top - bottom) * (LOW - HIGH)
        parts.append(
            f'<path class="rule" d="M{LEFT} {at:.1f}H{RIGHT}"/>'
            f'<text class="tick" x="{LEFT - 5}" y="{at + 4:.1f}" text-anchor="end">'
            f"{number(value)}</text>"
        )
    for value, anchor in ((first, "start"), (last, "end")):
        at = LEFT if anchor == "start" else RIGHT
        parts.append(
            f'<text class="tick" x="{at}" y="{LOW + 17}" text-anchor="{anchor}">'
            f"{'step ' if anchor == 'start' else ''}{value:,.0f}</text>"
        )
    line = list(zip(x, y(middle), strict=True))
    # One step is a point, which needs a length to be seen.
    drawn = _path(line) if len(line) > 1 else f"{line[0][0]:.1f} {line[0][1]:.1f}h3"
    parts.append(f'<path class="mean" d="M{drawn}"/>')
    return (
        f'<svg class="curve" viewBox="0 0 {W} {H}" role="img" aria-label="{escape(words)}">'
        f"<title>{escape(words)}</title>{''.join(parts)}</svg>"
    )


def _frame(middle: Floats, low: Floats, high: Floats) -> tuple[float, float]:
    """The values at the bottom and the top: all means, and most of how far steps stray."""
    bottom = min(float(middle.min()), float(np.quantile(low, 0.1)))
    top = max(float(middle.max()), float(np.quantile(high, 0.9)))
    room = (top - bottom) * 0.06 or max(abs(top), 1.0) * 0.1
    return bottom - room, top + room


def _path(points: list[tuple[float, float]]) -> str:
    return "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
