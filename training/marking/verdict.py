"""Is a file still as we made it? Reads its credentials and its sidecar, and judges.

What is read is a stranger's: it is parsed, never run, and nothing is fetched. What the
credentials say is told together with who vouches for it, since anybody can sign anything.
"""

from __future__ import annotations

import base64
import io
import json
import mmap
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

import c2pa

from pipelines import storage
from pipelines.errors import UserError, clean_detail
from training.marking.credentials import ASSERTION, FORMAT, OFFLINE, sidecar_path
from training.marking.keys import development_chain

LARGEST_SIDECAR = 64 << 20
"""Bytes: beyond this it is not read."""
JUMBF, MAKER = b"\x00\x11\x00\x10\x80\x00\x00\xaa\x00\x38\x9b\x71", b"Likeness"
"""Bytes that credentials of ours hold many times: what is left of damaged ones."""
CONTENT = frozenset({"assertion.dataHash.mismatch", "assertion.bmffHash.mismatch"})
EXPIRED = frozenset({"claimSignature.outsideValidity", "signingCredential.expired"})
ABOUT_SIGNER = EXPIRED | {"signingCredential.untrusted"}
MEANINGS = dict.fromkeys(CONTENT, "its content is not what was signed") | {
    "claimSignature.mismatch": "the signature does not fit its credentials",
    "assertion.hashedURI.mismatch": "a statement in its credentials was changed",
}


class State(StrEnum):
    """What became of a file."""

    MADE = "made by Likeness"
    ALTERED = "altered since"
    NONE = "no credentials"


class Vouched(StrEnum):
    """Who knows the signer."""

    HERE = "this machine's development certificate"
    TRUSTED = "a certificate that you trust"
    UNKNOWN = "a certificate that nobody here knows: anyone can make one"


@dataclass(frozen=True, slots=True)
class Signer:
    """Whose certificate signed, in its own words, and who vouches for it."""

    name: str
    vouched: Vouched
    expired: bool


@dataclass(frozen=True, slots=True)
class Statement:
    """What credentials say."""

    facts: dict[str, Any]
    label: str | None
    """The visible label's text; None: it was turned off."""
    code: str
    manifest: str
    """The credentials' own identifier."""
    signer: Signer
    failures: tuple[str, ...]
    """C2PA's codes, without those about who signed."""
    signed_again_by: str | None = None
    """Another tool that took the file up and put its own credentials over ours."""

    @property
    def holds(self) -> bool:
        """Whether the credentials are as they were signed, whatever became of the content."""
        return CONTENT.issuperset(self.failures)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One file's judgement."""

    path: Path
    state: State
    why: tuple[str, ...]
    """Reasons of a state that is not MADE."""
    notes: tuple[str, ...]
    statement: Statement | None
    """What the credentials said, if any can be read."""
    from_sidecar: bool
    sha256: str


class _Unreadable(Exception):
    """Credentials are there, or were, but cannot be read."""


class _Foreign(Exception):
    """Credentials of another tool, which is named."""


def verify(path: Path, trust: str | None = None) -> Verdict:
    """Judge one file. `trust`: PEM certificates of authorities to believe.

    Raises UserError where there is no such file.
    """
    if not path.is_file():
        kind = "not a file" if path.exists() else "no such file"
        raise UserError(f"{path}: {kind}")
    sha256, notes = storage.sha256(path), []
    try:
        sidecar = _read_sidecar(path, trust)
    except _Unreadable as error:
        sidecar = None
        notes.append(f"the sidecar beside it cannot be used: {error}")
    if sidecar and sidecar.edited:
        notes.append("the plain text of its sidecar was edited; what is shown here was signed")
    embedded, trouble, damaged = _embedded(path, trust)
    statement = embedded
    if embedded is None:
        why = [trouble] if trouble else []
        if sidecar:
            why = why or ["its credentials are gone: it was encoded again, or edited"]
            notes.append("unless the sidecar beside it is of another file")
        statement = sidecar.statement if sidecar else None
        state = State.ALTERED if sidecar or damaged else State.NONE
    else:
        why = _changes(embedded)
        if not sidecar and not notes:
            notes.append("there is no sidecar of it")
        elif sidecar and embedded.holds and not sidecar.is_of(embedded):
            notes.append("the sidecar beside it is of another file")
        elif sidecar and not why and sha256 != sidecar.sha256:
            why = ["bytes that its credentials do not cover differ from the signed file"]
        if sidecar and not embedded.holds:
            statement = sidecar.statement
        state = State.ALTERED if why else State.MADE
    shown = statement is not embedded
    return Verdict(path, state, tuple(why), tuple(notes), statement, shown, sha256)


def _changes(embedded: Statement) -> list[str]:
    """What credentials that can be read tell about changes."""
    words = [MEANINGS.get(code, f"its credentials fail: {code}") for code in embedded.failures]
    if not words and embedded.signed_again_by:
        words = [f"{embedded.signed_again_by} took it up and signed it again"]
    return list(dict.fromkeys(words))


# --- the file's own --------------------------------------------------------------------------


def _embedded(path: Path, trust: str | None) -> tuple[Statement | None, str, bool]:
    """The credentials in a file, or why there are none, and whether damaged ones are left."""
    if not path.stat().st_size:
        return None, "the file is empty", False
    reason, remains = "", "what is left of its credentials cannot be read"
    try:
        with path.open("rb") as file:
            if statement := _read(file, None, trust):
                return statement, "", False
    except _Foreign as other:
        return None, f"its credentials are those of {other}, not of Likeness", False
    except _Unreadable as error:
        reason = f"the file cannot be read ({error})"
        remains += f" ({error})"
    damaged = _remains(path)
    return None, remains if damaged else reason, damaged


