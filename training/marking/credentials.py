"""Signed content credentials (C2PA) in what we make, and the sidecar that outlives them.

A file says of itself, under a signature, that a model made it (trainedAlgorithmicMedia), from
what, and whether it wears the visible label. Any later re-encode drops that, so a sidecar
`<file>.likeness.json` keeps the facts, the sha256 of the signed file and the signed credentials.
A folder of pictures has each of them signed, and one sidecar `<folder>.likeness.json`.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import c2pa
from PIL import Image

from pipelines import storage
from pipelines.errors import UserError, clean_detail
from pipelines.version import code_version
from training.addresses import without_secrets
from training.marking.keys import Keys

FORMAT = "likeness-sidecar-1"
ASSERTION = "org.likeness.lineage"
GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
SUFFIX = ".likeness.json"
TYPES = {
    ".mp4": "video/mp4",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
}
# Nothing is fetched: neither a stranger's file nor our own may make this machine call anywhere.
OFFLINE: dict[str, Any] = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_after_sign": False},
    "builder": {"thumbnail": {"enabled": False}},
}


def sidecar_path(path: Path) -> Path:
    """Where the sidecar of a file or of a folder of pictures lies."""
    return path.with_name(path.name + SUFFIX)


def _names_alone(facts: Any) -> Any:
    """Where a file lay on the machine that made a picture is nobody's business."""
    if isinstance(facts, Mapping):
        return {
            key: without_secrets(value).rpartition("/")[2]
            if key in ("path", "url") and isinstance(value, str)
            else _names_alone(value)
            for key, value in facts.items()
        }
    return [_names_alone(one) for one in facts] if isinstance(facts, list | tuple) else facts


def sign(
    path: Path,
    *,
    facts: Mapping[str, Any],
    label: str | None,
    keys: Keys,
    title: str | None = None,
    into: Path | None = None,
) -> Path:
    """Embed signed credentials in a finished file, or in each picture of a folder, in place.

    facts: plain values that JSON keeps; of paths and addresses in them names alone are published.
    label: the visible label's text, None where it is off.
    into: publish it under this name instead, which so never holds anything unsigned; for a folder
    there must be none of that name yet.
    Returns the path of the sidecar. Raises UserError for a kind of file that cannot be signed or
    a certificate that is not fit for it.
    """
    final = into or path
    facts = _names_alone(facts)
    _check_fit(keys)
    # As text: the library's reader turns lists of small numbers into base64.
    statement = {
        "facts": json.dumps(facts, sort_keys=True, allow_nan=False, ensure_ascii=False),
        "label": {"visible": label is not None, "text": label},
        "code": code_version(),
    }
    sidecar = sidecar_path(final)
    stores, files = [], {}
    if path.is_dir():
        pictures = sorted(p for p in path.iterdir() if p.suffix.lower() in TYPES)
        if not pictures:
            raise UserError(f"{path}: no pictures to sign in this folder")
        for picture in pictures:
            stores.append(_embed(picture, picture, statement, picture.name, keys))
            files[picture.name] = storage.sha256(picture)
        storage.remove(str(sidecar))
        path.rename(final)
    else:
        stores.append(_embed(path, final, statement, title or final.name, keys, sidecar))
        files[final.name] = storage.sha256(final)
    written = {
        "format": FORMAT,
        "files": files,
        "label": label,
        "facts": facts,
        "code": statement["code"],
        # Of the first picture: all of them say the same.
        "credentials": base64.b64encode(stores[0]).decode(),
    }
    text = json.dumps(written, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    storage.write_bytes(str(sidecar), text.encode())
    return sidecar


def _embed(
    path: Path,
    target: Path,
    statement: dict[str, Any],
    title: str,
    keys: Keys,
    outdated: Path | None = None,
) -> bytes:
    """Sign one file; returns the signed credentials.

    outdated: the sidecar of an earlier file under this name, which would call the new one altered.
    """
    kind = TYPES.get(target.suffix.lower())
    if kind is None:
        raise UserError(f"{target}: credentials go into {', '.join(TYPES)}, not into this")
    try:
        with (
            storage.atomic(str(target)) as scratch,
            path.open("rb") as source,
            scratch.open("w+b") as sink,
        ):
            store = _signed(kind, source, sink, statement, title, keys)
            if outdated:
                storage.remove(str(outdated))
    except c2pa.C2paError as error:
        raise UserError(f"{path}: cannot be signed: {clean_detail(error)}") from None
    if path != target:
        path.unlink()
    return store


def _signed(
    kind: str, source: Any, sink: Any, statement: dict[str, Any], title: str, keys: Keys
) -> bytes:
    agent = {"name": "Likeness", "version": statement["code"]}
    created = {"action": "c2pa.created", "digitalSourceType": GENERATED, "softwareAgent": agent}
    manifest = {
        "claim_generator_info": [agent],
        "title": title,
        "assertions": [
            {"label": "c2pa.actions", "data": {"actions": [created]}},
            {"label": ASSERTION, "kind": "Json", "data": statement},
        ],
    }
    info = c2pa.C2paSignerInfo(keys.algorithm, keys.chain.encode(), keys.key, None)
    with (
        c2pa.Context.from_dict(OFFLINE) as context,
        c2pa.Signer.from_info(info) as signer,
        c2pa.Builder(json.dumps(manifest), context) as builder,
    ):
        return bytes(builder.sign(signer, kind, source, sink))


@lru_cache(maxsize=8)
def _check_fit(keys: Keys) -> None:
    """Sign a dot and read it: C2PA asks for what few certificates have. Raises UserError."""
    dot, signed = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (1, 1)).save(dot, "PNG")
    dot.seek(0)
    try:
        _signed("image/png", dot, signed, {"code": "0"}, "dot", keys)
        with (
            c2pa.Context.from_dict(OFFLINE) as context,
            c2pa.Reader("image/png", signed, context=context) as reader,
        ):
            found = reader.get_validation_results()["activeManifest"]["failure"]
        failures = [one for one in found if one["code"] != "signingCredential.untrusted"]
        words = ", ".join(one.get("explanation") or one["code"] for one in failures)
    except c2pa.C2paError as error:
        words = str(error)
    if words:
        raise UserError(
            f"the certificate is not fit for content credentials ({clean_detail(words)}): C2PA "
            "asks for one that an authority signed, with the key usage digitalSignature and the "
            "extended usage emailProtection"
        )
