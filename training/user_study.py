"""The paper's user study: a page of triplets, and USER from the answers that raters send back.

`python -m training.user_study answers.csv [...]` prints USER for each method and T with its
interval over people, and with `--results results/SETTING` the paper's table with it. USER is
arXiv 1905.08233's user accuracy: of three pictures of a person, two of them real, how often the
generated one is found. Lower is better, a third is chance.
"""

from __future__ import annotations

import argparse
import base64
import csv
import io
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from pipelines import outputs, progress, storage
from pipelines.command import EXIT_OK, guarded
from pipelines.errors import UserError
from training.evaluation.instruments import CSIM_DIGITS, FRECHET_DIGITS, SSIM_DIGITS
from training.evaluation.methods import MADE
from training.evaluation.person import SELF, Record
from training.evaluation.protocol import Part
from training.evaluation.table import NOTHING, header_lines, json_bytes, table_row
from training.metrics.bootstrap import Estimate, interval, resamples
from training.pixels import Pixels

TEMPLATE = Path(__file__).parent / "templates" / "user_study.html"
QUALITY = 92
COLUMNS = ("study", "rater", "triplet", "person", "method", "shots", "right")
REAL_FRAMES = 2
"""Real frames a triplet needs: the same picture twice tells which is the third."""
RESAMPLES, CONFIDENCE = 1000, 0.95
PAGE = re.compile(r'<script type="application/json" id="study">(.*?)</script>', re.DOTALL)


class Triplet(NamedTuple):
    """Three pictures, and what the key tells of them."""

    pictures: tuple[Pixels, Pixels, Pixels]
    generated: int
    person: str
    method: str
    shots: int


def triplets(parts: Sequence[Part], records: Sequence[Record], seed: int) -> list[Triplet]:
    """One for each person, T and method, in an order and at places that the seed decides."""
    rng = np.random.default_rng(seed)
    found = []
    for part, record in zip(parts, records, strict=True):
        real = record["study/real"]
        if len(real) < REAL_FRAMES:
            continue
        names = [(shots, method) for shots in part.sources for method in MADE]
        made = [(t, m, record[f"study/{t}/{m}"]) for t, m in names if f"study/{t}/{m}" in record]
        for (shots, method, picture), pair in zip(made, pairs(len(real), len(made)), strict=True):
            pictures = [real[at] for at in pair]
            place = int(rng.integers(3))
            pictures.insert(place, picture)
            a, b, c = pictures
            found.append(Triplet((a, b, c), place, part.person, method, shots))
    return [found[at] for at in rng.permutation(len(found))]


def pairs(count: int, wanted: int) -> list[tuple[int, int]]:
    """Pairs of `count` frames: no pair again before every other, each frame as seldom as can be.

    A rater soon knows a picture again, and a pair gives the third picture away.
    """
    every = list(combinations(range(count), 2))
    told, shown = Counter[tuple[int, int]](), Counter[int]()
    found = []
    for _ in range(wanted):
        pair = min(every, key=lambda pair: (told[pair], shown[pair[0]] + shown[pair[1]], pair))
        told[pair] += 1
        shown.update(pair)
        found.append(pair)
    return found


def left_out(parts: Sequence[Part], records: Sequence[Record]) -> list[str]:
    """Who is not on the page."""
    both = zip(parts, records, strict=True)
    return [part.person for part, record in both if len(record["study/real"]) < REAL_FRAMES]


def page(name: str, parts: Sequence[Part], records: Sequence[Record], seed: int) -> bytes:
    """user_study.html: stands alone and may load nothing, its own content policy forbids that."""
    shown = triplets(parts, records, seed)
    rng = np.random.default_rng(seed)
    jpegs = [list(_jpegs(t.pictures, rng)) for t in shown]
    study = f"{name}-{storage.digest(*(jpeg for three in jpegs for jpeg in three))[:12]}"
    answers = [
        {"person": t.person, "method": t.method, "shots": t.shots, "generated": t.generated}
        for t in shown
    ]
    document = {
        "id": study,
        "triplets": [[base64.b64encode(jpeg).decode() for jpeg in three] for three in jpegs],
        "key": _scrambled(json.dumps(answers).encode(), study.encode()),
    }
    # In a script element "</" could end the data early, and "<!--" its end.
    data = json.dumps(document).replace("<", "\\u003c")
    return TEMPLATE.read_text(encoding="utf-8").replace("__STUDY__", data).encode()


