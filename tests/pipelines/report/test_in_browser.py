"""The pages in a real browser: load, search, filter, keyboard, links, colours; no complaint."""

import json

import numpy as np
import pytest
from card_run import HOSTILE, build_run, make_params, write
from PIL import Image

from pipelines import manifest
from pipelines.report import compare
from pipelines.report.table import rows_of
from pipelines.schemas import LANDMARKS

COUNT = "document.querySelector('#clips .count').textContent"
KEYS = "[...document.querySelectorAll('.rows tbody th')].map(e => e.textContent)"
FOCUS = "document.activeElement.textContent"


@pytest.fixture
def page(made, browser):
    """Opens the report at a hash; whatever it complains of or asks a network for is an error."""
    _, folder = made
    browser.window(1200, 900)

    def open_at(hash="", **how):
        browser.open(folder / "report.html", hash, **how)
        browser.wait("document.documentElement.dataset.ready === 'yes'")
        return browser

    yield open_at
    quiet(browser)


def quiet(browser):
    browser.run("1")  # takes in what was said until now
    assert browser.complaints == []
    asked = [url for url in browser.requests if not url.startswith(("data:", "file:"))]
    assert asked == []
    assert len([url for url in browser.requests if url.startswith("file:")]) == 1


def test_it_loads_without_a_complaint(page, made, tmp_path):
    browser = page()
    listed = len(list(rows_of((made[1] / "report.html").read_text())))
    assert browser.run(COUNT) == f"{listed} of {listed} clips"
    browser.shot(tmp_path / "page.png")
    assert len(np.unique(np.asarray(Image.open(tmp_path / "page.png").convert("L")))) > 20


def test_slash_searches_and_enter_opens_a_row(page):
    browser = page()
    browser.press("/")
    assert browser.run("document.activeElement.type") == "search"
    browser.type("ID3_v30")  # in any letters
    browser.wait(f"{COUNT}.startsWith('2 of')")
    assert browser.run(KEYS) == ["id3_v30_00000", "id3_v30_00001"]
    assert browser.run("location.hash") == "#clips&q=ID3_v30"
    browser.press("ArrowDown")
    assert browser.run(FOCUS) == "id3_v30_00000"
    browser.press("ArrowDown")
    assert browser.run(FOCUS) == "id3_v30_00001"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert browser.run(outline) == "solid", "the focus is seen"
    browser.press("Enter")
    assert browser.run("document.activeElement.getAttribute('aria-expanded')") == "true"
    assert "Stage: shard" in browser.run("document.querySelector('.more').textContent")
    browser.press("Escape")
    assert not browser.run("document.querySelector('.more')")
    browser.press("ArrowUp")
    browser.press("ArrowUp")
    assert browser.run("document.activeElement.type") == "search"


def test_words_of_the_tools_are_found_and_stay_text(page):
    browser = page("#clips&q=alert(1)&status=removed")
    assert len(browser.run(KEYS)) == 3
    browser.run("document.querySelector('.rows tbody button').click()")
    assert browser.run("document.querySelector('.more p').textContent") == HOSTILE
    assert browser.run("document.querySelectorAll('.more script').length") == 0


def choose(browser, label, value):
    browser.run(
        f"""(() => {{
          const label = [...document.querySelectorAll('.filters label')]
            .find(e => e.textContent.startsWith({json.dumps(label)}));
          const control = label.querySelector('select, input');
          control.value = {json.dumps(value)};
          control.dispatchEvent(new Event('input', {{bubbles: true}}));
        }})()"""
    )


def test_filters_add_up_and_stand_in_the_address(page):
    browser = page()
    choose(browser, "Person", "id")
    choose(browser, "Split", "val")
    browser.wait("location.hash.includes('split=val')")
    assert all(key.startswith("id2_") for key in browser.run(KEYS))
    assert browser.run(COUNT).startswith("4 of")
    choose(browser, "Status", "!ok")
    browser.wait(f"{COUNT}.startsWith('0 of')")
    assert "No clips match." in browser.run("document.querySelector('.rows tbody').textContent")
    browser.run("document.querySelector('.clear').click()")
    everything = browser.run(COUNT)
    assert everything.split()[0] == everything.split()[2]
    assert browser.run("location.hash") == "#clips"


def test_a_link_with_ranges_filters_by_quality(page, made):
    params, _ = made
    rows = manifest.read(params.paths.manifest("landmarks")).to_pylist()
    yaws = {row["key"]: row["yaw"] for row in rows}
    browser = page("#clips&yaw=-20..10&sharpness=100..&sort=-yaw")
    wanted = [key for key, yaw in yaws.items() if -20 <= yaw <= 10]
    assert browser.run(KEYS) == sorted(wanted, key=lambda key: -yaws[key])
    assert browser.run("document.querySelector('.filters details').open")
    head = "document.querySelector('th[data-name=yaw]').getAttribute('aria-sort')"
    assert browser.run(head) == "descending"
    browser.run("document.querySelector('th[data-name=yaw] button').click()")
    assert browser.run(head) == "ascending"
    assert browser.run(KEYS) == sorted(wanted, key=yaws.get)


