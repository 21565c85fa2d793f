"""The card of a small dataset that met every status, made of manifests and tars written here."""

import io
import json
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from PIL import Image

from pipelines import card, storage
from pipelines.errors import UserError
from pipelines.manifest import ManifestWriter
from pipelines.params import Params, load
from pipelines.report import charts, contact_sheet, facts
from pipelines.report.funnel import read_funnel
from pipelines.schemas import CATALOG, CROPS, DOWNLOADS, INDEX, LANDMARKS, STATUS, Status
from pipelines.shard import TarWriter, tar_url

pytest.importorskip("jinja2")

HOSTILE = '<script>alert(1)</script> & "quotes" | ``` [x](javascript:alert(2))'
SECRET = "x0123456789abcdef"
"""What the catalog calls a clip that was taken out."""
OF_STAGE = {
    stage: [s for s, info in STATUS.items() if stage in info.stage.split(", ")]
    for stage in ("catalog", "download", "crop", "landmarks")
}
OF_STAGE["crop"].append(Status.INTERNAL_ERROR)
# 68 points that nobody would take for a face: they only need to be finite.
FACE = np.stack([128 + 60 * np.cos(np.arange(68) / 5), 128 + 60 * np.sin(np.arange(68) / 5)], 1)


def table(rows: list[dict], schema: pa.Schema) -> pa.Table:
    blank = {"string": "", "bool": False}
    empty = {f.name: None if f.nullable else blank.get(str(f.type), 0) for f in schema}
    return pa.Table.from_pylist([empty | row for row in rows], schema=schema)


def write(params: Params, stage: str, rows: list[dict], schema: pa.Schema) -> None:
    with ManifestWriter(params.paths.manifest(stage), schema) as writer:
        writer.write(table(rows, schema))


def jpeg(grey: int) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (256, 256), (grey, grey, grey)).save(sink, "JPEG")
    return sink.getvalue()


def make_params(tmp_path: Path, **of_card: object) -> Params:
    settings = {
        "name": "small",
        "paths": {name: str(tmp_path / name) for name in ("data", "work", "metrics", "cards")},
        "catalog": {"metadata": "m", "sources": [{"name": "vox", "reader": "voxceleb2"}]},
        "shard": {"frames": 4},
        "card": {"title": "Small: a test", "licence": "CC-BY-4.0", "description": "Made up."}
        | {"thumbnails": 6}
        | of_card,
    }
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(settings))
    return load(path)


def build_run(params: Params, people: int = 5, videos: int = 2, clips: int = 2) -> None:
    """Manifests in which every status of every stage was met, and tars of the clips that passed."""
    good = [
        {"source": "vox", "person": f"id{p}", "video": f"v{p}{v}", "utterance": f"{c:05d}"}
        | {"key": f"id{p}_v{p}{v}_{c:05d}", "split": ("train", "train", "val", "test")[p % 4]}
        for p in range(people)
        for v in range(videos)
        for c in range(clips)
    ]
    for clip in good:
        clip["shard"] = f"vox-{clip['split']}-00000"
    catalog, downloads, crops, landmarks = [], [], [], []

    def clip_of(stage: str, status: Status, n: int = 0) -> dict:
        name = f"{stage}{status}{n}"
        return {"source": "vox", "person": "idx", "video": f"v{stage}{status}", "key": name}

    for status in OF_STAGE["catalog"]:
        if status == Status.EXCLUDED:
            row = {"key": SECRET, "person": "excluded", "video": SECRET, "utterance": SECRET}
            catalog += [row | {"source": "vox", "status": status}] * 2
            continue
        catalog.append(clip_of("catalog", status) | {"status": status, "detail": HOSTILE})
    for status in OF_STAGE["download"]:
        video = SECRET if status == Status.EXCLUDED else f"vdownload{status}"
        downloads.append({"source": "vox", "video": video, "status": status, "detail": HOSTILE})
        if status == Status.EXCLUDED:
            continue
        for n in range(3):  # each lost video costs three clips
            clip = clip_of("download", status, n)
            catalog.append(clip | {"status": "ok"})
            crops.append(clip | {"status": "source_missing", "detail": f"{status}: {HOSTILE}"})
    cut = {"frames": 60, "size": 256, "source_fps": 29.97, "crop_boxes": [[0, 0, 512, 512]]}
    for status in OF_STAGE["crop"]:  # source_missing here: downloaded, but gone since
        clip = clip_of("crop", status)
        catalog.append(clip | {"status": "ok"})
        crops.append(clip | {"status": status, "detail": HOSTILE})
    for status in OF_STAGE["landmarks"]:
        clip = clip_of("landmarks", status)
        catalog.append(clip | {"status": "ok"})
        crops.append(clip | cut | {"status": "ok"})
        measured = {"yaw": 80.0, "face_size": 100.0, "sharpness": 5.0, "confidence": 0.2}
        landmarks.append(clip | measured | {"status": status, "detail": HOSTILE})
    for n, clip in enumerate(good):
        catalog.append(clip | {"status": "ok"})
        named = {k: clip[k] for k in ("key", "source", "person", "video", "utterance")}
        crops.append(named | cut | {"status": "ok"})
        measured = {"yaw": 3.0 * n - 20, "face_size": 120.0, "sharpness": 400.0, "confidence": 0.9}
        landmarks.append(named | measured | {"status": "ok"})
    names = {clip["video"] for clip in catalog if clip["status"] == "ok"}
    known = {row["video"] for row in downloads}
    downloads += [{"source": "vox", "video": v, "status": "ok"} for v in sorted(names - known)]
    write(params, "catalog", catalog, CATALOG)
    write(params, "download", downloads, DOWNLOADS)
    write(params, "crop", crops, CROPS)
    write(params, "landmarks", landmarks, LANDMARKS)
    write(params, "shard", pack(params, good), INDEX)


