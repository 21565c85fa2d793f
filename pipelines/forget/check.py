"""The proof: every file of the project, its work folder, the DVC cache and folder remotes.

Outside of it stay takedowns.csv, the publisher's own annotations and the user's own mirror,
which hold the names by their nature (they come as notes), git's objects (a note says what of
the history names them) and virtual environments.
"""

from __future__ import annotations

import subprocess
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipelines import progress, storage
from pipelines.forget import ledger, models, repository, runs
from pipelines.forget.contents import Searcher
from pipelines.forget.requests import Request
from pipelines.forget.whose import Forgotten, label, unknown
from pipelines.forget.work import owners, strays
from pipelines.lineage import made
from pipelines.params import Params, environment
from pipelines.site.fetch import mirror_urls
from pipelines.work_folder import files_below

AGAIN = "python -m pipelines.forget --again"


@dataclass(frozen=True)
class Finding:
    """Something that remains."""

    file: str
    what: str
    remedy: str


@dataclass
class Proof:
    """What the check saw."""

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    saw: list[str] = field(default_factory=list)
    """What was made of the data, and that of which nobody can tell."""
    files: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Area:
    """A place to look in, and what is to be done about a find there."""

    url: str
    remedy: str


def areas(params: Params, project: Path, repo: repository.Repository | None) -> list[Area]:
    """Where to look: the more particular first."""
    paths = params.paths
    found = [
        Area(storage.join(paths.work, "runs"), "delete it; `dvc repro` trains again without them"),
        Area(paths.work, f"run `{AGAIN}`"),
        Area(paths.data, "run `dvc repro`"),
        Area(paths.metrics, "run `dvc repro`"),
        Area(paths.cards, "run `dvc repro`"),
        Area(paths.models, "delete it, then `dvc repro` trains again without them"),
        Area(runs.report(params), "delete it; `python -m pipelines.report` writes it anew"),
        Area(paths.results, "delete it, then `dvc repro`"),
    ]
    if repo is not None:
        found.append(Area(str(repo.cache), "run `dvc gc --workspace` once `dvc repro` has ended"))
        for remote in repo.remotes:
            if folder := repository.folder_of(remote):
                found.append(Area(str(folder), f"run `{remote.command}`"))
        found.append(Area(str(repo.root / "dvc.lock"), "run `dvc repro`"))
        found.append(Area(str(repo.root), "delete it or take the name out"))
    return [*found, Area(str(project), "delete it or take the name out")]


def check(
    params: Params, project: Path, requests: Sequence[Request], forgotten: Forgotten
) -> Proof:
    """Look everywhere. project: the folder of params.yaml."""
    proof, project = Proof(), project.resolve()
    repo = repository.find(project)
    book = ledger.read(params)
    files = {file: r for r in requests if r.digest in book for file in book[r.digest].files}
    searcher = Searcher(forgotten, files)
    sight = models.Sight(requests, book, current_index(params))
    with (
        storage.scratch_folder(params.paths.work) as scratch,
        progress.simple("check", "files", None) as tick,
    ):
        for area, url in _files(
            areas(params, project, repo), [scratch.resolve(), *_left_out(params)]
        ):
            tick(1)
            with storage.local_copy(url, scratch) as path:
                if not path.is_file():  # a link to nothing, a socket
                    continue
                proof.files += 1
                proof.bytes += path.stat().st_size
                shown = _shown(url, project)
                if what := searcher.look(path, shown):
                    remedy = area.remedy
                    if shown.endswith((made.EVALUATION, "frames.json")):
                        remedy += " (with its folder, whose pictures show them too)"
                    proof.findings.append(Finding(shown, what, remedy))
                if storage.is_local(url):  # a sidecar's video lies beside it
                    path = storage.local_path(url)
                name = shown.removesuffix(made.SIDECAR)
                proof.saw += [f"{name}: {words}" for words in models.told(path, sight)]
    _ownerless(params, project, forgotten, proof)
    for picture, why in runs.shown(params, sight):
        proof.findings.append(Finding(_shown(picture, project), why, f"run `{AGAIN}`"))
    _remotes(repo, book, requests, proof)
    _notes(params, project, repo, book, requests, forgotten, proof)
    return proof


def _shown(url: str, project: Path) -> str:
    if not storage.is_local(url):
        return url
    path = storage.local_path(url).absolute()
    return str(path.relative_to(project)) if path.is_relative_to(project) else str(path)


def _left_out(params: Params) -> list[Path]:
    """Files and folders that hold the names by their nature."""
    left = [params.catalog.takedowns, params.catalog.metadata, ledger.url(params)]
    mirror = environment.filled(params.download).mirror
    if mirror and storage.is_local(mirror) and "{" not in mirror:
        left.append(mirror)
    return [storage.local_path(url).resolve() for url in left if storage.is_local(url)]


