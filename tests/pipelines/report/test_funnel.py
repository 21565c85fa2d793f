"""Every clip is counted once."""

from pathlib import Path

from card_run import OF_STAGE

from pipelines.report.funnel import read_funnel
from pipelines.statuses import Status


def test_every_clip_is_counted_once(made):
    params, _ = made
    funnel = read_funnel(params)
    assert funnel.annotated == funnel.shards + sum(s.losses.total() for s in funnel.steps)
    download = {s: 3 for s in OF_STAGE["download"] if s != Status.EXCLUDED}
    expected = [
        {Status.BAD_ANNOTATION: 1, Status.FILTERED: 1, Status.EXCLUDED: 2},
        download,
        dict.fromkeys(OF_STAGE["crop"], 1),
        dict.fromkeys(OF_STAGE["landmarks"], 1),
    ]
    assert [dict(step.losses) for step in funnel.steps] == expected
    assert funnel.steps[2].rows[Status.SOURCE_MISSING] == 1 + sum(download.values())
    text = Path(params.paths.metrics, "funnel.csv").read_text().splitlines()
    assert text[0] == "verdict,clips" and text[-1] == f"shard: ok,{funnel.shards}"
    assert sum(int(r.split(",")[1]) for r in text[1:-1] if ": ok," not in r) == sum(
        step.losses.total() for step in funnel.steps
    )
