// A table of up to 100,000 rows: unpacked once, searched and filtered in place, shown by pages.
// What is asked for stands in the address (#clips&status=removed&yaw=-30..30), so that it can be
// linked to. All text is set as text: nothing from the data is ever read as HTML.
"use strict";
(() => {
  const holder = document.getElementById("rows");
  if (!holder) return;
  const PAGE = 50;
  const MARKS = { "\u0001": "person", "\u0002": "video", "\u0003": "key" };
  const data = JSON.parse(holder.textContent);
  const anchor = holder.dataset.section;
  const section = document.getElementById(anchor);
  const find = (name) => section.querySelector(name);
  const columns = new Map(data.columns.map((column) => [column.name, unpack(column)]));
  const all = [...columns.values()];
  const shown = all.filter((column) => column.shown);
  const words = all.find((column) => column.name === "words");
  const ids = ["person", "video", "utterance"].map((name) => columns.get(name));
  const state = { terms: "", asked: new Map(), sort: "", page: 0 };
  let keys = null;  // in small letters, made at the first search
  let found = new Uint32Array(0);

  function unpack(column) {
    const { width, packed } = column;
    const numbers = new Uint32Array(data.rows);
    for (let row = 0, at = 0; row < data.rows; row++) {
      let value = 0;
      for (let n = 0; n < width; n++, at++) {
        const code = packed.charCodeAt(at);
        value = value * 90 + code - 35 - (code > 60) - (code > 92);
      }
      numbers[row] = value;
    }
    column.packed = "";
    column.numbers = numbers;
    return column;
  }

  // --- what a row says ---------------------------------------------------------------------

  const word = (column, row) => column.values[column.numbers[row]];
  const value = (column, row) =>
    column.numbers[row] ? column.low + (column.numbers[row] - 1) * column.step : NaN;
  const keyOf = (row) => ids.map((column) => word(column, row)).filter(Boolean).join("_");
  function text(column, row) {
    if (column.values) return word(column, row);
    if (!column.numbers[row]) return "–";
    const rounded = Number(value(column, row).toFixed(column.places)) || 0;  // no -0
    const number = rounded.toFixed(column.places).replace("-", "−");
    return column.numbers[row] === column.most ? "≥ " + number : number;
  }
  function wordsOf(row) {
    const own = { key: keyOf(row), person: word(ids[0], row), video: word(ids[1], row) };
    return word(words, row).replace(/[\u0001-\u0003]/g, (mark) => own[MARKS[mark]]);
  }

  // --- which rows --------------------------------------------------------------------------

  function select() {
    const tests = [];
    const terms = state.terms.toLowerCase().split(/\s+/).filter(Boolean);
    if (terms.length) {
      keys ??= Array.from({ length: data.rows }, (_, row) => keyOf(row).toLowerCase());
      for (const term of terms) {
        const told = words.values.map((said) => said.toLowerCase().includes(term));
        tests.push((row) => keys[row].includes(term) || told[words.numbers[row]]);
      }
    }
    for (const [name, asked] of state.asked) {
      const column = columns.get(name);
      if (column.filter === "range") {
        const [low, high] = asked;
        const slack = column.step / 2;
        tests.push((row) => {
          const number = value(column, row);
          return number >= low - slack && number <= high + slack;  // false for NaN
        });
      } else {
        // A whole name means itself alone: id1 is not id10.
        const wanted = column.filter === "start" && !column.values.includes(asked)
          ? (one) => one.toLowerCase().startsWith(asked.toLowerCase())
          : asked.startsWith("!") ? (one) => one !== asked.slice(1) : (one) => one === asked;
        const good = column.values.map(wanted);
        tests.push((row) => good[column.numbers[row]]);
      }
    }
    const rows = [];
    for (let row = 0; row < data.rows; row++) {
      if (tests.every((test) => test(row))) rows.push(row);
    }
    found = Uint32Array.from(rows);
    sortRows();
  }

  function sortRows() {
    const name = state.sort.replace("-", "");
    const turn = state.sort.startsWith("-") ? -1 : 1;
    const by = name === "key" ? ids : [columns.get(name)];
    if (!name || !by[0]) return;
    const first = by[0];
    found.sort((a, b) => {
      // What is unknown stays at the end, whichever way the rest is turned.
      if (!first.values && !first.numbers[a] !== !first.numbers[b]) return first.numbers[a] ? -1 : 1;
      for (const { numbers } of by) {
        if (numbers[a] !== numbers[b]) return (numbers[a] - numbers[b]) * turn;
      }
      return a - b;
    });
  }

  // --- what is shown -----------------------------------------------------------------------

  function make(tag, given = {}, ...inside) {
    const made = document.createElement(tag);
    for (const [name, what] of Object.entries(given)) {
      if (name in made) made[name] = what;
      else made.setAttribute(name, what);
    }
    made.append(...inside);
    return made;
  }

  const body = find("tbody");
  const pages = () => Math.max(1, Math.ceil(found.length / PAGE));

  function show() {
    state.page = Math.min(Math.max(state.page, 0), pages() - 1);
    const from = state.page * PAGE;
    const rows = Array.from(found.subarray(from, from + PAGE));
    body.replaceChildren(...rows.map((row, at) => lineOf(row, at)));
    if (!rows.length) {
      const none = make("td", { colSpan: shown.length + 1 }, `No ${data.unit} match.`);
      body.append(make("tr", {}, none));
    }
    const n = (count) => count.toLocaleString("en");
    const part = data.of > data.rows ? ` (a sample of ${n(data.of)})` : "";
    find(".count").textContent = `${n(found.length)} of ${n(data.rows)} ${data.unit}${part}`;
    find(".place").textContent = `page ${n(state.page + 1)} of ${n(pages())}`;
    find(".earlier").disabled = state.page === 0;
    find(".later").disabled = state.page === pages() - 1;
    for (const head of section.querySelectorAll("thead th")) {
      const mine = head.dataset.name === state.sort.replace("-", "");
      if (!mine) head.removeAttribute("aria-sort");
      else head.setAttribute("aria-sort", state.sort.startsWith("-") ? "descending" : "ascending");
      head.querySelector("span").textContent = !mine ? "" : state.sort.startsWith("-") ? " ↓" : " ↑";
    }
  }

  function lineOf(row, at) {
    const open = make("button", { type: "button", tabIndex: at ? -1 : 0, "aria-expanded": "false" }, keyOf(row));
    const line = make("tr", {}, make("th", { scope: "row" }, open));
    for (const column of shown) {
      const cell = make("td", { className: column.values ? "" : "num" }, text(column, row));
      line.append(cell);
    }
    open.addEventListener("click", () => {
      if (open.getAttribute("aria-expanded") === "true") line.nextSibling.remove();
      else line.after(moreOf(row));
      open.setAttribute("aria-expanded", String(open.getAttribute("aria-expanded") !== "true"));
    });
    return line;
  }

  function moreOf(row) {
    const cell = make("td", { colSpan: shown.length + 1, className: "more" });
    const said = words ? wordsOf(row) : "";
    if (said) cell.append(make("p", {}, said));
    for (const column of all.filter((one) => !one.shown && one !== words && !ids.includes(one))) {
      cell.append(make("p", { className: "soft" }, `${column.label}: ${word(column, row)}`));
    }
    const links = make("p", { className: "soft" });
    const link = (title, hash) =>
      links.append(links.firstChild ? " · " : "", make("a", { href: "#" + hash }, title));
    const status = columns.get("status") && word(columns.get("status"), row);
    if (document.getElementById("status=" + status)) link(`about ${status}`, "status=" + status);
    const [person, video] = [word(ids[0], row), word(ids[1], row)];
    if (person) link(`all of ${person}`, anchor + "&" + new URLSearchParams({ person }));
    if (video) link(`all of ${video}`, anchor + "&" + new URLSearchParams({ q: video }));
    cell.append(links);
    return make("tr", {}, cell);
  }

  // --- asking ------------------------------------------------------------------------------

  const search = find("input[type=search]");
  const controls = new Map();  // column -> [read the controls, set them]

  function choice(column) {
    const counts = new Array(column.values.length).fill(0);
    for (const number of column.numbers) counts[number]++;
    const options = column.values.map((one, at) =>
      make("option", { value: one }, `${one || "(none)"} · ${counts[at].toLocaleString("en")}`));
    const every = [make("option", { value: "" }, "all")];
    if (column.values.includes("ok")) every.push(make("option", { value: "!ok" }, "all but ok"));
    const select = make("select", {}, ...every, ...options);
    controls.set(column.name, [() => select.value, (asked) => {
      select.value = asked;
      if (select.selectedIndex < 0) select.value = "";
    }]);
    return make("label", {}, column.label, select);
  }

  function start(column) {
    const list = make("datalist", { id: anchor + "-" + column.name });
    const input = make("input", { autocomplete: "off", spellcheck: false, placeholder: "all" });
    input.setAttribute("list", list.id);
    input.addEventListener("focus", () => {
      if (!list.childElementCount) list.append(...column.values.map((value) => make("option", { value })));
    }, { once: true });
    controls.set(column.name, [() => input.value.trim(), (asked) => { input.value = asked; }]);
    return make("label", {}, column.label, input, list);
  }

  function range(column) {
    const ends = ["from", "to"].map((end) => make("input", {
      type: "number", step: "any", placeholder: end, "aria-label": `${column.label}, ${end}`,
    }));
    const read = () => {
      if (ends.every((end) => end.value === "")) return "";
      return [0, 1].map((at) => ends[at].value).join("..");
    };
    controls.set(column.name, [read, (asked) => {
      const both = (asked || "..").split("..");
      ends.forEach((end, at) => { end.value = both[at] ?? ""; });
    }]);
    return make("fieldset", {}, make("legend", {}, column.label), ends[0], "to", ends[1]);
  }

  const filters = find(".filters");
  const makers = { choice, start };
  for (const column of all.filter((one) => makers[one.filter])) {
    filters.append(makers[column.filter](column));
  }
  const ranged = all.filter((one) => one.filter === "range");
  const ranges = make("details", {}, make("summary", {}, "Quality ranges"),
    make("div", { className: "ranges" }, ...ranged.map(range)));
  if (ranged.length) filters.append(ranges);

  const heads = [{ name: "key", label: "Clip", values: [] }, ...shown].map((column) => {
    const button = make("button", { type: "button" }, column.label, make("span"));
    button.addEventListener("click", () => {
      state.sort = state.sort === column.name ? "-" + column.name : column.name;
      state.page = 0;
      change();
    });
    return make("th", { scope: "col", className: column.values ? "" : "num", "data-name": column.name }, button);
  });
  find("thead tr").replaceChildren(...heads);

  function take(asked) {
    state.terms = asked.get("q") ?? "";
    state.sort = asked.get("sort") ?? "";
    state.page = (parseInt(asked.get("page"), 10) || 1) - 1;
    state.asked.clear();
    for (const name of controls.keys()) {
      const wish = asked.get(name);
      if (!wish) continue;
      const [low, high] = wish.split("..");
      const ends = [low ? Number(low) : -Infinity, high ? Number(high) : Infinity];
      state.asked.set(name, columns.get(name).filter === "range" ? ends : wish);
    }
  }

  function told() {
    const asked = new URLSearchParams();
    if (search.value.trim()) asked.set("q", search.value.trim());
    for (const [name, [read]] of controls) if (read()) asked.set(name, read());
    if (state.sort) asked.set("sort", state.sort);
    if (state.page) asked.set("page", state.page + 1);
    return asked;
  }

  function change() {
    const asked = told();
    take(asked);
    select();
    show();
    history.replaceState(null, "", "#" + anchor + (asked.size ? "&" + asked : ""));
  }

  function follow() {
    const hash = location.hash.slice(1);
    if (hash !== anchor && !hash.startsWith(anchor + "&")) return false;
    const asked = new URLSearchParams(hash.slice(anchor.length + 1));
    take(asked);
    search.value = state.terms;
    for (const [name, [, set]] of controls) set(asked.get(name) ?? "");
    ranges.open = ranged.some((column) => state.asked.has(column.name)) || ranges.open;
    select();
    show();
    section.scrollIntoView({ behavior: "instant" });
    return true;
  }

  let waiting = 0;
  function soon() {
    clearTimeout(waiting);
    waiting = setTimeout(() => { state.page = 0; change(); }, 120);
  }

  function turn(by, focus) {
    const before = state.page;
    state.page = Math.min(Math.max(state.page + by, 0), pages() - 1);
    if (state.page === before) return;
    change();
    if (focus) go(focus === "last" ? Infinity : 0);
  }

  const openers = () => [...body.querySelectorAll("th button")];
  function go(to) {
    const buttons = openers();
    const next = buttons[Math.min(Math.max(to, 0), buttons.length - 1)];
    if (!next) return;
    for (const button of buttons) button.tabIndex = button === next ? 0 : -1;
    next.focus();
  }

  filters.addEventListener("input", soon);
  filters.addEventListener("submit", (event) => event.preventDefault());
  find(".clear").addEventListener("click", () => {
    search.value = "";
    for (const [, [, set]] of controls) set("");
    state.sort = "";
    state.page = 0;
    change();
    search.focus();
  });
  find(".earlier").addEventListener("click", () => turn(-1));
  find(".later").addEventListener("click", () => turn(1));
  search.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") { event.preventDefault(); go(0); }
  });
  body.addEventListener("keydown", (event) => {
    const buttons = openers();
    const at = buttons.indexOf(event.target);
    if (at < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
    const steps = {
      ArrowDown: () => (at + 1 < buttons.length ? go(at + 1) : turn(1, "first")),
      ArrowUp: () => (at ? go(at - 1) : state.page ? turn(-1, "last") : search.focus()),
      Home: () => go(0),
      End: () => go(Infinity),
      PageDown: () => turn(1, "first"),
      PageUp: () => turn(-1, "first"),
      Escape: () => event.target.getAttribute("aria-expanded") === "true" && event.target.click(),
    };
    if (!steps[event.key]) return;
    event.preventDefault();
    steps[event.key]();
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.closest?.("input, select, textarea")) return;
    event.preventDefault();
    if (!search.offsetParent) location.hash = anchor;
    section.scrollIntoView({ behavior: "instant" });
    search.focus();
  });
  addEventListener("hashchange", follow);
  section.querySelector(".only-script").hidden = false;
  if (!follow()) {
    select();
    show();
    // The table has pushed down what the address points to.
    let id = location.hash.slice(1);
    try { id = decodeURIComponent(id); } catch { /* somebody's half a percent sign: as it stands */ }
    document.getElementById(id)?.scrollIntoView({ behavior: "instant" });
  }
  document.documentElement.dataset.ready = "yes";
})();