def _files(places: Sequence[Area], left_out: Sequence[Path]) -> Iterator[tuple[Area, str]]:
    """Every file once, under the first area that holds it."""
    done: list[Path] = []
    for area in places:
        if not storage.is_local(area.url):
            yield from ((area, url) for url in files_below(area.url))
            continue
        start = storage.local_path(area.url).resolve()
        roots = [start]
        while roots:
            root = roots.pop()
            read = any(root.is_relative_to(other) for other in (*done, *left_out))
            leads_up = root != start and start.is_relative_to(root)
            if not (read or leads_up):
                yield from ((area, path) for path in _below(root, {*done, *left_out}, roots))
                done.append(root)


def _below(root: Path, closed: Container[Path], linked: list[Path]) -> Iterator[str]:
    """The files of a folder; folders that it links to are added to those to be read."""
    if root.is_file():
        yield str(root)
    for top, folders, names in storage.walk(root):
        here, inside = Path(top), []
        for name in sorted(folders):
            place = here / name
            if place in closed or name == ".git" or (place / "pyvenv.cfg").exists():
                continue
            if place.is_symlink():  # to a larger disk
                linked.append(place.resolve())
            else:
                inside.append(name)
        folders[:] = inside
        for name in sorted(names):
            if here / name not in closed:
                yield str(here / name)


def current_index(params: Params) -> str | None:
    """Digest of the index that is here."""
    url = params.paths.manifest("shard")
    return storage.digest_bytes(storage.read_bytes(url)) if storage.exists(url) else None


def _in_mirror(params: Params, forgotten: Forgotten) -> int:
    """Videos of the forgotten in a mirror that can be listed."""
    own = environment.filled(params.download)
    if own.mirror is None or own.mirror.startswith(("http://", "https://")):
        return 0
    urls = (mirror_urls(own.mirror, video, own.extensions) for video in sorted(forgotten.videos))
    return sum(any(map(storage.exists, found)) for found in urls)


# --- what no byte tells ----------------------------------------------------------------------


def _ownerless(params: Params, project: Path, forgotten: Forgotten, proof: Proof) -> None:
    """Files of the work folder bear no names: those that no record speaks of may be anyone's."""
    found = owners(params, forgotten)
    for folder, url in strays(params, forgotten, found):
        what = f"no record tells whose file of {folder} this is"
        proof.findings.append(Finding(_shown(url, project), what, f"run `{AGAIN}`"))


def _remotes(
    repo: repository.Repository | None,
    book: ledger.Ledger,
    requests: Sequence[Request],
    proof: Proof,
) -> None:
    objects = sorted({o for r in requests if r.digest in book for o in book[r.digest].objects})
    for remote in repo.remotes if repo else ():
        if repository.folder_of(remote) or repo is None:
            continue  # its files have been read
        try:
            if repo.remote_holds(remote, objects):
                what = "holds a manifest that names them"
                proof.findings.append(
                    Finding(f"DVC remote {remote.name}", what, f"run `{remote.command}`")
                )
            else:
                proof.notes.append(
                    f"the DVC remote {remote.name} has none of the {len(objects)} manifests that "
                    "named them; its tars were not read"
                )
        except OSError as error:
            proof.notes.append(
                f"the DVC remote {remote.name} could not be asked ({error}): run `{remote.command}`"
            )


def _notes(
    params: Params,
    project: Path,
    repo: repository.Repository | None,
    book: ledger.Ledger,
    requests: Sequence[Request],
    forgotten: Forgotten,
    proof: Proof,
) -> None:
    notes = proof.notes
    for source in forgotten.unread:
        notes.append(f"annotations could not be read, names that follow are not known: {source}")
    strangers = {r.id for r in unknown(forgotten)}
    if named := [r for r in requests if r.id not in strangers]:
        notes.append(
            f"the publisher's annotations in {params.catalog.metadata} name {len(named)} of "
            f"{len(requests)}, by their nature; they are your input and were left alone"
        )
    for request in requests:
        known = sum(one == request for one in forgotten.ids.values())
        if request.digest in book and (lost := book[request.digest].names - known) > 0:
            notes.append(
                f"the annotations no longer tell {lost} names of videos or clips of "
                f"{label(request)}: files that bear them alone were not found"
            )
    if held := _in_mirror(params, forgotten):
        notes.append(
            f"your mirror (download.mirror) holds {held} of their videos; it is your own store and "
            "was left alone: delete them there if you were asked to"
        )
    if by_hand := [r for r in requests if r.digest not in book]:
        notes.append(
            f"{', '.join(map(label, by_hand))}: added by hand, so models that saw it are not "
            f"known; run `{AGAIN}` to look for its datasets"
        )
    strong = sorted(name.decode() for name in forgotten.names().strong)
    try:
        commits = repository.history(repo.root if repo else project, strong, _left_out(params))
    except (OSError, subprocess.SubprocessError) as error:
        notes.append(f"git's history was not searched ({error})")
        return
    if commits:
        notes.append(
            f"git's history names them in {len(commits)} commits (last: {commits[0]}); "
            "docs/takedown.md tells how to rewrite it"
        )
