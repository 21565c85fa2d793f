"""The demo: build the sample, serve it on loopback, `dvc repro`, animate a portrait, say it all.

Every clip of the sample has a known fate, so the demo ends by comparing all of them. `dvc repro`
also trains a tiny network and measures it; the demo then adapts that to a photograph.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from pipelines import manifest, progress, storage
from pipelines.errors import StopStage, UserError
from pipelines.params import MANIFESTS, Params, load
from pipelines.sample import corpus, server
from pipelines.sample.plan import HEALTHY
from pipelines.sample.portraits import photograph
from pipelines.statuses import Status

ROOT = Path("sample")


def run(params_file: str = "params.yaml") -> int:
    """Run the demo in the current folder; 0 when every clip ended as it should.

    Raises UserError where params.yaml is not the sample's, StopStage where the port is taken.
    """
    started = time.monotonic()
    params = load(params_file)
    address = urlsplit(params.download.url)
    if address.hostname != "127.0.0.1" or not Path(params.catalog.metadata).is_relative_to(ROOT):
        raise UserError(
            f"{params_file} is no longer the sample's: run `dvc repro` for your own dataset, or "
            "`git checkout params.yaml` for the demo"
        )
    if not Path(".dvc").is_dir():
        raise UserError("no .dvc folder here: run the demo from the root of a checkout")
    progress.say(f"Building the sample in {ROOT}/ (once, about a minute) ...")
    made = corpus.build(ROOT)
    progress.say(f"{len(made.videos)} annotated videos, {len(made.clips)} clips.")
    try:
        site = server.SampleServer(made.video_folder, made.faults, port=address.port or 80)
    except OSError as error:
        raise StopStage(
            f"port {address.port} is taken ({error.strerror}): end what listens there, or change "
            f"the port of download.url in {params_file}"
        ) from error
    with site:
        progress.say(f"Serving them at {site.template}, dead links and all.\n")
        code = _dvc("repro")
    if code:
        progress.complain("demo: `dvc repro` failed; its last lines above say why")
        return 1
    video = Path(params.paths.results, "portrait.mp4")
    if _animate(made, video):
        progress.complain("demo: the portrait was not animated; the line above says why")
        return 1
    _tell(params, video, time.monotonic() - started)
    return _compare(params, made)


def _dvc(*words: str) -> int:
    # dvc.yaml says `python`: let that be this one.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    command = [sys.executable, "-m", "dvc", *words]
    return subprocess.run(command, env={**os.environ, "PATH": path}, check=False).returncode


def _animate(made: corpus.Corpus, video: Path) -> int:
    """A photograph, moved by the first healthy video of the last person."""
    portrait = ROOT / "portrait.png"
    photograph("astronaut").save(portrait)
    driver = next(v for v in reversed(made.videos) if v.material == HEALTHY and not v.fault)
    words = ["--portrait", str(portrait), "--driver", f"{made.video_folder / driver.video}.mp4"]
    words += ["--variant", "ft", "--layout", "side-by-side", "-o", str(video)]
    progress.say(f"\nAdapting the tiny network to {portrait} and animating it ...")
    return subprocess.run(
        [sys.executable, "-m", "training.animate", *words], check=False
    ).returncode


def _tell(params: Params, video: Path, seconds: float) -> None:
    table = Table(title="The funnel", title_justify="left")
    for name in ("stage", "rows", "ok", "lost to", "seconds", "CPU s"):
        table.add_column(name, justify="left" if name in ("stage", "lost to") else "right")
    for stage in MANIFESTS:
        url = storage.join(params.paths.metrics, f"{stage}.json")
        facts = json.loads(storage.read_bytes(url))
        losses = {s: n for s, n in facts["statuses"].items() if s != Status.OK}
        words = ", ".join(f"{s} {n}" for s, n in losses.items())
        table.add_row(
            stage,
            str(facts["rows"]),
            str(facts["ok"]),
            words,
            f"{facts['seconds']:.1f}",
            f"{facts['cpu_seconds']:.1f}",
        )
    progress.say("")
    Console(width=None if sys.stdout.isatty() else 110).print(table)
    card = Path(params.paths.cards, params.name)
    progress.say(f"shards   {params.paths.data}/shards/   index  {params.paths.manifest('shard')}")
    progress.say(f"card     {card}/README.md, {card}/croissant.json")
    progress.say(f"report   {(card / 'report.html').absolute().as_uri()}")
    results = Path(params.paths.results, params.setting)
    about = params.settings[params.setting].about
    progress.say(f"model    {params.paths.models}/{params.setting}.safetensors ({about})")
    progress.say(f"measured {results}/table.md, {results}/grid.png, {results}/user_study.html")
    progress.say(f"animated {video}; try `python -m training.inspect {video}`")
    progress.say(f"\nDone in {seconds:.0f} s. `dvc repro` again does nothing; try `dvc status`.")


def _compare(params: Params, made: corpus.Corpus) -> int:
    fates: dict[str, tuple[str, str]] = {}
    for stage in ("crop", "landmarks"):
        rows = manifest.read(params.paths.manifest(stage), ["key", "status", "detail"])
        fates |= {row["key"]: (row["status"], row["detail"]) for row in rows.to_pylist()}
    wrong = 0
    for clip in made.clips:
        status, detail = fates.get(f"{clip.person}_{clip.video}_{clip.utterance}", ("lost", ""))
        lost_before = status == Status.SOURCE_MISSING and detail.startswith(clip.status)
        if status != clip.status and not lost_before:
            wrong += 1
            progress.complain(
                f"demo: {clip.person}/{clip.video}/{clip.utterance} should end as "
                f"{clip.status}, but is {status} {detail}"
            )
    good = len(made.clips) - wrong
    progress.say(f"{good} of {len(made.clips)} clips ended as they should.")
    return 1 if wrong else 0
