"""The report as text: what it tells, what it escapes, what it does not say."""

import base64
import hashlib
import json
import re

import pyarrow.parquet as pq
from card_run import BAD_KEY, HOSTILE, OF_STAGE, SECRET
from markup import Page

from pipelines import card
from pipelines.report.funnel import read_funnel
from pipelines.report.table import rows_of
from pipelines.statuses import STATUS, Status


def text_of(folder):
    return (folder / "report.html").read_text()


def test_everything_is_inside_and_escaped(made):
    _, folder = made
    text = text_of(folder)
    assert HOSTILE not in text and "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "\\u003cscript>alert(1)" in text, "the table's copy of it"
    page = Page(text)
    assert all(a.startswith(("#", "data:image/jpeg;base64,")) for a in page.addresses)
    anchors = {a[1:].split("&")[0] for a in page.addresses if a.startswith("#")}
    assert anchors <= page.ids
    assert page.tags["img"] == 6 and page.tags["script"] == 3
    assert not re.search(r"https?://", text), "an address of a network"


def test_only_the_pages_own_scripts_may_run(made):
    _, folder = made
    text = text_of(folder)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    allowed = re.search(r"script-src ([^;]*)", policy)[1].split()
    assert allowed == [f"'sha256-{digest}'" for digest in digests]
    assert "default-src 'none'" in policy and "require-trusted-types-for 'script'" in policy


def test_every_status_has_a_page(made):
    params, folder = made
    text = text_of(folder)
    page = Page(text)
    for step in read_funnel(params).steps:
        for status, clips in step.ordered:
            assert f"{clips:,} clips lost at {step.stage}: {status} (" in text
            assert f"status={status}" in page.ids
    assert {i for i in page.ids if i.startswith("status=")} == {
        f"status={s}" for s in STATUS if s != Status.OK
    }
    assert "2 clips taken out on request are counted, never listed." in text
    assert "No metrics were found for: catalog, download, landmarks, shard." in text
    assert "4.25" in text and "321 MiB" in text
    assert "python -m pipelines.download --retry geo_blocked\ndvc repro" in text


def test_the_table_has_every_clip_but_those_taken_out(made):
    params, folder = made
    rows = {row["key"]: row for row in rows_of(text_of(folder))}
    catalog = pq.read_table(params.paths.manifest("catalog"))
    kept = catalog.filter(pc_not(catalog["status"], "excluded"))
    assert set(rows) == set(kept["key"].to_pylist())
    assert rows["id0_v00_00000"]["status"] == "ok" and rows["id0_v00_00000"]["split"] == "train"
    lost = rows["idx_vdownloadremoved_00001"]
    assert (lost["status"], lost["stage"], lost["words"]) == ("removed", "download", HOSTILE)
    assert rows[BAD_KEY]["status"] == "bad_annotation"
    for stage, statuses in OF_STAGE.items():
        found = {row["status"] for row in rows.values() if row["stage"] == stage}
        assert found == set(statuses) - {Status.EXCLUDED}, stage
    assert SECRET not in text_of(folder) and "excluded" not in {r["person"] for r in rows.values()}


def pc_not(column, word):
    import pyarrow.compute as pc

    return pc.not_equal(column, word)


def test_the_report_is_the_same_bytes_again(made, tmp_path):
    params, folder = made
    again = params.model_copy(
        update={"paths": params.paths.model_copy(update={"cards": str(tmp_path)})}
    )
    card.build(again)
    assert (tmp_path / "small/report.html").read_bytes() == (folder / "report.html").read_bytes()


def test_the_cards_report_knows_no_training(made):
    _, folder = made
    assert 'id="training"' not in text_of(folder)
    assert "training" not in json.loads((folder / "croissant.json").read_text())
