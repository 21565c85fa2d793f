"""The user study: a page that gives nothing away and counts right, and USER from its answers."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.errors import UserError
from training import user_study
from training.evaluation.protocol import Part
from training.index import VideoKey

SIDE = 32


def picture(value: int) -> np.ndarray:
    noise = np.random.default_rng(value).integers(-20, 20, (SIDE, SIDE, 3))
    return (value + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def study() -> tuple[list[Part], list[dict[str, np.ndarray]]]:
    """Four people; what is generated is smooth and light, what is real is noisy and dark."""
    parts, records = [], []
    for person in ("id1", 'o"dd, id2', "id3", "</script>"):
        parts.append(Part(VideoKey("vox", person, "v"), {1: (1,), 8: (1, 2)}, (3,), (4,), (5,)))
        record = {
            f"study/{t}/{m}": np.full((SIDE, SIDE, 3), 220, np.uint8)
            for t in (1, 8)
            for m in ("FF", "FT")
        }
        record["study/real"] = np.stack([picture(40 + i) for i in range(6)])
        records.append(record)
    return parts, records


@pytest.fixture(scope="module")
def html(study) -> str:
    return user_study.page("tiny", *study, seed=3).decode()


def document_text(html: str) -> str:
    return re.search(r'<script type="application/json" id="study">(.*?)</script>', html)[1]


def document(html: str) -> dict:
    return json.loads(document_text(html))


def test_triplets_hold_one_generated_picture_each_in_a_seeded_order(study):
    shown = user_study.triplets(*study, seed=3)
    assert len(shown) == 4 * 2 * 2
    for triplet in shown:
        light = [p.mean() > 200 for p in triplet.pictures]
        assert sum(light) == 1 and light[triplet.generated]
        real = [p for p in triplet.pictures if p.mean() < 200]
        assert (real[0] != real[1]).any()
    assert {t.generated for t in shown} == {0, 1, 2}
    again, other = (user_study.triplets(*study, seed=seed) for seed in (3, 4))
    order = [(t.person, t.method, t.shots, t.generated) for t in shown]
    assert order == [(t.person, t.method, t.shots, t.generated) for t in again]
    assert order != [(t.person, t.method, t.shots, t.generated) for t in other]
    assert sorted(o[:3] for o in order) == sorted((t.person, t.method, t.shots) for t in other)


def test_real_pairs_are_distinct_and_of_new_frames_as_far_as_they_can_be():
    assert user_study.pairs(12, 6) == [(n, n + 1) for n in range(0, 12, 2)]
    assert sorted(user_study.pairs(4, 6)) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert user_study.pairs(4, 2) == [(0, 1), (2, 3)]
    assert Counter(user_study.pairs(3, 6)).most_common() == [((0, 1), 2), ((0, 2), 2), ((1, 2), 2)]
    assert user_study.pairs(2, 3) == [(0, 1)] * 3


def test_no_pair_of_real_pictures_comes_again_while_another_is_left(study):
    parts, records = study
    records = [record | {"study/real": record["study/real"][:4]} for record in records]
    by_person = {part.person: Counter() for part in parts}
    for triplet in user_study.triplets(parts, records, seed=3):
        real = [p.tobytes() for p in triplet.pictures if p.mean() < 200]
        by_person[triplet.person][frozenset(real)] += 1
    assert [set(pairs.values()) for pairs in by_person.values()] == [{1}] * 4


def test_who_has_too_few_real_frames_is_left_out_by_name(study):
    parts, records = study
    records = [records[0] | {"study/real": records[0]["study/real"][:1]}, *records[1:]]
    shown = {triplet.person for triplet in user_study.triplets(parts, records, seed=3)}
    assert user_study.left_out(parts, records) == ["vox/id1"] and "vox/id1" not in shown
    assert len(shown) == 3


def test_a_model_without_ft_has_triplets_of_ff_alone(study):
    parts, records = study
    records = [{k: v for k, v in r.items() if not k.endswith("FT")} for r in records]
    assert {t.method for t in user_study.triplets(parts, records, 0)} == {"FF"}


def test_the_page_gives_nothing_away(study, html):
    shown = document(html)
    assert html.encode() == user_study.page("tiny", *study, seed=3)
    for jpegs, triplet in zip(shown["triplets"], user_study.triplets(*study, seed=3), strict=True):
        data = [base64.b64decode(jpeg) for jpeg in jpegs]
        assert len(set(map(len, data))) == 1, "a smooth picture would be the shortest"
        opened = [Image.open(io.BytesIO(jpeg)) for jpeg in data]
        assert all(o.format == "JPEG" and o.size == (SIDE, SIDE) for o in opened)
        assert len({str(o.quantization) for o in opened}) == 1
        found = [np.asarray(o).mean() > 200 for o in opened]
        assert found.index(True) == triplet.generated, "pictures are not the triplet's"
    assert "id1" not in html and "FF" not in re.sub(r"[A-Za-z0-9+/=]{60,}", "", html)
    plain = base64.b64decode(shown["key"])
    assert not any(word in plain for word in (b"generated", b"method", b"person"))


def test_the_page_stands_alone(html):
    assert not re.search(
        r"""(src|href)\s*=\s*["']?(https?:)?//|@import|url\(|fetch\(|XMLHttp""", html
    )
    assert "default-src 'none'" in html and "connect-src" not in html