def pack(params: Params, clips: list[dict]) -> list[dict]:
    """Real tars; returns the rows of the index."""
    points = np.tile(FACE.astype("<f4"), (60, 1, 1))
    points[30] = np.nan  # the middle frame has no face: a neighbour must be shown
    sink = io.BytesIO()
    np.save(sink, points)
    rows = []
    for shard in sorted({clip["shard"] for clip in clips}):
        path = Path(tar_url(params, shard))
        path.parent.mkdir(parents=True, exist_ok=True)
        mine = []
        with path.open("wb") as file:
            writer = TarWriter(file)
            for clip in (clip for clip in clips if clip["shard"] == shard):
                numbers = [0, 20, 30, 59]
                key = clip["key"]
                spans = [writer.add(f"{key}.{n:03d}.jpg", jpeg(40 * n)) for n in range(4)]
                at, size = writer.add(f"{key}.landmarks.npy", sink.getvalue())
                json_at, json_size = writer.add(f"{key}.json", b"{}")
                row = clip | {"frames": 60, "frame_numbers": numbers}
                row |= {"frame_offsets": [s[0] for s in spans]}
                row |= {"frame_sizes": [s[1] for s in spans], "landmarks_offset": at}
                row |= {"landmarks_size": size, "json_offset": json_at, "json_size": json_size}
                mine.append(row)
            writer.close()
        digest = {"shard_sha256": storage.sha256(path), "shard_bytes": path.stat().st_size}
        rows += [row | digest for row in mine]
    return rows


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Params, Path]:
    """A built card; read only."""
    params = make_params(tmp_path_factory.mktemp("card"))
    build_run(params)
    metrics = {"rows": 50, "items": 9, "items_done_before": 0, "seconds": 2.5, "cpu_seconds": 4.25}
    metrics |= {"rows_per_second": 20.0, "peak_mib": 321}
    metrics["slowest"] = [{"name": HOSTILE, "seconds": 1.5}, {"name": SECRET, "seconds": 1.0}]
    text = json.dumps(metrics).encode()
    storage.write_bytes(storage.join(params.paths.metrics, "crop.json"), text)
    storage.write_bytes(storage.join(params.paths.metrics, "landmarks.json"), b"not json")
    card.build(params)
    return params, Path(params.paths.cards, "small")


# --- the funnel ------------------------------------------------------------------------------


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


def test_metrics_hold_the_headline(made):
    params, _ = made
    found = json.loads(Path(params.paths.metrics, "card.json").read_text())
    index = Path(params.paths.manifest("shard"))
    assert found["digest"] == storage.sha256(index)
    assert {k: found[k] for k in ("people", "videos", "clips", "frames", "pictures", "shards")} == {
        "people": 5, "videos": 10, "clips": 20, "frames": 1200, "pictures": 80, "shards": 3,
    }  # fmt: skip
    assert found["bytes"] == sum(p.stat().st_size for p in index.parent.rglob("*.tar"))
    assert sum(split["clips"] for split in found["splits"].values()) == 20
    assert found["excluded"] == 2


def test_manifests_of_different_runs_are_refused(tmp_path):
    params = make_params(tmp_path)
    build_run(params)
    write(params, "landmarks", [], LANDMARKS)
    with pytest.raises(UserError, match=r"different runs; run `dvc repro`"):
        card.build(params)


