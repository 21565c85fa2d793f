"""Words of strangers in the report, the card, tables, the study's page and the terminal."""

from __future__ import annotations

import csv
import html.parser
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import card, engine, manifest, progress, shard
from pipelines.errors import clean_detail, printable
from pipelines.manifest import ManifestReader, ManifestWriter
from pipelines.params import Params
from pipelines.summary import Summary, write_metrics

pytest.importorskip("jinja2", reason="the extra `card`")
pytest.importorskip("mlcroissant", reason="the extra `card`")

PAYLOADS = [
    "<script>alert('xss-1')</script>",
    "\"><img src=x onerror=alert('xss-2')>",
    "</script><svg/onload=alert('xss-3')>",
    "' autofocus onfocus=alert('xss-4') x='",
    "<!--<script>alert('xss-5')",
    "</title></style></template><iframe src=javascript:alert('xss-6')>",
    "{{ 7 * 191 }}{% for x in ().__class__.__base__.__subclasses__() %}xss-7{% endfor %}",
    "javascript:alert('xss-8')",
    "a | b | `rm -rf` | [click](javascript:alert('xss-9')) ![x](http://evil/pixel)",
    "=cmd|' /C calc'!A0",
    '"]]></script><script>alert("xss-10")</script>',
    "\u2028alert('xss-11')//",
]
Row = dict[str, Any]
TITLE = "</title><script>alert('title')</script>"


class Page(html.parser.HTMLParser):
    """What a browser would make of a page, as far as scripts go."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.handlers: list[str] = []
        self.links: list[str] = []
        self.scripts: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._inside = tag == "script"
        if self._inside:
            self.scripts.append("")
        for name, value in attrs:
            if name.startswith("on"):
                self.handlers.append(f"{tag} {name}={value}")
            if name in ("href", "src", "action", "formaction", "xlink:href", "data"):
                self.links.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[-1] += data


def read_page(text: str) -> Page:
    page = Page()
    page.feed(text)
    page.close()
    return page


def test_the_reader_of_pages_sees_what_gets_through() -> None:
    """Else the tests below could not fail."""
    bad = read_page("".join(PAYLOADS))
    assert {"script", "img", "svg", "iframe"} <= bad.tags
    assert bad.handlers and any("alert('xss-1')" in s for s in bad.scripts)
    assert any(link.startswith("javascript:") for link in bad.links)


@pytest.fixture
def carded(
    finished: Callable[..., Params], without_beam: Any, tmp_path: Path
) -> Callable[[dict[str, Any]], Path]:
    """Put payloads wherever a stranger's words go, and make the card."""

    def make(of_card: dict[str, Any]) -> Path:
        params = finished((3, 2, 4), card=of_card)
        engine.run(shard.prepare(params))
        inject(params)
        hostile = [{"name": p, "seconds": 9.0} for p in PAYLOADS]
        for stage in ("catalog", "download", "crop", "landmarks", "shard"):
            path = Path(params.paths.metrics, f"{stage}.json")
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps({"rows": 1, "slowest": hostile, "stage": PAYLOADS[0]}))
        card.build(params)
        return Path(params.paths.cards, params.name)

    return make


def inject(params: Params) -> None:
    """Clips that fail at every stage, with each payload as key, name and detail."""
    lost = {"catalog": "filtered", "crop": "too_small", "landmarks": "blurred"}
    added: dict[str, list[Row]] = {"catalog": [], "download": [], "crop": [], "landmarks": []}
    first = {stage: read(params, stage)[0] | {"status": "ok"} for stage in added}
    for payload in PAYLOADS:
        for at, stage in enumerate(lost):
            name = {"key": f"{at}{payload}", "video": f"{at}{payload}", "person": payload}
            name |= {"utterance": payload, "url": payload}
            for reached in list(lost)[: at + 1]:
                verdict = {"status": lost[stage], "detail": payload} if reached == stage else {}
                added[reached].append(first[reached] | name | verdict)
            if at:
                added["download"].append(first["download"] | name)
        gone = {"key": f"9{payload}", "video": f"9{payload}", "detail": payload}
        added["catalog"].append(first["catalog"] | gone)
        added["download"].append(first["download"] | gone | {"status": "removed"})
        added["crop"].append(first["crop"] | gone | {"status": "source_missing"})
    for stage, rows in added.items():
        url = params.paths.manifest(stage)
        schema = ManifestReader(url)._file.schema_arrow
        full = [{n: row.get(n) for n in schema.names} for row in read(params, stage) + rows]
        with ManifestWriter(url, schema) as writer:
            writer.write(pa.Table.from_pylist(full, schema=schema))


def read(params: Params, stage: str) -> list[Row]:
    rows: list[Row] = manifest.read(params.paths.manifest(stage)).to_pylist()
    return rows


