"""Three people of whom one leaves: what is annotated of them, asked for, and left in files."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from utterances import write_utterance

from pipelines.forget import requests
from pipelines.forget.requests import Request
from pipelines.params import Params
from pipelines.schemas import IDENTITY, INDEX

HEADER = "kind,id,date,reason\n"
LEAVER, FRIEND, STRANGER = "id00001", "id00002", "id00003"
OWN, SHARED, OTHER = "-own_video1", "sharedvideo", "othervideo_"


def annotate(root: Path, person: str, video: str, utterance: str = "00001") -> None:
    left = int(person[-1]) / 20  # two people are never in the same place
    write_utterance(root, person, video, utterance, dict.fromkeys(range(7, 10), left))


def asked(params: Params, *lines: str) -> list[Request]:
    Path(params.catalog.takedowns).write_text(HEADER + "".join(f"{line},,\n" for line in lines))
    return requests.read(params.catalog.takedowns)


def clip_row(person: str, video: str, utterance: str, path: str | None) -> dict[str, Any]:
    key = f"{person}_{video}_{utterance}"
    same = {"key": key, "source": "vox", "person": person, "video": video, "utterance": utterance}
    return same | {"status": "ok", "detail": "", "path": path}


def index_of(path: Path, person: str, video: str = "v") -> Path:
    row = dict.fromkeys(INDEX.names) | clip_row(person, video, "1", None)
    row = {name: row[name] for name in IDENTITY} | {"shard_sha256": "00", "shard_bytes": 1}
    pq.write_table(pa.Table.from_pylist([row] * 50), path, compression="zstd")
    return path


def safetensors(path: Path, facts: Any) -> Path:
    said = {"format": "likeness-1", "kind": "model", "sha256": "", "facts": facts}
    header = json.dumps({"__metadata__": {"likeness": json.dumps(said)}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 16)
    return path