def _remains(path: Path) -> bool:
    """Whether damaged credentials of ours are somewhere in a file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(JUMBF) >= 0 and data.find(MAKER) >= 0


def _read(file: BinaryIO, kind: str | None, trust: str | None) -> Statement | None:
    """The credentials in a stream; None: there are none. Raises _Foreign and _Unreadable."""
    here = development_chain()
    statement = _read_believing(file, kind, here, Vouched.HERE)
    if statement and trust and statement.signer.vouched is Vouched.UNKNOWN:
        file.seek(0)
        statement = _read_believing(file, kind, trust, Vouched.TRUSTED)
    return statement


def _read_believing(
    file: BinaryIO, kind: str | None, anchors: str | None, vouched: Vouched
) -> Statement | None:
    settings = OFFLINE | ({"trust": {"user_anchors": anchors}} if anchors else {})
    try:
        with (
            c2pa.Context.from_dict(settings) as context,
            c2pa.Reader(kind, file, context=context) as reader,
        ):
            told = json.loads(reader.json())
    except (c2pa.C2paError.ManifestNotFound, c2pa.C2paError.NotSupported):
        return None
    except (c2pa.C2paError, ValueError, RecursionError) as error:
        raise _Unreadable(clean_detail(error).rstrip(": ")) from None
    manifests = told.get("manifests", {})
    active = manifests.get(told.get("active_manifest"), {})
    ours = active if _is_ours(active) else next(filter(_is_ours, manifests.values()), None)
    results = told.get("validation_results", {}).get("activeManifest", {})
    codes = {
        kind: {entry["code"] for entry in results.get(kind, [])} for kind in ("failure", "success")
    }
    if ours is None:
        if codes["failure"] - ABOUT_SIGNER:
            raise _Unreadable("it was changed")
        raise _Foreign(_generator(active))
    if told.get("validation_state") == "Invalid" and not codes["failure"]:
        codes["failure"] = {"unknown"}  # never valid by an oversight
    return _statement(ours, codes, None if ours is active else _generator(active), vouched)


def _is_ours(manifest: dict[str, Any]) -> bool:
    return any(one["label"] == ASSERTION for one in manifest.get("assertions", []))


def _generator(manifest: dict[str, Any]) -> str:
    names = [str(one.get("name", "")) for one in manifest.get("claim_generator_info", [])]
    return clean_detail(names[0] if names else manifest.get("claim_generator") or "another tool")


def _statement(
    manifest: dict[str, Any], codes: dict[str, set[str]], other: str | None, vouched: Vouched
) -> Statement:
    said = next(one["data"] for one in manifest["assertions"] if one["label"] == ASSERTION)
    trusted = "signingCredential.trusted" in codes["success"] and other is None
    by = manifest.get("signature_info", {})
    try:
        facts, label = json.loads(said["facts"]), said["label"]["text"]
        if not isinstance(facts, dict) or not isinstance(label, str | None):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _Unreadable("its statement is not in the form that this version writes") from None
    return Statement(
        facts=facts,
        label=label,
        code=str(said.get("code")),
        manifest=str(manifest.get("label")),
        signer=Signer(
            name=clean_detail(by.get("common_name") or by.get("issuer") or "nameless"),
            vouched=vouched if trusted else Vouched.UNKNOWN,
            expired=bool(EXPIRED & codes["failure"]),
        ),
        failures=tuple(sorted(codes["failure"] - ABOUT_SIGNER)),
        signed_again_by=other,
    )


# --- the sidecar -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Sidecar:
    sha256: str
    statement: Statement
    edited: bool
    of_folder: bool

    def is_of(self, embedded: Statement) -> bool:
        """Whether both speak of one file. A folder's sidecar keeps its first picture's words."""
        if self.of_folder:
            return self.statement.facts == embedded.facts
        return self.statement.manifest == embedded.manifest


def _read_sidecar(path: Path, trust: str | None) -> _Sidecar | None:
    """The sidecar of a file or of its folder; None: there is none. Raises _Unreadable."""
    own, of_folder = sidecar_path(path), sidecar_path(path.absolute().parent)
    found = own if own.is_file() else of_folder
    if not found.is_file():
        return None
    if found.stat().st_size > LARGEST_SIDECAR:
        raise _Unreadable("it is too large to be one")
    try:
        told = json.loads(found.read_bytes())
        if told["format"] != FORMAT:
            raise ValueError
        files = dict(told["files"])
        store = base64.b64decode(told["credentials"], validate=True)
        plain = (told["facts"], told["label"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _Unreadable("it is not in the form that this version writes") from None
    # A file that was renamed together with its sidecar is known by being the only one.
    sha256 = files.get(path.name) if found == of_folder else next(iter(files.values()), None)
    if sha256 is None:
        return None
    try:
        statement = _read(io.BytesIO(store), "application/c2pa", trust)
    except _Foreign:
        statement = None
    if statement is None or not statement.holds:
        raise _Unreadable("the credentials in it were changed")
    edited = plain != (statement.facts, statement.label)
    return _Sidecar(str(sha256), statement, edited, found == of_folder)