def test_pages_turn_under_the_arrows(page):
    browser = page("#clips")
    first = browser.run(KEYS)
    assert len(first) == 50
    browser.run("document.querySelector('.rows tbody button').focus()")
    browser.press("End")
    browser.press("ArrowDown")
    second = browser.run(KEYS)
    assert not set(first) & set(second) and browser.run(FOCUS) == second[0]
    assert "page=2" in browser.run("location.hash")
    browser.press("ArrowUp")
    assert browser.run(FOCUS) == first[-1]


def test_a_status_has_a_page_behind_a_link(page):
    browser = page("#status=removed")
    seen = "[...document.querySelectorAll('main > *')].filter(e => e.offsetParent).map(e => e.id)"
    assert browser.run(seen) == ["status=removed"]
    text = browser.run("document.getElementById('status=removed').innerText")
    assert "python -m pipelines.download --retry removed" in text and "3 clips of 1 video" in text
    browser.run("document.querySelector('article:target a[href^=\"#clips\"]').click()")
    browser.wait(f"{COUNT}.startsWith('3 of')")
    assert browser.run("document.getElementById('funnel').offsetParent !== null")
    assert browser.run("document.querySelectorAll('article:target').length") == 0
    browser.run("document.querySelector('.rows tbody button').click()")
    browser.run("document.querySelector('.more a[href=\"#status=removed\"]').click()")
    assert browser.run(seen) == ["status=removed"]
    browser.press("/")  # back at the table
    assert browser.run("document.activeElement.type") == "search"


@pytest.mark.parametrize("dark", [False, True])
def test_both_colours_follow_the_system_and_the_button(page, dark):
    browser = page(dark=dark)
    browser.run("localStorage.clear()")
    browser.run("delete document.documentElement.dataset.theme")
    light = "getComputedStyle(document.body).backgroundColor === 'rgb(251, 250, 247)'"
    assert browser.run(light) != dark
    browser.run("document.getElementById('theme').click()")
    assert browser.run(light) == dark
    page(dark=dark)
    assert browser.run(light) == dark, "remembered"
    browser.run("localStorage.clear()")


def test_what_is_read_stands_out_from_its_ground(page):
    """Contrast of 4.5 to 1 for every text colour, by the formula of WCAG 2."""
    script = """(() => {
      const shade = (name) => {
        const probe = document.body.appendChild(document.createElement('i'));
        probe.style.color = `var(--${name})`;
        const parts = getComputedStyle(probe).color.match(/\\d+/g).map(Number);
        probe.remove();
        const [r, g, b] = parts.map(v => v / 255)
          .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const out = {};
      for (const ink of ['ink', 'soft', 'accent', 'lasting', 'transient', 'chosen', 'good'])
        for (const ground of ['page', 'card']) {
          const [low, high] = [shade(ink), shade(ground)].sort((a, b) => a - b);
          out[ink + ' on ' + ground] = (high + 0.05) / (low + 0.05);
        }
      return out;
    })()"""
    for dark in (False, True):
        browser = page(dark=dark)
        ratios = browser.run(script)
        assert len(ratios) == 14
        assert {name: r for name, r in ratios.items() if r < 4.5} == {}


def test_nothing_overflows_a_phone(page):
    browser = page()
    browser.window(400, 800)
    for hash in ("", "#clips&yaw=0..", "#status=removed"):
        browser = page(hash)
        browser.window(400, 800)
        assert browser.run("document.documentElement.scrollWidth") <= 400, hash


def test_everything_is_named_for_those_who_listen(page):
    browser = page("#clips&yaw=0..")
    browser.send("Accessibility.enable")
    nodes = browser.send("Accessibility.getFullAXTree")["nodes"]
    asked = ("button", "textbox", "searchbox", "combobox", "spinbutton", "link", "table", "image")
    found = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node.get("ignored") and node.get("role", {}).get("value") in asked
    ]
    kinds = {role for role, _ in found}
    assert {"button", "searchbox", "spinbutton", "link", "image"} <= kinds
    # A table is named by the region that scrolls it.
    assert [role for role, name in found if not name and role != "table"] == []
    assert (
        browser.run("document.querySelector('#clips .count').getAttribute('aria-live')") == "polite"
    )


def test_two_runs_side_by_side(browser, tmp_path):
    params = make_params(tmp_path)
    build_run(params, people=2)
    new = make_params(tmp_path).model_copy(
        update={"paths": params.paths.model_copy(update={"data": str(tmp_path / "new")})}
    )
    build_run(new, people=3)
    rows = manifest.read(new.paths.manifest("landmarks")).to_pylist()
    lost = next(row for row in rows if row["key"] == "id0_v00_00000")
    lost |= {"status": "blurred", "detail": "sharpness 3"}
    write(new, "landmarks", rows, LANDMARKS)
    out = tmp_path / "compare.html"
    assert compare.main([params.paths.data, new.paths.data, "-o", str(out)]) == 0
    browser.window(1200, 900)
    browser.open(out)
    assert browser.run(COUNT) == "5 of 5 clips"
    choose(browser, "What", "lost")
    browser.wait(f"{COUNT}.startsWith('1 of')")
    assert browser.run(KEYS) == ["id0_v00_00000"]
    browser.run("document.querySelector('#people a').click()")
    browser.wait(f"{COUNT}.startsWith('4 of')")
    assert {key.split("_")[0] for key in browser.run(KEYS)} == {"id2"}
    browser.run("document.querySelector('#transitions a').click()")
    browser.wait("location.hash.includes('before=absent')")
    quiet(browser)