def _jpegs(pictures: Sequence[Pixels], rng: np.random.Generator) -> Iterator[bytes]:
    """All alike: the same quality, no metadata, and padded behind their end to the same length."""
    jpegs = []
    for picture in pictures:
        out = io.BytesIO()
        Image.fromarray(picture).save(out, "JPEG", quality=QUALITY, subsampling=0)
        jpegs.append(out.getvalue())
    longest = max(map(len, jpegs))
    return (jpeg + rng.bytes(longest - len(jpeg)) for jpeg in jpegs)


def _scrambled(data: bytes, salt: bytes) -> str:
    """Against a glance at the source, not against someone who wants to cheat."""
    return base64.b64encode(bytes(b ^ salt[i % len(salt)] for i, b in enumerate(data))).decode()


# --- answers ---------------------------------------------------------------------------------


def read_answers(paths: Sequence[str]) -> list[dict[str, str]]:
    """All raters' answers, each once however often its file is given.

    Raises UserError, also where two downloads of a rater disagree: which is newer is not told.
    """
    answers: dict[tuple[str, ...], dict[str, str]] = {}
    places: dict[tuple[str, ...], str] = {}
    for path in paths:
        try:
            with Path(path).open(newline="", encoding="utf-8-sig") as file:
                header = file.readline()
                # As the page writes it, or as Excel saves it again where a comma is in numbers.
                delimiter = ";" if ";" in header else ","
                file.seek(0)
                rows = list(csv.DictReader(file, delimiter=delimiter))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{path}: cannot be read: {reason}") from None
        for line, row in enumerate(rows, start=2):
            whole = all(row.get(column) for column in COLUMNS) and row["shots"].isdecimal()
            # Not every older page wrote which was picked.
            picked, made = row.get("picked"), row.get("generated")
            honest = picked is None or made is None or row["right"] == str(int(picked == made))
            if not whole or row["right"] not in ("0", "1") or not honest:
                raise UserError(
                    f"{path}:{line}: no answer of the user study's page; give the file as it was "
                    "downloaded"
                )
            asked = (row["study"], row["rater"], row["triplet"])
            before, place = answers.setdefault(asked, row), f"{path}:{line}"
            first = places.setdefault(asked, place)
            if any(before[column] != row[column] for column in COLUMNS):
                raise UserError(
                    f"{first} and {place}: two answers of one rater to the same triplet; leave "
                    "the older download out"
                )
    if not answers:
        raise UserError(f"no answers in {', '.join(paths)}")
    if len(studies := {row["study"] for row in answers.values()}) > 1:
        raise UserError(f"answers to different pages: {', '.join(sorted(studies))}")
    return list(answers.values())


def user(answers: Sequence[Mapping[str, str]]) -> Estimate:
    """USER of these answers: the share that found the generated picture, resampled by people."""
    people = sorted({row["person"] for row in answers})
    place = [people.index(row["person"]) for row in answers]
    right = np.bincount(place, [int(row["right"]) for row in answers])
    given = np.bincount(place).astype(float)
    share = float(right.sum() / given.sum())
    if len(people) < 2:
        return Estimate(share, float("nan"), float("nan"), len(people))
    counts = resamples(len(people), RESAMPLES, seed=0)
    return Estimate(share, *interval((counts @ right) / (counts @ given), CONFIDENCE), len(people))


