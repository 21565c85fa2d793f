"""Inspect: did Likeness make this file, and is it still as it was made?

Takes videos and pictures (the credentials in them, and the sidecar beside them), folders of
pictures, and model, checkpoint and person files (their checksum). Nothing in them is run or
trusted, and nothing is fetched. Ends with 0 where all were made by Likeness and are intact, 1
where one was altered since, 3 where one has no credentials, 4 where one is intact but signed
with a certificate that nobody here knows, 2 where one cannot be looked at.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cryptography import x509
from rich.text import Text

from pipelines import progress, storage
from pipelines.command import EXIT_OK, EXIT_USAGE, guarded
from pipelines.errors import UserError, printable
from pipelines.lineage import made
from training.marking import State, Verdict, sidecar_path, verify
from training.marking.credentials import SUFFIX, TYPES
from training.marking.verdict import Vouched

EXIT_ALTERED, EXIT_NONE, EXIT_UNKNOWN = 1, 3, 4
EXITS = {State.MADE: EXIT_OK, State.ALTERED: EXIT_ALTERED, State.NONE: EXIT_NONE}
SEVERITY = (EXIT_OK, EXIT_UNKNOWN, EXIT_NONE, EXIT_ALTERED, EXIT_USAGE)
COLOURS = {State.MADE: "green", State.ALTERED: "red", State.NONE: "yellow"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What is told of one file."""

    path: str
    state: State
    why: tuple[str, ...]
    told: tuple[tuple[str, str], ...]
    """Names and values for people, in order."""
    facts: dict[str, Any]
    sha256: str
    known: bool = True
    """Whether someone here knows who signed it; what is not signed has nobody to know."""

    @property
    def headline(self) -> str:
        """The verdict in one line: what an unknown signer says is told as that."""
        doubt = ", if a signer whom nobody here knows is to be believed"
        return self.state + (doubt if self.exit == EXIT_UNKNOWN else "")

    @property
    def exit(self) -> int:
        """The exit status that this finding alone would give."""
        return EXITS[self.state] or (EXIT_OK if self.known else EXIT_UNKNOWN)


def inspect(path: Path, trust: str | None = None) -> Finding:
    """Judge one file. Raises UserError where there is no such file."""
    if path.suffix == made.TENSORS and path.is_file():
        return _inspect_tensors(path)
    if path.name.endswith(SUFFIX):
        raise UserError(f"{path} is a sidecar: name the file that it stands beside")
    return _of_media(verify(path, trust))


# --- videos and pictures ---------------------------------------------------------------------


def _of_media(verdict: Verdict) -> Finding:
    told: list[tuple[str, str]] = []
    said = verdict.statement
    if said:
        signer = f"{said.signer.name}, {said.signer.vouched}"
        told.append(("signed by", signer + (" (run out since)" if said.signer.expired else "")))
        shown = "turned off" if said.label is None else f'"{said.label}", drawn into the picture'
        told.append(("label", shown))
        told += lineage(said.facts)
        told.append(("code", said.code))
        if verdict.from_sidecar:
            told.append(("told by", "the sidecar, whose own signature holds"))
        elif not said.holds:
            told.append(("told by", "credentials that were changed: do not believe them"))
    told += [("note", note) for note in verdict.notes]
    if said and said.signer.vouched is Vouched.UNKNOWN:
        told.append(("remedy", "--trust PEM, with the certificate that its maker gave you"))
    return Finding(
        str(verdict.path),
        verdict.state,
        verdict.why,
        tuple(told),
        facts=said.facts if said else {},
        sha256=verdict.sha256,
        known=said is None or said.signer.vouched is not Vouched.UNKNOWN,
    )


def lineage(facts: made.Facts) -> Iterator[tuple[str, str]]:
    """What a thing was made from, in lines for people; generations back to the dataset."""
    for one in made.inputs(facts):
        words = (one.name, made.about(one.facts), one.sha256[:16])
        yield one.kind, ", ".join(word for word in words if word)
        yield from lineage(one.facts)
    if dataset := made.dataset_of(facts):
        name = facts.get("dataset", {}).get("name", "")
        split = f", split {dataset[1]}" if dataset[1] else ""
        yield "dataset", f"{name or 'index'} {dataset[0][:16]}{split}"


# --- models, checkpoints, people -------------------------------------------------------------