# --- in a browser ----------------------------------------------------------------------------


def browse(page: Path, profile: Path) -> str:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("no chromium here")
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--no-first-run", "--disable-gpu",
            "--disable-background-networking", "--disable-sync", "--disable-component-update",
            "--enable-logging=stderr", "--v=0", f"--user-data-dir={profile}", "--dump-dom",
            "--virtual-time-budget=4000", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, done.stderr
    return done.stdout


def with_script(html: str, path: Path, script: str) -> Path:
    path.write_text(html.replace("</body>", f"<script>{script}</script></body>"))
    return path


PRESS = "const press = k => document.dispatchEvent(new KeyboardEvent('keydown', {key: k}));"


def test_answers_by_keyboard_become_a_csv_and_a_user(study, html, tmp_path):
    shown = user_study.triplets(*study, seed=3)
    # Right for FT only; for FF the picture beside it.
    keys = [t.generated if t.method == "FT" else (t.generated + 1) % 3 for t in shown]
    script = PRESS + f"{json.dumps(keys)}.forEach(k => press(String(k + 1)));"
    script += "const out = document.createElement('pre'); out.id = 'out';"
    script += "out.textContent = csv(); document.body.append(out);"
    dom = browse(with_script(html, tmp_path / "page.html", script), tmp_path / "profile")
    assert f"{len(shown)} of {len(shown)} answered" in dom
    cells = [unescape(c) for c in re.findall(r"<td>(.*?)</td>", dom)]
    table = {cells[i]: cells[i + 1 : i + 4] for i in range(0, len(cells), 4)}
    assert table == {
        "FF, T=1": ["4", "0", "0.00"], "FF, T=8": ["4", "0", "0.00"],
        "FT, T=1": ["4", "4", "1.00"], "FT, T=8": ["4", "4", "1.00"], "all": ["16", "8", "0.50"],
    }  # fmt: skip
    text = unescape(re.search(r'<pre id="out">(.*?)</pre>', dom, re.S)[1])
    path = tmp_path / "answers.csv"
    path.write_text(text)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(r["person"], r["method"], int(r["shots"])) for r in rows] == [t[2:] for t in shown]
    answers = user_study.read_answers([str(path), str(path)])
    assert len(answers) == len(shown), "the same file twice counts once"
    users = {name: user_study.user(rows).mean for name, rows in user_study.groups(answers).items()}
    assert users == {"FF T=1": 0, "FF T=8": 0, "FT T=1": 1, "FT T=8": 1}


def test_the_page_goes_on_where_it_was_left_and_takes_an_answer_back(html, tmp_path):
    script = (
        PRESS
        + """
      const visit = Number(localStorage.getItem('visit')) + 1;
      localStorage.setItem('visit', visit);
      const said = [...JSON.parse(localStorage.getItem('said') ?? '[]'), part('count').textContent];
      localStorage.setItem('said', JSON.stringify(said));
      if (visit === 1) { press('1'); press('2'); press('9'); location.reload(); }
      if (visit === 2) { part('undo').click(); location.reload(); }
      if (visit === 3) { part('finish').click(); document.title = JSON.stringify(said); }
    """
    )
    dom = browse(with_script(html, tmp_path / "page.html", script), tmp_path / "profile")
    said = json.loads(unescape(re.search(r"<title>(.*?)</title>", dom)[1]))
    assert said == ["0 of 16 answered", "2 of 16 answered", "1 of 16 answered"]
    assert "<td>all</td><td>1</td>" in dom


# --- its script without a browser --------------------------------------------------------------

DOM = """
const parts = {};
const element = () => ({
  style: {}, heard: {}, append() {}, replaceChildren() {}, appendChild: child => child,
  insertRow: () => element(), addEventListener(name, call) { this.heard[name] = call; },
  click() { if (!this.hidden && !this.disabled) this.heard.click(); },
});
globalThis.document = Object.assign(element(), {
  getElementById: id => parts[id] ??= element(), createElement: element,
});
Object.defineProperty(globalThis, "localStorage", {value: undefined});
const press = key => document.heard.keydown({key});
"""