def groups(answers: Sequence[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    """Answers by method and T, as the tables name them."""
    found: dict[str, list[dict[str, str]]] = {}
    for row in sorted(answers, key=lambda row: (row["method"], int(row["shots"]))):
        found.setdefault(f"{row['method']} T={row['shots']}", []).append(row)
    return found


def evaluated(folder: str, study: str) -> dict[str, Any]:
    """results.json of the evaluation whose page was answered.

    Raises UserError where there is none in the folder, or the one of another page.
    """
    try:
        html = storage.read_bytes(storage.join(folder, "user_study.html")).decode()
        results: dict[str, Any] = json.loads(
            storage.read_bytes(storage.join(folder, "results.json"))
        )
        found = PAGE.search(html)
        page_of = json.loads(found[1])["id"] if found else None
    except (OSError, ValueError) as error:
        raise UserError(f"--results {folder}: no evaluation's results: {error}") from None
    if page_of != study:
        raise UserError(
            f"--results {folder}: its page is {page_of}, and the answers are to {study}; name the "
            "results of the evaluation whose page was sent"
        )
    return results


def paper_table(results: Mapping[str, Any], users: Mapping[str, Estimate]) -> str:
    """The table of arXiv 1905.08233 in Markdown, USER included: methods by T."""
    by_shots: dict[str, Any] = results["all"][SELF]
    names = dict.fromkeys(name for t in by_shots.values() for m in t.values() for name in m)
    kinds = ((("FID", "FD-"), FRECHET_DIGITS), ("SSIM", SSIM_DIGITS), ("CSIM", CSIM_DIGITS))
    found = (
        (next((n for n in names if n.startswith(kind)), None), digits) for kind, digits in kinds
    )
    shown = {name: digits for name, digits in found if name}
    rows = []
    for method in (name for name in MADE if any(name in t for t in by_shots.values())):
        cells = []
        for shots, methods in by_shots.items():
            measured = methods.get(method, {})
            means = [(measured.get(name, {}).get("mean"), shown[name]) for name in shown]
            texts = [f"{mean:.{n}f}" if mean is not None else NOTHING for mean, n in means]
            share = users.get(f"{method} {shots}")
            cells.append(" / ".join([*texts, f"{share.mean:.2f}" if share else NOTHING]))
        rows.append(table_row([method, *cells]))
    return "\n".join(
        [f"## {' / '.join([*shown, 'USER'])}", "", *header_lines(["", *by_shots]), *rows]
    )


def _many(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m training.user_study`."""
    parser = argparse.ArgumentParser(
        prog="python -m training.user_study",
        description=(__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("answers", nargs="+", metavar="FILE", help="what raters downloaded")
    parser.add_argument(
        "--results", metavar="FOLDER", help="of the evaluation: print the paper's table with USER"
    )
    parser.add_argument(
        *("-o", "--output"),
        metavar="JSON",
        help="write USER there; `dvc metrics show JSON` prints it, no stage makes it",
    )
    options = parser.parse_args(argv)

    def command() -> int:
        if options.output:
            outputs.check_file("-o", options.output, [("an answer", p) for p in options.answers])
            if Path(options.output).is_dir():
                raise UserError(f"-o {options.output} is a folder; name a JSON file in it")
        answers = read_answers(options.answers)
        given = _many(len(answers), "answer", "answers")
        raters = _many(len({row["rater"] for row in answers}), "rater", "raters")
        results = evaluated(options.results, answers[0]["study"]) if options.results else None
        progress.say(f"{given} of {raters}; USER [{CONFIDENCE:.0%} interval]")
        users = {}
        for name, rows in groups(answers).items():
            users[name] = share, low, high, people = user(rows)
            within = NOTHING if math.isnan(low) else f"[{low:.2f}, {high:.2f}]"
            count = f"{_many(len(rows), 'answer', 'answers')}, {_many(people, 'person', 'people')}"
            progress.say(f"{name:<10} {share:.2f} {within}  {count}")
        if results is not None:
            progress.say(paper_table(results, users))
        if options.output:
            # The names that metrics/evaluate.json gives the other metrics.
            numbers = {f"{n.replace(' T=', '.T')}.USER": round(u.mean, 6) for n, u in users.items()}
            storage.write_bytes(options.output, json_bytes(numbers))
        return EXIT_OK

    return guarded(command)


if __name__ == "__main__":
    sys.exit(main())
