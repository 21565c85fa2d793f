"""Card: tell people and machines what was made, and what was lost on the way.

Reads every manifest and writes into <paths.cards>/<name>/: README.md (a Hugging Face dataset
card), croissant.json and report.html. The first two depend on the manifests and params.yaml
alone; the report also shows how long the stages took, and `python -m pipelines.report` writes one
with the training runs that used the dataset. Headline numbers go to metrics/card.json, the losses
to metrics/funnel.csv.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from pipelines import progress, storage
from pipelines.command import EXIT_OK, arguments, guarded
from pipelines.params import Params, load
from pipelines.report.croissant import croissant
from pipelines.report.facts import Dataset, read_dataset, read_histograms
from pipelines.report.funnel import Funnel, read_funnel
from pipelines.report.page import report
from pipelines.report.templating import environment
from pipelines.statuses import STATUS

# Licences by their SPDX names, as Hugging Face writes them: in small letters, three cut short.
SPDX = {
    name.lower(): name
    for name in (
        *("Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0"),
        *("CC-BY-2.0", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC-BY-ND-4.0"),
        *("CC-BY-NC-2.0", "CC-BY-NC-3.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-2.0", "CC-BY-NC-SA-3.0"),
        *("CC-BY-NC-SA-4.0", "CC-BY-NC-ND-3.0", "CC-BY-NC-ND-4.0"),
    )
} | {"odc-by": "ODC-By-1.0", "odbl": "ODbL-1.0", "pddl": "PDDL-1.0"}
SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)
HUB_SPLITS = {"train": "train", "val": "validation", "test": "test"}

# Settings that change how a stage runs, where or how patiently, but not what it writes.
MANNERS = {
    "catalog": {"metadata", "takedowns", "max_bad", "sources"},
    "crop": {"max_failed"},
    "landmarks": {"device", "batch_size", "max_failed"},
    "shard": set[str](),
}


def build(params: Params) -> dict[str, Any]:
    """Write everything; returns the headline numbers. Raises UserError for a missing manifest."""
    funnel = read_funnel(params)
    dataset = read_dataset(params)
    metrics = headline(funnel, dataset)
    folder = storage.join(params.paths.cards, params.name)
    # All texts are made before the first is written: a failure leaves the old ones together.
    files = {
        storage.join(folder, "README.md"): readme(params, funnel, dataset),
        storage.join(folder, "croissant.json"): croissant(params, dataset, licence_url(params)),
        storage.join(folder, "report.html"): report(
            params, funnel, dataset, read_histograms(params)
        ),
        storage.join(params.paths.metrics, "card.json"): _json(metrics),
        storage.join(params.paths.metrics, "funnel.csv"): _csv(funnel),
    }
    for url, data in files.items():
        storage.write_bytes(url, data)
    return metrics


def headline(funnel: Funnel, dataset: Dataset) -> dict[str, Any]:
    """The numbers of metrics/card.json."""
    return {
        **dataset.total.numbers(),
        "annotated": funnel.annotated,
        "excluded": funnel.excluded(),
        "digest": dataset.digest,
        "splits": {split: share.numbers() for split, share in dataset.splits.items()},
    }


def _json(metrics: dict[str, Any]) -> bytes:
    return (json.dumps(metrics, indent=1) + "\n").encode()


def _csv(funnel: Funnel) -> bytes:
    lines = [f"{stage}: {status},{clips}" for stage, status, clips in funnel.csv_rows()]
    return "\n".join(["verdict,clips", *lines, ""]).encode()


# --- README.md -------------------------------------------------------------------------------


def readme(params: Params, funnel: Funnel, dataset: Dataset) -> bytes:
    """The dataset card."""
    card = params.card
    text = (
        environment(html=False)
        .get_template("README.md.j2")
        .render(
            front_matter=front_matter(params, dataset),
            title=" ".join(card.title.split()),
            description=card.description.strip(),
            homepage=card.homepage,
            citation=card.citation.strip(),
            licence=card.licence,
            total=dataset.total,
            splits=dataset.splits,
            split_words=dataset.split_words,
            digest=dataset.digest,
            settings=list(settings(params)),
            frames=params.shard.frames,
            crop_size=params.crop.size,
            backend=params.landmarks.backend,
            funnel=funnel,
            losses=list(losses(funnel)),
            excluded=funnel.excluded(),
            first_split=next(iter(dataset.splits), "train"),
        )
    )
    return text.encode()


def front_matter(params: Params, dataset: Dataset) -> str:
    """The card's YAML: what the hub indexes and how it loads the tars."""
    card = params.card
    clips = dataset.total.clips
    head: dict[str, Any] = licence(params)
    head |= {
        "pretty_name": " ".join(card.title.split()),
        "task_categories": ["image-to-video", "image-to-image", "keypoint-detection"],
        "size_categories": [next((word for top, word in SIZES if clips < top), "n>10M")],
        "tags": [
            "talking-head",
            "faces",
            "facial-landmarks",
            "video",
            "webdataset",
            "croissant",
            *sorted({source.reader for source in params.catalog.sources}),
        ],
    }
    # The hub takes a config without files for a mistake.
    if dataset.splits:
        files = [
            {"split": HUB_SPLITS[split], "path": f"shards/{split}/*.tar"}
            for split in dataset.splits
        ]
        head["configs"] = [{"config_name": "default", "data_files": files}]
    return yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=100)


def licence(params: Params) -> dict[str, Any]:
    """The licence in the hub's words."""
    name = params.card.licence.strip()
    if name.lower() in SPDX.keys() | {"other", "unknown"}:
        return {"license": name.lower()}
    return {"license": "other", "license_name": name}


def licence_url(params: Params) -> str:
    """The licence in Croissant's words: an SPDX address where the name is known."""
    name = params.card.licence.strip()
    spdx = SPDX.get(name.lower())
    return f"https://spdx.org/licenses/{spdx}.html" if spdx else name


def settings(params: Params) -> Iterator[tuple[str, str]]:
    """Parameters that decide the content, as (dotted name, value)."""
    for source in params.catalog.sources:
        yield f"catalog.sources.{source.name}", f"reader {source.reader}"
    for section, hidden in MANNERS.items():
        own = getattr(params, section).model_dump(exclude=hidden)
        yield from ((f"{section}.{key}", value) for key, value in _flat(own))
        if section == "catalog":
            for key in ("format", "max_height"):
                yield f"download.{key}", _value(getattr(params.download, key))


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, _value(value)


def _value(value: object) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def losses(funnel: Funnel) -> Iterator[dict[str, Any]]:
    """Every status that cost clips."""
    for step in funnel.steps:
        for status, clips in step.ordered:
            yield {
                "stage": step.stage,
                "status": status,
                "clips": clips,
                "share": f"{clips / funnel.annotated:.2%}",
                "meaning": STATUS[status].meaning,
            }


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m pipelines.card`."""
    options = arguments(__doc__ or "").parse_args(argv)

    def command() -> int:
        params = load(options.params)
        metrics = build(params)
        folder = storage.join(params.paths.cards, params.name)
        progress.say(
            f"card: {metrics['clips']:,} of {metrics['annotated']:,} annotated clips, "
            f"{metrics['people']:,} people, {metrics['hours']:g} hours; digest "
            f"{metrics['digest'][:16]}\ncard: wrote README.md, croissant.json and report.html "
            f"into {folder}"
        )
        return EXIT_OK

    return guarded(command)


if __name__ == "__main__":
    sys.exit(main())