def test_no_word_of_a_stranger_runs_in_a_page_of_the_report(carded: Any) -> None:
    folder = carded({"title": TITLE, "description": PAYLOADS[1], "homepage": PAYLOADS[7]})
    pages = sorted(folder.rglob("*.html"))
    assert pages
    shown = 0
    for path in pages:
        text = path.read_text()
        page = read_page(text)
        assert not page.handlers
        assert "iframe" not in page.tags and "object" not in page.tags
        assert not [link for link in page.links if re.match(r"\s*(javascript|vbscript):", link)]
        for script in page.scripts:
            assert not re.search(r"</|<!--", script), "data that could end or nest the script"
            for name in range(12):  # only as data: between quotes, never as code
                assert not re.search(rf"^[^\"]*alert\('xss-{name}'\)", script)
        assert str(7 * 191) not in text.replace(",", "") or "xss-7" not in text
        assert "{% for x in" in text or "xss-7" not in text  # shown as it is, never expanded
        shown += text.count("xss-")
        # And were one to slip through: nothing may be loaded.
        policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
        assert policy and "default-src 'none'" in policy[1]
        assert "unsafe-inline" not in re.sub(r"style-src[^;]*", "", policy[1])
    assert shown, "the payloads reached no page: the test looks at the wrong place"


def test_the_card_in_markdown_names_no_stranger_s_words(carded: Any) -> None:
    """Clips, videos and details are counted there and never listed."""
    folder = carded({})
    for path in (folder / "README.md", folder / "croissant.json"):
        text = path.read_text()
        assert not any(f"xss-{n}" in text for n in range(12))
        assert "rm -rf" not in text and "cmd|" not in text
    json.loads((folder / "croissant.json").read_text())


def test_tables_of_the_metrics_hold_statuses_and_numbers_alone(
    finished: Callable[..., Params], without_beam: Any
) -> None:
    params = finished()
    engine.run(shard.prepare(params))
    write_metrics(params, Summary("crop", "clips"))
    found = list(Path(params.paths.metrics).glob("*.csv"))
    assert found
    for path in found:
        with path.open() as file:
            for row in list(csv.reader(file))[1:]:
                assert re.fullmatch(r"[a-z_]+", row[0]) and row[1].isdigit()


def test_the_study_s_page_keeps_its_data_in_its_script() -> None:
    pytest.importorskip("torch", reason="the extra `train`")
    from training import user_study

    plain = read_page(user_study.page("plain", [], [], seed=0).decode())
    assert len(plain.scripts) >= 1
    for name in PAYLOADS:
        page = read_page(user_study.page(name, [], [], seed=0).decode())
        assert page.tags == plain.tags and not page.handlers
        assert len(page.scripts) == len(plain.scripts)
        assert not any("<!--" in script for script in page.scripts)


# --- the terminal -----------------------------------------------------------------------------

ESCAPES = [
    "\x1b[2J\x1b[H",
    "\x1b]0;owned\x07",
    "\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\",
    "\x9b2J",
    "\rlikeness: all true",
    "\x08" * 20,
    "\u202eevil",
    "\x00",
    "\ud800",
    "\x1bP$q\x1b\\",
]


@pytest.mark.parametrize("escape", ESCAPES, ids=ascii)
def test_what_is_said_cannot_steer_the_terminal(
    capsys: pytest.CaptureFixture[str], escape: str
) -> None:
    progress.complain(f"verify: {escape} is odd")
    progress.say(f"clip\t{escape}\nsecond line")
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and err.startswith("likeness: verify: ")
    assert out.count("\n") == 2 and out.count("\t") == 1
    for text in (out, err):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)


@given(st.text())
def test_any_detail_is_plain_text(text: str) -> None:
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", clean_detail(text))
    assert printable(text).isprintable()


def test_a_lie_that_names_a_hostile_key_cannot_steer_the_terminal(
    finished: Callable[..., Params],
    without_beam: Any,
    params_file: Callable[[Params], str],
    exit_codes: list[int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pipelines import verify

    params = finished()
    engine.run(shard.prepare(params))
    url = params.paths.manifest("shard")
    schema = ManifestReader(url)._file.schema_arrow
    rows = manifest.read(url).to_pylist()
    for row in rows:
        row["source"] = "\x1b]0;owned\x07"
    with ManifestWriter(url, schema) as writer:
        writer.write(pa.Table.from_pylist(rows, schema=schema))
    monkeypatch.setattr(sys, "argv", ["verify"])
    verify.main(["--params", params_file(params)])
    out, err = capsys.readouterr()
    assert exit_codes == [1] and "owned" in err
    assert "\x1b" not in out + err and "\x07" not in out + err