# --- README.md and croissant.json ------------------------------------------------------------


def test_front_matter_is_a_dataset_card(made):
    hub = pytest.importorskip("huggingface_hub")
    _, folder = made
    head = hub.metadata_load(folder / "README.md")
    assert head["license"] == "cc-by-4.0" and head["pretty_name"] == "Small: a test"
    assert head["size_categories"] == ["n<1K"]
    assert [f["split"] for f in head["configs"][0]["data_files"]] == ["train", "validation", "test"]
    data = hub.DatasetCard.load(folder / "README.md").data
    assert data.license == "cc-by-4.0" and "talking-head" in data.tags


def test_card_tells_the_losses_and_no_secret(made):
    _, folder = made
    text = (folder / "README.md").read_text()
    for status in Status:
        assert (f"| `{status}` |" in text) == (status != Status.OK), status
    assert "2 annotated clips were taken out" in text
    for name in ("README.md", "croissant.json", "report.html"):
        assert SECRET not in (folder / name).read_text(), name


def test_unknown_licences_are_spelled_out(tmp_path):
    params = make_params(tmp_path, licence="House licence 3")
    assert card.licence(params) == {"license": "other", "license_name": "House licence 3"}


def test_the_examples_run(made, monkeypatch):
    params, folder = made
    monkeypatch.chdir(params.paths.data)
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)
    assert len(blocks) == 2
    for block in blocks:
        names: dict = {}
        exec(block, names)
        assert names["landmarks"].shape == (60, 68, 2)


def test_croissant_is_valid_and_readable(made):
    mlc = pytest.importorskip("mlcroissant")
    params, folder = made
    # As published: the metadata beside the data.
    published = Path(params.paths.data) / "croissant.json"
    shutil.copyfile(folder / "croissant.json", published)
    dataset = mlc.Dataset(jsonld=str(published))
    assert not dataset.metadata.ctx.issues.errors
    # The publication's date is a clock's word; nothing else is missing.
    assert all("datePublished" in w for w in dataset.metadata.ctx.issues.warnings)
    clips = list(dataset.records("clips"))
    assert len(clips) == 20 and list(clips[0]["clips/frame_numbers"]) == [0, 20, 30, 59]
    pictures = list(dataset.records("val/pictures"))
    keys = Counter(record["val/pictures/key"].decode() for record in pictures)
    assert set(keys.values()) == {4}
    assert set(keys) == {c["clips/key"].decode() for c in clips if c["clips/split"] == b"val"}


def test_card_and_croissant_are_deterministic(made, tmp_path):
    params, folder = made
    names = ("README.md", "croissant.json")
    before = {name: (folder / name).read_bytes() for name in names}
    again = params.model_copy(
        update={"paths": params.paths.model_copy(update={"cards": str(tmp_path)})}
    )
    card.build(again)
    assert before == {name: (tmp_path / "small" / name).read_bytes() for name in names}
    for data in before.values():
        assert str(tmp_path.parent).encode() not in data, "a path of this machine"


# --- report.html -----------------------------------------------------------------------------


