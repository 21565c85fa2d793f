"""Numbers of three people written down by hand, and what is said of them."""

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


def test_a_difference_is_ours_less_theirs_person_by_person(summary: Summary) -> None:
    told = summary.differences[Cell("self", 8, "FT - nearest source", "SSIM")]
    assert told.mean == pytest.approx(0.3) and told.people == 3
    assert told.low == pytest.approx(0.3) and told.high == pytest.approx(0.3)  # alike for all
    unsure = summary.differences[Cell("self", 8, "FT - FF", "SSIM")]
    assert unsure.mean == pytest.approx(1 / 30) and unsure.low < 0 < unsure.high


def test_only_a_difference_that_is_sure_is_bold(summary: Summary) -> None:
    lines = table.markdown(summary, {}, [Metric("SSIM", "higher", 3)], [], [], []).splitlines()
    (sure,) = [line for line in lines if line.startswith("| FT − nearest source")]
    (unsure,) = [line for line in lines if line.startswith("| FT − FF")]
    assert "**+0.300 [+0.300, +0.300]**" in sure
    assert "+0.033" in unsure and "**" not in unsure


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
