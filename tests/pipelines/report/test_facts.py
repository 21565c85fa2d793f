"""Histograms: what is counted, and how it is drawn."""

import numpy as np
import pytest
from card_run import OF_STAGE
from markup import Page

from pipelines.report import charts, facts


def test_histograms_count_every_measured_clip(made):
    params, _ = made
    found = {chart.title: chart for chart in facts.read_histograms(params)}
    lost = len(OF_STAGE["landmarks"])
    for name in ("Yaw", "Sharpness", "Clip length", "Source frame rate", "Face in the source"):
        assert (found[name].kept.sum(), found[name].lost.sum()) == (20, lost), name
    chart = found["Face in the source"]  # 120 pixels of a crop shown at half its size
    assert chart.edges[chart.kept.argmax()] <= 240 < chart.edges[chart.kept.argmax() + 1]


@pytest.mark.parametrize("values", [[], [-1e9, 1e9], [5.0], [np.nan], list(range(100))])
def test_a_histogram_draws_whatever_comes(values):
    chart = facts.Histogram("Any", "px", np.linspace(0, 100, 11), (50.0, 200.0))
    known = np.array(values, float)
    chart.add(known, np.ones(len(known), bool))
    assert chart.kept.sum() == np.isfinite(known).sum()
    svg = charts.histogram_svg(chart)
    Page(svg)
    assert "nan" not in svg.lower() and "inf" not in svg