class Page(HTMLParser):
    """Tags, addresses and texts of a page; knows whether tags are closed in order."""

    VOID = frozenset({"meta", "br", "img", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.addresses: list[str] = []
        self.ids: set[str] = set()
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        found = dict(attrs)
        self.addresses += [found[name] for name in ("src", "href") if name in found]
        self.ids |= {found["id"]} if "id" in found else set()
        if tag not in self.VOID and not self.get_starttag_text().endswith("/>"):
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag


def test_report_escapes_and_loads_nothing(made):
    _, folder = made
    text = (folder / "report.html").read_text()
    assert "<script" not in text and "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    page = Page(text)
    assert all(a.startswith(("#", "data:image/jpeg;base64,")) for a in page.addresses)
    assert {a[1:] for a in page.addresses if a.startswith("#")} <= page.ids
    assert page.tags["img"] == 6
    assert len(text) < 5_000_000


def test_report_tells_every_status(made):
    params, folder = made
    text = (folder / "report.html").read_text()
    for step in read_funnel(params).steps:
        for status, clips in step.ordered:
            title = f"{clips:,} clips lost at {step.stage}: {status} ("
            assert title in text
    assert "2 clips were taken out on request" in text
    assert "No metrics were found for: catalog, download, landmarks, shard." in text
    assert "4.25" in text and "321 MiB" in text


def test_contact_sheet_spreads_over_people(made):
    params, _ = made
    sheet = list(contact_sheet.contact_sheet(params))
    people = Counter(item.person for item in sheet)
    assert len(people) == 5 and sorted(people.values()) == [1, 1, 1, 1, 2]
    assert sheet == list(contact_sheet.contact_sheet(params))
    assert all("Frame 20 of" in item.alt for item in sheet), "not the frame without landmarks"


def test_landmarks_are_drawn_where_they_are():
    points = np.full((68, 2), 20, np.float32)
    points[0:17] = [[x, 200] for x in np.linspace(40, 200, 17)]
    grey = Image.new("RGB", (256, 256), (0, 0, 0))
    drawn = np.asarray(Image.open(io.BytesIO(contact_sheet.draw(grey, points))))
    assert drawn.shape == (128, 128, 3)
    assert drawn[100, 60].min() > 150 and drawn[80, 60].max() < 40


def test_a_missing_tar_is_one_line(tmp_path):
    params = make_params(tmp_path)
    build_run(params)
    Path(tar_url(params, "vox-val-00000")).unlink()
    with pytest.raises(UserError, match=r"vox-val-00000.tar is missing"):
        card.build(params)


# --- histograms ------------------------------------------------------------------------------


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


# --- the command -----------------------------------------------------------------------------


def test_command_makes_an_empty_dataset_too(tmp_path, capsys):
    params = make_params(tmp_path)
    for stage, schema in (
        ("catalog", CATALOG), ("download", DOWNLOADS), ("crop", CROPS),
        ("landmarks", LANDMARKS), ("shard", INDEX),
    ):  # fmt: skip
        write(params, stage, [], schema)
    assert card.main(["--params", str(tmp_path / "params.yaml")]) == 0
    assert "0 of 0 annotated clips" in capsys.readouterr().out
    folder = Path(params.paths.cards, "small")
    text = (folder / "report.html").read_text()
    assert "The dataset is empty" in text
    Page(text)
    assert "configs" not in yaml.safe_load((folder / "README.md").read_text().split("---")[1])
    mlc = pytest.importorskip("mlcroissant")
    assert not mlc.Dataset(jsonld=str(folder / "croissant.json")).metadata.ctx.issues.errors


@pytest.mark.parametrize("stage", ["catalog", "download", "crop", "landmarks", "shard"])
def test_command_names_a_missing_manifest(tmp_path, capsys, stage):
    params = make_params(tmp_path)
    build_run(params, people=1)
    Path(params.paths.manifest(stage)).unlink()
    assert card.main(["--params", str(tmp_path / "params.yaml")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and Path(params.paths.manifest(stage)).name in said
    assert not Path(params.paths.cards).exists()


# --- in a browser ----------------------------------------------------------------------------


def browse(page: Path, profile: Path, *options: str) -> subprocess.CompletedProcess:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("no chromium here")
    quiet = ["background-networking", "component-update", "sync", "gpu"]
    return subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--no-first-run", "--enable-logging=stderr",
            "--v=0", f"--user-data-dir={profile}", *(f"--disable-{word}" for word in quiet),
            *options, page.as_uri(),
        ],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_browser_shows_the_page_without_a_complaint(made, tmp_path):
    _, folder = made
    shot = tmp_path / "page.png"
    done = browse(
        folder / "report.html", tmp_path / "profile", "--window-size=1200,1600",
        f"--screenshot={shot}",
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    assert len(np.unique(np.asarray(Image.open(shot).convert("L")))) > 20, "a blank page"


def test_nothing_overflows_a_phone(made, tmp_path):
    _, folder = made
    # A frame of 400 px in a page of ours: a headless window does not get that narrow itself.
    probe = tmp_path / "probe.html"
    text = (folder / "report.html").read_text()
    text = text.replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'")
    inside = text + (
        "<script>parent.postMessage(Math.max(...['html', '.numbers', '.sheet', '.charts'].map("
        "s => document.querySelector(s).scrollWidth)), '*')</script>"
    )
    (tmp_path / "inside.html").write_text(inside)
    probe.write_text(
        "<body><script>onmessage = e => document.title = 'width ' + e.data</script>"
        "<iframe src='inside.html' style='width:400px;height:800px;border:0'></iframe>"
    )
    done = browse(probe, tmp_path / "profile", "--dump-dom", "--virtual-time-budget=5000")
    width = re.search(r"<title>width (\d+)</title>", done.stdout)
    assert width and int(width[1]) <= 400, done.stdout[:300]
