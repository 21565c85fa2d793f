"""The report's table of clips: who, what became of it, and how it measures."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.manifest import clip_names
from pipelines.params import Params
from pipelines.report.facts import FPS, measured
from pipelines.report.table import Names, Numbers, pack
from pipelines.report.wordings import marked, without_numbers
from pipelines.statuses import Status

MOST = 100_000
"""Clips in the table; a page of more could not be mailed."""
WORDS = 500_000
"""Letters of the tools' words that the page may hold; rarer ones lose their numbers first."""
UNTOLD = "its words are in the manifest"

# Column, label, lowest value, step, decimals. 8,099 steps reach 324 s and 4,049 of sharpness.
MEASURES = (
    ("seconds", "Seconds", 0.0, 1 / FPS, 2),
    ("source_face", "Face px", 0.0, 0.5, 0),
    ("sharpness", "Sharpness", 0.0, 0.5, 1),
    ("confidence", "Confidence", 0.0, 0.001, 2),
    ("yaw", "Yaw °", -180.0, 0.05, 1),
    ("pitch", "Pitch °", -180.0, 0.05, 1),
    ("roll", "Roll °", -180.0, 0.05, 1),
)


def clip_table(params: Params, verdicts: pa.Table) -> str:
    """JSON for the page. Who was taken out on request is not in it, not even as a digest."""
    listed = verdicts.filter(pc.not_equal(verdicts["status"], Status.EXCLUDED))
    shown = sample(listed, MOST)
    # What could not be read has no names but the file and line that its key tells.
    nameless = pc.and_(pc.equal(shown["person"], ""), pc.equal(shown["video"], ""))
    utterances = pc.if_else(nameless, shown["key"], shown["utterance"])
    columns: list[Names | Numbers] = [
        Names("person", "Person", shown["person"], filter="start", shown=False),
        Names("video", "Video", shown["video"], shown=False),
        Names("utterance", "Clip", utterances, shown=False),
        Names("status", "Status", shown["status"], filter="choice"),
        Names("stage", "Stage", shown["stage"], shown=False),
        Names("source", "Source", shown["source"], filter="choice"),
        Names("split", "Split", shown["split"], filter="choice"),
        Names("words", "The tool's own words", _words(shown), shown=False),
    ]
    values = _measures(params, shown)
    columns += [
        Numbers(name, label, values[name], low, step, places)
        for name, label, low, step, places in MEASURES
    ]
    return pack(columns, len(shown), len(listed))


def sample(rows: pa.Table, most: int) -> pa.Table:
    """At most so many rows, drawn by a hash of their keys: the same for the same dataset."""
    if len(rows) <= most:
        return rows
    ranks = np.fromiter(
        (
            int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")
            for chunk in rows["key"].chunks
            for key in chunk.to_pylist()
        ),
        np.uint64,
        len(rows),
    )
    chosen: npt.NDArray[np.int64] = np.sort(np.argsort(ranks, kind="stable")[:most])
    return rows.take(pa.array(chosen))


def _words(rows: pa.Table) -> list[str]:
    """The tools' words with the identifiers as marks, cut down to the room there is."""
    said = [""] * len(rows)
    # Not `indices_nonzero`: pyarrow crashes over a column without chunks.
    told = np.flatnonzero(pc.not_equal(rows["detail"], "").to_numpy())
    few = rows.select(["key", "person", "video", "detail"]).take(pa.array(told))
    for at, row in zip(told.tolist(), few.to_pylist(), strict=True):
        said[at] = marked(row["detail"], row)
    for shorten in (without_numbers, lambda _: UNTOLD):
        room, kept = WORDS, set()
        for words, _ in sorted(Counter(said).items(), key=lambda pair: (-pair[1], pair[0])):
            room -= len(words)
            if room < 0:
                break
            kept.add(words)
        said = [words if words in kept else shorten(words) for words in said]
    return said


def _measures(params: Params, clips: pa.Table) -> dict[str, npt.NDArray[np.float64]]:
    """The measures of these clips; NaN where the landmarks stage did not see one."""
    columns = {name: np.full(len(clips), np.nan) for name, *_ in MEASURES}
    among = clip_names(clips).combine_chunks()
    for found, values, _ in measured(params):
        at = pc.index_in(found, among)
        here = at.is_valid().to_numpy(zero_copy_only=False)
        places = at.drop_null().to_numpy()
        for name, column in columns.items():
            column[places] = values[name][here]
    return columns
