"""Histograms: what is counted, and how it is drawn."""

import re

import numpy as np
import pytest
from card_run import OF_STAGE, add_source, build_run, make_params
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


def test_an_id_of_two_sources_is_one_person_and_the_card_says_so(made, tmp_path):
    params, _ = made
    assert "sources" not in facts.read_dataset(params).split_words
    both = make_params(tmp_path)
    build_run(both)
    add_source(both, "wax")
    dataset = facts.read_dataset(both)
    assert len(dataset.total.people) == 5 and len(dataset.total.videos) == 20
    assert dataset.split_words == (
        "All clips of a person are in the same split. Who has the same id in several sources "
        "counts as one person."
    )


@pytest.mark.parametrize("values", [[], [-1e9, 1e9], [5.0], [np.nan], list(range(100))])
def test_a_histogram_draws_whatever_comes(values):
    chart = facts.Histogram("Any", "px", np.linspace(0, 100, 11), (50.0, 200.0))
    known = np.array(values, float)
    chart.add(known, np.ones(len(known), bool))
    assert chart.kept.sum() == np.isfinite(known).sum()
    svg = charts.histogram_svg(chart)
    Page(svg)
    assert "nan" not in svg.lower() and "inf" not in svg


def test_the_end_bins_say_that_they_hold_all_beyond():
    chart = facts.Histogram("Clip length", "s", np.linspace(0, 24, 49))
    chart.add(np.array([0.1, 12.2, 23.9, 30.0, 500.0]), np.ones(5, bool))
    titles = re.findall("<title>(.*?)</title>", charts.histogram_svg(chart))
    assert titles == [
        "less than 0.5 s: 1 clips", "12 to 12.5 s: 1 clips", "23.5 s or more: 3 clips",
    ]  # fmt: skip
    plain = facts.Histogram("Confidence", "", np.linspace(0, 1, 3))
    plain.add(np.array([0.2, 0.9]), np.ones(2, bool))
    titles = re.findall("<title>(.*?)</title>", charts.histogram_svg(plain))
    assert titles == ["less than 0.5: 1 clips", "0.5 or more: 1 clips"]
