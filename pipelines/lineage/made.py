"""What files say of their own making: models, checkpoints, people, generated videos, evaluations.

Torch-free, and nothing is run: a safetensors file opens with its length and a JSON header, a
video or picture has a sidecar, or else its embedded credentials. Whether what they say is true
is for `python -m training.inspect` to check.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import UserError

TENSORS = ".safetensors"
TENSOR_FORMAT, TENSOR_KEY = "likeness-1", "likeness"
SIDECAR, SIDECAR_FORMAT = ".likeness.json", "likeness-sidecar-1"
EVALUATION = "results.json"
"""Speaks for the tables, pictures and pages in its folder."""
ASSERTION = "org.likeness.lineage"
MEDIA = (".mp4", ".png", ".jpg", ".jpeg", ".gif")
LARGEST_HEADER = 100_000_000
"""Bytes, as in safetensors itself."""
DEEPEST = 16
"""Generations that are followed: nobody has more, but a stranger's file may claim them."""
DAMAGED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What reading a damaged or strange file raises."""
Facts = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Made:
    """A file that Likeness made, and what it says."""

    path: Path
    kind: str
    """model, checkpoint, person, video or evaluation."""
    facts: Facts


@dataclass(frozen=True, slots=True)
class Input:
    """What something was made from."""

    kind: str
    name: str
    sha256: str
    facts: Facts
    """Empty where only its digest was written down."""


def read(path: Path) -> Made:
    """Read a file's own words. Raises UserError where it has none."""
    path = path.parent / path.name.removesuffix(SIDECAR)  # either of the two may be named
    sidecar = path.parent / (path.name + SIDECAR)  # `with_name` fails on `.` and `/`
    # A sidecar tells of its video even where that has been moved away.
    if not path.exists() and not sidecar.is_file():
        raise UserError(f"{path}: no such file")
    try:
        if path.suffix == TENSORS:
            return _read_tensors(path)
        if sidecar.is_file():
            return Made(path, "video", _read_sidecar(sidecar))
        if path.is_file() and (facts := _read_embedded(path)) is not None:
            return Made(path, "video", facts)
        beside = path / EVALUATION if path.is_dir() else path.with_name(EVALUATION)
        if beside.is_file():
            return Made(path, "evaluation", read_evaluation(beside.read_bytes()))
    except DAMAGED as error:
        raise UserError(f"{path}: damaged, or not made by Likeness") from error
    raise UserError(
        f"{path}: nothing tells how it was made: neither a sidecar {path.name}{SIDECAR} nor an "
        f"evaluation's {EVALUATION} beside it nor credentials in it"
    )


