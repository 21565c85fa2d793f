"""Numbers of people written down by hand, and what is said of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipelines.params.training import Evaluate
from training.evaluation import table
from training.evaluation.instruments import Metric
from training.evaluation.summary import Cell, Summary

FRAMES = {  # by method, for each person the SSIM of two frames
    "FT": [(0.7, 0.9), (0.6, 0.8), (0.5, 0.7)],
    "FF": [(0.4, 0.6), (0.6, 0.8), (0.7, 0.9)],
    "nearest source": [(0.5, 0.5), (0.4, 0.4), (np.nan, 0.3)],
}


@pytest.fixture
def summary() -> Summary:
    records = [
        {f"scores/self/8/{method}/SSIM": np.array(people[at]) for method, people in FRAMES.items()}
        for at in range(3)
    ]
    return Summary(["a", "b", "c"], records, [Metric("SSIM", "higher", 3)], [], Evaluate())


def test_a_mean_is_over_people_of_means_over_frames(summary: Summary) -> None:
    means = {cell.method: estimate.mean for cell, estimate in summary.estimates.items()}
    assert means == pytest.approx({"FT": 0.7, "FF": 2.0 / 3, "nearest source": 0.4})


def test_a_difference_is_ours_less_theirs_frame_by_frame(summary: Summary) -> None:
    told = summary.differences[Cell("self", 8, "FT - nearest source", "SSIM")]
    # Of the third person the first frame has no value of theirs, so that ours does not count.
    assert told.mean == pytest.approx((0.3 + 0.3 + 0.4) / 3) and told.people == 3
    assert told.low == pytest.approx(0.3) and told.high == pytest.approx(0.4)
    unsure = summary.differences[Cell("self", 8, "FT - FF", "SSIM")]
    assert unsure.mean == pytest.approx(1 / 30) and unsure.low < 0 < unsure.high


@pytest.mark.parametrize("times", [1, 2])
def test_only_a_difference_that_is_sure_is_bold(times: int) -> None:
    """Of three people, too few to be sure of anything, and of six."""
    records = [
        {f"scores/self/8/{method}/SSIM": np.array(people[at]) for method, people in FRAMES.items()}
        for at in list(range(3)) * times
    ]
    ssim = Metric("SSIM", "higher", 3)
    names = [f"p{at}" for at in range(len(records))]
    summary = Summary(names, records, [ssim], [], Evaluate())
    lines = table.markdown(summary, {}, [ssim], [], [], []).splitlines()
    (sure,) = [line for line in lines if line.startswith("| FT − nearest source")]
    (unsure,) = [line for line in lines if line.startswith("| FT − FF")]
    assert "+0.333 [+0.300, +0." in sure and ("**" in sure) == (times == 2)
    assert "+0.033" in unsure and "**" not in unsure


def test_who_loses_faces_is_named_and_the_untrained_network_does_not_hide_them() -> None:
    shares = {"untrained": 0.0, "FF": 0.375, "FT": 1.0}
    records = [
        {f"scores/self/1/{method}/found": np.array([share]) for method, share in shares.items()}
        for _ in range(2)
    ]
    summary = Summary(["a", "b"], records, [Metric("found", "higher", 1)], [], Evaluate())
    (note,) = [line for line in table.notes(summary, []) if "found no face" in line]
    assert "found in FF, self, T=1: 37.5%." in note and "untrained" not in note


@pytest.mark.parametrize("people", [2, 4, 5])
def test_a_kernel_distance_of_few_people_has_no_interval_in_table_and_json(people: int) -> None:
    rng = np.random.default_rng(0)
    records = [
        {
            "scores/self/8/FF/SSIM": np.array([0.5, 0.6]),
            "features/self/8/FF/squeezenet": rng.normal(size=(3, 6)),
            "features/real/squeezenet": rng.normal(size=(3, 6)),
        }
        for _ in range(people)
    ]
    ssim, kernel = Metric("SSIM", "higher", 3), Metric("KD-squeezenet", "lower", 2)
    names = [f"p{at}" for at in range(people)]
    summary = Summary(names, records, [ssim], ["squeezenet"], Evaluate())
    text = table.markdown(summary, {}, [ssim], [kernel], [], [])
    row = next(line for line in text.splitlines() if line.startswith("| FF") and "0.550 [" in line)
    told = json.loads(table.json_bytes(table.nested(summary)))
    kd = told["all"]["self"]["T=8"]["FF"]["KD-squeezenet"]
    mean = f"| {kd['mean']:.2f} "
    if people < 5:
        assert f"{mean}|" in row and kd["low"] is None and kd["high"] is None
    else:
        assert f"{mean}[" in row and kd["low"] <= kd["mean"] <= kd["high"]
    assert "have one over people where there are 5 or more" in text