def scripted(html: str, folder: Path, script: str) -> list:
    """Run the page's script with a few lines after it; what they say is told."""
    deno = shutil.which("deno", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if not deno:
        pytest.skip("no deno here")
    data = f"document.getElementById('study').textContent = {json.dumps(document_text(html))};"
    own = re.search(r"<script>(.*?)</script>", html, re.S)[1]
    said = "const said = []; const say = (...values) => said.push(values);"
    path = folder / "page.js"
    path.write_text("\n".join([DOM, data, own, said, script, "console.log(JSON.stringify(said));"]))
    done = subprocess.run(
        [deno, "run", "--no-remote", "--no-config", str(path)],
        capture_output=True, text=True, timeout=60,
        env={"DENO_DIR": str(folder / "deno"), "DENO_NO_UPDATE_CHECK": "1", "NO_COLOR": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_after_finish_one_may_go_on_and_keeps_every_answer(html, tmp_path):
    script = """
      const now = () => say(
        part("count").textContent, part("resume").hidden, part("triplet").hidden);
      press("1"); press("2"); now();
      part("finish").click(); now();
      part("resume").click(); now();
      while (state.answers.length < study.triplets.length) press("3");
      now();
    """
    assert scripted(html, tmp_path, script) == [
        ["2 of 16 answered", True, False],
        ["2 of 16 answered", False, True],
        ["2 of 16 answered", True, False],
        ["16 of 16 answered", True, True],
    ]


def test_only_the_keys_of_the_three_pictures_answer(html, tmp_path):
    script = """
      for (const key of ["", "12", "0", "4", "Enter"]) press(key);
      say(part("count").textContent);
      press("1"); press("2"); press("3");
      say(state.answers.map(([picked]) => picked));
    """
    assert scripted(html, tmp_path, script) == [["0 of 16 answered"], [[0, 1, 2]]]


# --- answers ---------------------------------------------------------------------------------


def write(path: Path, right: list[tuple[str, str, int]], study: str = "s") -> str:
    lines = [
        f"{study},{path.stem},{i},{p},{m},8,{1 if r else 2},1,{int(r)},2.5"
        for i, (p, m, r) in enumerate(right)
    ]
    header = "study,rater,triplet,person,method,shots,picked,generated,right,seconds"
    path.write_text("\n".join([header, *lines, ""]))
    return str(path)


def test_user_is_the_share_of_right_picks_resampled_by_people(tmp_path, capsys):
    one = write(tmp_path / "one.csv", [(f"p{i}", "FF", i % 4 == 0) for i in range(40)])
    two = write(tmp_path / "two.csv", [(f"p{i}", "FF", i % 2) for i in range(40)])
    answers = user_study.read_answers([one, two])
    found = user_study.user(answers)
    assert found.mean == pytest.approx((10 + 20) / 80) and found.people == 40
    assert 0.2 < found.low < found.mean < found.high < 0.6
    assert found == user_study.user(answers)
    assert user_study.main([one, two]) == 0
    said = capsys.readouterr().out
    assert "80 answers of 2 raters" in said and "FF T=8     0.38 [0." in said


def test_an_answer_that_contradicts_itself_is_refused(tmp_path, capsys):
    path = write(tmp_path / "lie.csv", [("p", "FF", 1), ("p", "FT", 0)])
    text = Path(path).read_text().replace(",FT,8,2,1,0,", ",FT,8,2,1,1,")
    Path(path).write_text(text)
    assert user_study.main([path]) == 2
    said = capsys.readouterr()
    assert "lie.csv:3: no answer of the user study's page" in said.err and not said.out


def test_user_joins_the_paper_s_table_of_its_own_evaluation(study, html, tmp_path, capsys):
    page = document(html)["id"]
    means = {"FD-squeezenet": 1634.25111, "SSIM": 0.6, "PSNR": 20.4, "CSIM-mobilefacenet": 0.302}
    row = {name: {"mean": mean} for name, mean in means.items()}
    methods = {"FF": row | {"SSIM": {"mean": None}}, "FT": row, "untrained": row}
    results = {"all": {"self": {"T=1": methods, "T=8": methods}, "cross": {}}}
    (tmp_path / "results.json").write_text(json.dumps(results))
    (tmp_path / "user_study.html").write_text(html)
    answers = [("p", "FT", True), ("q", "FT", False), ("p", "FF", True), ("q", "FF", True)]
    mine = write(tmp_path / "mine.csv", answers, study=page)
    metrics = tmp_path / "metrics" / "user.json"
    assert user_study.main([mine, "--results", str(tmp_path), "-o", str(metrics)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-6:] == [
        "## FD-squeezenet / SSIM / CSIM-mobilefacenet / USER",
        "",
        "|  | T=1 | T=8 |",
        "|---|---|---|",
        "| FF | 1634.3 / – / 0.302 / – | 1634.3 / – / 0.302 / 1.00 |",
        "| FT | 1634.3 / 0.600 / 0.302 / – | 1634.3 / 0.600 / 0.302 / 0.50 |",
    ]
    assert json.loads(metrics.read_text()) == {"FF.T8.USER": 1.0, "FT.T8.USER": 0.5}
    other = write(tmp_path / "other.csv", answers, study="of-another")
    assert user_study.main([other, "--results", str(tmp_path)]) == 2
    assert "the answers are to of-another; name" in capsys.readouterr().err
    assert user_study.main([mine, "--results", str(tmp_path / "nowhere")]) == 2
    assert "no evaluation's results" in capsys.readouterr().err


def test_dvc_shows_user_where_it_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    answers = write(tmp_path / "a.csv", [("p", "FF", True), ("q", "FF", False)])
    assert user_study.main([answers, "-o", "user.json"]) == 0
    with pytest.raises(SystemExit):
        user_study.main(["--help"])
    help_text = " ".join(capsys.readouterr().out.split())
    assert "`dvc metrics show JSON` prints it, no stage makes it" in help_text
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--no-scm", "-q"], check=True)
    shown = subprocess.run([*dvc, "metrics", "show", "user.json"], capture_output=True, text=True)
    assert shown.stdout.split() == ["Path", "FF.T8.USER", "user.json", "0.5"], shown.stderr


def test_answers_that_excel_saved_with_semicolons_are_read(tmp_path, capsys):
    plain = write(tmp_path / "a.csv", [("p", "FF", True), ("q,r", "FF", False)])
    rows = list(csv.reader(io.StringIO(Path(plain).read_text().replace("q,r", '"q,r"'))))
    saved = tmp_path / "b.csv"
    with saved.open("w", newline="", encoding="utf-8-sig") as file:
        for row in rows:
            file.write(";".join(cell.replace("2.5", "2,5") for cell in row) + "\r\n")
    answers = user_study.read_answers([str(saved)])
    assert [(a["person"], a["right"]) for a in answers] == [("p", "1"), ("q,r", "0")]
    assert user_study.main([str(saved)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("2 answers of 1 rater; ") and said.endswith("2 answers, 2 people\n")
    assert user_study.main([write(tmp_path / "c.csv", [("p", "FF", True)])]) == 0
    said = capsys.readouterr().out
    assert said.startswith("1 answer of 1 rater; ") and said.endswith("1 answer, 1 person\n")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a,b\n1,2\n", "no answer of the user study's page"),
        (
            "study,rater,triplet,person,method,shots,right\ns,r,1,p,FF,abc,1\n",
            "x.csv:2: no answer of the user study's page",
        ),
        ("", "no answers in"),
        (None, "cannot be read: No such file"),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_one_line(tmp_path, capsys, text, reason):
    path = tmp_path / "x.csv"
    if text is not None:
        path.write_text(text)
    assert user_study.main([str(path)]) == 2
    said = capsys.readouterr().err
    assert reason in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("output", "words"),
    [("{}", "is a folder; name a JSON"), ("{}/a.csv", "is also an answer")],
)  # fmt: skip
def test_where_user_cannot_be_written_is_told_first(tmp_path, capsys, output, words):
    answers = write(tmp_path / "a.csv", [("p", "FF", 1)])
    before = (tmp_path / "a.csv").read_bytes()
    assert user_study.main([answers, "-o", output.format(tmp_path)]) == 2
    assert words in capsys.readouterr().err
    assert (tmp_path / "a.csv").read_bytes() == before


@pytest.mark.parametrize("newest_last", [True, False])
def test_an_answer_that_was_changed_later_needs_a_word_which_counts(tmp_path, capsys, newest_last):
    old = Path(write(tmp_path / "r.csv", [("p", "FF", 1), ("q", "FF", 0), ("t", "FF", 1)]))
    halfway = tmp_path / "r (1).csv"
    halfway.write_text("".join(old.read_text().splitlines(keepends=True)[:3]))
    assert len(user_study.read_answers([str(halfway), str(old)])) == 3, "they agree"
    new = tmp_path / "r (2).csv"
    new.write_text(old.read_text().replace("q,FF,8,2,1,0", "q,FF,8,1,1,1"))
    files = [str(old), str(new)] if newest_last else [str(new), str(old)]
    assert user_study.main(files) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"likeness: {files[0]}:3 and {files[1]}:3: two answers of one rater")
    assert user_study.main([str(new)]) == 0


def test_answers_to_different_pages_are_not_mixed(tmp_path):
    files = [write(tmp_path / f"{s}.csv", [("p", "FF", 1)], study=s) for s in "ab"]
    with pytest.raises(UserError, match="different pages: a, b"):
        user_study.read_answers(files)