def tensor_header(path: Path) -> dict[str, Any]:
    """What a safetensors file says of itself: kind, sha256, facts.

    Raises OSError, or ValueError, KeyError, TypeError, RecursionError where it is damaged or not
    ours.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(LARGEST_HEADER, path.stat().st_size - 8):
            raise ValueError("cut short, or not a safetensors file")
        header = json.loads(file.read(length))
    said = _mapping(json.loads(header["__metadata__"][TENSOR_KEY]))
    if said["format"] != TENSOR_FORMAT:
        raise ValueError("of another format")
    return {"kind": str(said["kind"]), "sha256": said["sha256"], "facts": _mapping(said["facts"])}


def _read_tensors(path: Path) -> Made:
    said = tensor_header(path)
    return Made(path, said["kind"], said["facts"])


def _read_sidecar(path: Path) -> Facts:
    if path.stat().st_size > LARGEST_HEADER:
        raise ValueError("too large")
    told = json.loads(path.read_bytes())
    if told["format"] != SIDECAR_FORMAT:
        raise ValueError("of another format")
    return _mapping(told["facts"])


def read_evaluation(data: bytes) -> Facts:
    """What the `results.json` of an evaluation says. Raises what DAMAGED names."""
    told = json.loads(data)
    if told["kind"] != "evaluation":
        raise ValueError("of another kind")
    return {key: told[key] for key in ("setting", "model", "dataset", "code")}


def _read_embedded(path: Path) -> Facts | None:
    try:
        import c2pa
    except ImportError:  # it comes with the extra `train`
        return None
    offline = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
    try:
        with (
            path.open("rb") as file,
            c2pa.Context.from_dict(offline) as context,
            c2pa.Reader(None, file, context=context) as reader,
        ):
            told = json.loads(reader.json())
    except c2pa.C2paError:
        return None
    for manifest in told["manifests"].values():
        for assertion in manifest.get("assertions", ()):
            if assertion["label"] == ASSERTION:
                return _mapping(json.loads(assertion["data"]["facts"]))
    return None


def _mapping(facts: object) -> Facts:
    if not isinstance(facts, dict):
        raise ValueError("facts are no mapping")
    return facts


def find(roots: Sequence[str | Path]) -> Iterator[Made | UserError]:
    """Everything made that lies below the folders, in order, and what should be but is damaged."""
    seen: set[Path] = set()
    for root in roots:
        for top, folders, names in os.walk(root):
            folders.sort()
            paths = {Path(top, name.removesuffix(SIDECAR)) for name in names}
            # Frames that a folder's sidecar speaks for are not told one by one.
            spoken_for = Path(top + SIDECAR).is_file()
            for path in sorted(paths):
                told = path.suffix == TENSORS or f"{path.name}{SIDECAR}" in names
                evaluation = path.name == EVALUATION
                if (
                    path.name.startswith(".")
                    or path in seen
                    or not (told or evaluation or path.suffix.lower() in MEDIA)
                ):
                    continue
                seen.add(path)
                try:
                    if told or not spoken_for:
                        thing = read(path)
                        if evaluation or thing.kind != "evaluation":  # its pictures: not each
                            yield thing
                except UserError as error:
                    if told:  # any other file may well be somebody else's
                        yield error


# --- what facts say --------------------------------------------------------------------------


def inputs(facts: Facts) -> list[Input]:
    """What a thing was made from, each once: its parents, and what facts name besides."""
    found: dict[str, Input] = {}
    named = [(str(one.get("kind", "file")), one) for one in _listed(facts.get("parents"))]
    for key in ("model", "person", "portraits", "portrait", "driver", "frames"):
        named += [(key.removesuffix("s"), one) for one in _listed(facts.get(key))]
    for kind, one in named:
        kind = "frames" if kind == "frame" else kind
        name = str(one.get("name") or one.get("path") or "")
        sha256 = str(one.get("sha256") or "")
        own = one.get("facts")
        known = found.get(sha256 or f"{kind} {name}")
        found[sha256 or f"{kind} {name}"] = Input(
            known.kind if known else kind,
            (known.name if known else "") or name,
            sha256,
            own if isinstance(own, Mapping) else known.facts if known else {},
        )
    return list(found.values())


def _listed(value: object) -> list[Facts]:
    """One mapping, a digest or a list of them, as a list of mappings."""
    values = value if isinstance(value, list | tuple) else [value]
    digests = [{"sha256": one} if isinstance(one, str) else one for one in values]
    return [one for one in digests if isinstance(one, Mapping)]


def family(facts: Facts, depth: int = 0) -> Iterator[Facts]:
    """The facts of a thing and of all that it was made from, as far as they are told."""
    yield facts
    if depth < DEEPEST:
        for one in inputs(facts):
            if one.facts:
                yield from family(one.facts, depth + 1)


def dataset_of(facts: Facts) -> tuple[str, str] | None:
    """Digest and split of the shards that a model learned from, by its own facts."""
    dataset = facts.get("dataset")
    if isinstance(dataset, Mapping) and dataset.get("index_sha256"):
        return str(dataset["index_sha256"]), str(dataset.get("split") or "")
    return next(((one.sha256, "") for one in inputs(facts) if one.kind == "index"), None)


def about(facts: Facts) -> str:
    """Facts in a few words."""
    words = [str(facts[key]) for key in ("name", "setting_name") if facts.get(key)]
    words += [facts["setting"]] if isinstance(facts.get("setting"), str) else []
    for key in ("step", "epoch", "variant", "frames", "code"):
        value = facts.get(key)
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            words.append(f"{key} {value}")
    return ", ".join(dict.fromkeys(words))