def _inspect_tensors(path: Path) -> Finding:
    from training import tensor_file  # late: torch takes seconds to load, and videos need none

    sha256 = storage.sha256(path)
    try:
        kind = made.tensor_header(path)["kind"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        ours = made.TENSOR_FORMAT.encode() in _head(path)
        state = State.ALTERED if ours else State.NONE
        why = "damaged or cut short" if ours else f"no file of ours ({error})"
        return Finding(str(path), state, (why,), (), {}, sha256)
    try:
        _, facts = tensor_file.read(path, kind)
    except UserError as error:
        why = str(error).removeprefix(f"{path}: ")
        return Finding(str(path), State.ALTERED, (why,), (("kind", kind),), {}, sha256)
    facts.pop("skeleton", None)
    told = [("kind", f"{kind}, whole"), ("about", made.about(facts)), *lineage(facts)]
    told.append(("note", "not signed: its checksum tells damage, not forgery"))
    return Finding(str(path), State.MADE, (), tuple(told), facts, sha256)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1 << 20)


# --- telling ---------------------------------------------------------------------------------


def _files(path: Path) -> list[Path]:
    """The files to look at: the thing itself, or the pictures of a folder."""
    if not path.is_dir():
        return [path]
    if pictures := [p for p in sorted(path.iterdir()) if p.suffix.lower() in TYPES]:
        return pictures
    raise UserError(f"{path}: no pictures or videos in this folder")


def _together(folder: Path, findings: list[Finding]) -> Finding:
    """One finding for the pictures of a folder: the worst, with how many there are of each."""
    worst = max(findings, key=lambda one: SEVERITY.index(one.exit))
    counts = Counter(one.headline for one in findings)
    why = [f"{Path(one.path).name}: {', '.join(one.why)}" for one in findings if one.why]
    absent = sorted(_expected(folder) - {Path(one.path).name for one in findings})
    why += [f"{name}: is gone" for name in absent]
    state = State.ALTERED if absent else worst.state
    pictures = ", ".join(f"{n} {word}" for word, n in counts.items())
    told = (("pictures", pictures), *worst.told)
    return replace(worst, path=str(folder), state=state, why=tuple(why), told=told, sha256="")


def _expected(folder: Path) -> set[str]:
    try:
        return set(json.loads(sidecar_path(folder.absolute()).read_bytes())["files"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()


def show(finding: Finding) -> None:
    """A verdict in one line, then what is known."""
    console = progress.Page(width=None if sys.stdout.isatty() else 110, highlight=False)
    colour = "yellow" if finding.exit == EXIT_UNKNOWN else COLOURS[finding.state]
    verdict = Text.assemble(f"{printable(finding.path)}: ", (finding.headline, colour))
    console.print(verdict, soft_wrap=True)
    for name, value in (*(("because", word) for word in finding.why), *finding.told):
        if value:
            console.print(Text(f"  {printable(name):<10} {printable(value)}"), soft_wrap=True)


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m training.inspect`."""
    parser = argparse.ArgumentParser(
        prog="python -m training.inspect",  # needs no params: it works on any file, anywhere
        description=(__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument(
        "--trust", type=Path, metavar="PEM", help="certificates of authorities that you believe"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)

    codes: list[int] = []

    def command() -> int:
        trust = _read_trust(options.trust) if options.trust else None
        found = []
        for named in options.files:
            try:
                findings = [inspect(path, trust) for path in _files(named)]
            except (UserError, OSError) as error:
                progress.complain(str(error))
                codes.append(EXIT_USAGE)
                continue
            finding = _together(named, findings) if named.is_dir() else findings[0]
            found.append(finding)
            codes.append(finding.exit)
            if not options.json:
                show(finding)
        if options.json:
            progress.say(json.dumps([asdict(one) for one in found], indent=1))
        return EXIT_OK

    # A verdict is no failure of the command: `guarded` would cut the process off at a 1.
    return guarded(command) or max(codes, key=SEVERITY.index)


def _read_trust(path: Path) -> str:
    try:
        text = path.read_text()
        x509.load_pem_x509_certificates(text.encode())
    except (OSError, ValueError):
        raise UserError(f"--trust {path}: not a file of PEM certificates") from None
    return text


if __name__ == "__main__":
    sys.exit(main())
