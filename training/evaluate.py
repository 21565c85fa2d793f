"""Evaluate a trained model by the paper's protocol: `python -m training.evaluate`, a DVC stage.

Reads the model, index.parquet and the tars of `evaluate.split`. Writes into
<paths.results>/<setting>/: frames.json (who and which frames), table.md, results.json, grid.png
and user_study.html; and flat numbers to <paths.metrics>/evaluate.json. People that are done are
kept in the work folder, so that the same command goes on where it was stopped.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pipelines import outputs, progress, storage
from pipelines.command import EXIT_OK, arguments, guarded
from pipelines.errors import StopStage, UserError
from pipelines.params import Params, load
from pipelines.params.training import Evaluate, Weights
from pipelines.takedowns import read_takedowns
from pipelines.version import code_version
from pipelines.work_folder import shard_cache
from training import content, perceptual, user_study
from training.addresses import without_secrets
from training.episodes import Episodes
from training.evaluation import protocol as protocols
from training.evaluation import table
from training.evaluation.figure import figure
from training.evaluation.frames import open_split
from training.evaluation.instruments import Instruments
from training.evaluation.methods import Methods
from training.evaluation.person import Kept, Record, measure
from training.evaluation.protocol import Protocol
from training.evaluation.summary import Summary
from training.grid import save_png
from training.index import EmptySplit, people_of
from training.metrics import motion
from training.perceptual import default_cache
from training.run import SPLIT
from training.shard_cache import localize
from training.trained import Trained, default_model, device_named, find_model


@dataclass(frozen=True)
class Outcome:
    """What was written, and the numbers."""

    folder: str
    people: int
    left_out: int


def evaluate(params: Params, model_url: str | None = None, device: str | None = None) -> Outcome:
    """Measure and write everything.

    Raises UserError for a model, index, tars or people that are missing, StopStage for weights
    that cannot be had.
    """
    settings = params.evaluate
    where = device_named(device or settings.device)
    for name in ("results", "metrics", "work"):
        outputs.check_folder(f"paths.{name}", getattr(params.paths, name))
    model_url = model_url or default_model(params)
    index = params.paths.manifest("shard")
    if not storage.exists(index):
        raise UserError(f"{index}: no such file; run the shard stage first")
    instruments = Instruments(settings, where)
    model = _model(params, model_url, where)
    index_sha256 = storage.digest_bytes(storage.read_bytes(index))
    shards = storage.join(params.paths.data, "shards")
    local = localize(index, shards, index_sha256, [settings.split], shard_cache(params))
    try:
        episodes = open_split(*local, settings.split, model.size)
    except EmptySplit as error:
        listed = params.catalog.takedowns
        if not (storage.exists(listed) and read_takedowns(listed).lines):
            raise UserError(f"evaluate: {error}") from None
        return _nobody_left(params, model_url, model, index_sha256)
    protocol = _protocol(params, episodes)
    every = content.settings_of(params)
    loss = content.loss_of(model, every).to(where) if model.tunable else None
    adapting = params.adapting(model.setting_name)
    methods = Methods(model, loss, adapting, settings.seed, where)

    frames = protocols.to_json(protocol, episodes.index, {"index_sha256": index_sha256})
    measuring = settings.model_dump_json(exclude={"bootstrap", "confidence", "device"})
    kept = Kept(
        *(params.paths.work, model.sha256, index_sha256, frames),
        *(measuring, adapting.model_dump_json(), where.type),
    )
    records = _measured(protocol, episodes, methods, instruments, kept)
    facts = _facts(params, model_url, model, index_sha256) | {"device": where.type}
    known = people_of(local[0], SPLIT).intersection(part.person for part in protocol.parts)
    warnings = _warnings(params, model, index_sha256, sorted(known))
    folder = _written(params, facts, protocol, episodes, records, instruments, warnings, frames)
    kept.clear()
    return Outcome(folder, len(protocol.parts), len(protocol.left_out))


def _model(params: Params, url: str, where: torch.device) -> Trained:
    """The model, if it tells all that an evaluation must know. Raises UserError."""
    model = find_model(params, url, where)
    made = (
        ("setting", model.setting),
        ("content", model.content),
        ("dataset", model.facts.get("dataset")),
    )
    if lacking := [name for name, said in made if not said]:
        raise UserError(
            f"{url}: does not say of what {' and '.join(lacking)} it is made; name a model "
            "that training.meta_train left: --model"
        )
    return model


def _measured(
    protocol: Protocol, episodes: Episodes, methods: Methods, instruments: Instruments, kept: Kept
) -> list[Record]:
    """Everybody's scores and pictures, in the protocol's order; those that are kept, from there."""
    records = []
    with progress.simple("evaluate", "people", len(protocol.parts)) as advance:
        for part in protocol.parts:
            record = kept.get(part)
            if record is None:
                try:
                    record = measure(protocol, part, episodes, methods, instruments)
                except FloatingPointError as error:
                    raise StopStage(f"evaluate: {part.person}: {error}; lower adapt.lr_*") from None
                kept.put(part, record)
            records.append(record)
            advance(1)
    return records


def _written(
    params: Params,
    facts: dict[str, Any],
    protocol: Protocol,
    episodes: Episodes,
    records: Sequence[Record],
    instruments: Instruments,
    warnings: Sequence[str],
    frames: bytes,
) -> str:
    """Write tables, pictures and the study's page; returns their folder."""
    settings = params.evaluate
    people = [part.person for part in protocol.parts]
    summary = Summary(people, records, instruments.framewise, list(instruments.networks), settings)
    folder = storage.join(params.paths.results, params.setting)
    if unshown := user_study.left_out(protocol.parts, records):
        warnings = [
            *warnings,
            f"user_study.html lacks {len(unshown)} of these people, who have fewer than "
            f"{user_study.REAL_FRAMES} real frames for it: {', '.join(unshown)}.",
        ]
    notes = list(table.notes(summary, instruments.absent, warnings))
    text = table.markdown(
        summary,
        _head(facts) | _neighbours(protocol, episodes),
        instruments.framewise,
        instruments.distributional,
        notes,
        protocol.left_out,
    )
    results = {**facts, "notes": notes, **table.nested(summary)}
    study = user_study.page(params.setting, protocol.parts, records, settings.seed)
    storage.write_bytes(storage.join(folder, "frames.json"), frames)
    storage.write_bytes(storage.join(folder, "results.json"), table.json_bytes(results))
    storage.write_bytes(storage.join(folder, "table.md"), text.encode())
    storage.write_bytes(storage.join(folder, "user_study.html"), study)
    save_png(figure(protocol.parts, records), storage.join(folder, "grid.png"))
    storage.write_bytes(
        storage.join(params.paths.metrics, "evaluate.json"),
        table.json_bytes(table.flat(summary, " + ".join(facts["content"]))),
    )
    return folder


def _nobody_left(params: Params, url: str, model: Trained, index_sha256: str) -> Outcome:
    """What is written where takedowns left nobody: older results must not stay in their place."""
    facts = _facts(params, url, model, index_sha256)
    note = f"Takedowns left nobody in split {params.evaluate.split}: nothing was measured."
    folder = storage.join(params.paths.results, params.setting)
    results = table.json_bytes({**facts, "notes": [note]})
    head = "\n".join(f"- {key}: {value}" for key, value in _head(facts).items())
    storage.write_bytes(storage.join(folder, "results.json"), results)
    text = f"# Evaluation\n\n{head}\n\n> {note}\n"
    storage.write_bytes(storage.join(folder, "table.md"), text.encode())
    content = {"content_backbones": " + ".join(facts["content"])}
    metrics = storage.join(params.paths.metrics, "evaluate.json")
    storage.write_bytes(metrics, table.json_bytes(content))
    for name in ("frames.json", "grid.png", "user_study.html"):
        if storage.exists(old := storage.join(folder, name)):
            storage.remove(old)
    progress.complain(f"evaluate: {note} Wrote that into {folder}; evaluate.split names another")
    return Outcome(folder, 0, 0)


def _protocol(params: Params, episodes: Episodes) -> Protocol:
    settings = params.evaluate
    if settings.frames is None:
        return protocols.choose(episodes.index, episodes.points, settings, settings.split)
    try:
        data = storage.read_bytes(settings.frames)
    except FileNotFoundError:
        raise UserError(f"evaluate.frames: {settings.frames}: no such file") from None
    return protocols.from_json(data, episodes.index, settings.frames)


def _facts(params: Params, url: str, model: Trained, index_sha256: str) -> dict[str, Any]:
    return {
        "kind": "evaluation",
        "about": model.setting.get("about", ""),
        "setting": params.setting,
        "content": sorted(model.content),
        "size": model.size,
        "model": {
            "path": without_secrets(url),
            "sha256": model.sha256,
            "dataset": model.facts["dataset"],
        },
        "dataset": {
            "name": params.name,
            "split": params.evaluate.split,
            "index_sha256": index_sha256,
        },
        "evaluate": _told(json.loads(params.evaluate.model_dump_json())),
        "weights": _digests(params.evaluate),
        "adapt": json.loads(params.adapting(model.setting_name).model_dump_json()),
        "code": code_version(),
    }


def _told(section: Any) -> Any:
    """A section of params without what its addresses keep secret."""
    if not isinstance(section, dict):
        return section
    return {k: without_secrets(v) if k == "url" else _told(v) for k, v in section.items()}


def _digests(settings: Evaluate) -> dict[str, str]:
    """The sha256 of each file of weights that measured: tables of others do not compare."""
    named: list[tuple[str, Weights | None]] = [*settings.identity.items()]
    named += settings.features.items()
    for distance, both in settings.lpips.items():
        named += [(distance, both), (f"{distance}-heads", both.heads if both else None)]
    found: dict[str, str] = {}
    for name, given in named:
        if given is not None:
            weights = perceptual.Weights(given.url, given.sha256)
            found[name] = storage.sha256(perceptual.fetch(name, weights, default_cache()))
    return found


def _head(facts: dict[str, Any]) -> dict[str, str]:
    dataset, model, adapt = facts["dataset"], facts["model"], facts["adapt"]
    return {
        "model": facts["about"] or facts["setting"],
        "pictures": f"{facts['size']} px",
        "content loss in training": ", ".join(facts["content"]),
        "fine-tuning": (
            f"{adapt['iterations'] or 'by T, 125 or more'} iterations of up to "
            f"{adapt['batch_size']} frames, rates {adapt['lr_generator']:g} (G) and "
            f"{adapt['lr_discriminator']:g} (D)"
        ),
        "model file": f"`{model['path']}`, sha256 `{model['sha256']}`",
        "dataset": (
            f"{dataset['name']}, split {dataset['split']}; index sha256 `{dataset['index_sha256']}`"
        ),
        "code": facts["code"],
    }


def _neighbours(protocol: Protocol, episodes: Episodes) -> dict[str, str]:
    gap = protocols.apart(protocol, episodes.index)
    if math.isnan(gap):
        return {"jitter": f"not measured: no stored frames lie {motion.FAR} or less apart"}
    return {"jitter": f"over held-out neighbours, in their clip {gap:g} frames apart (median)"}


def _warnings(params: Params, model: Trained, index_sha256: str, known: Sequence[str]) -> list[str]:
    """Where the people may not be new to the model."""
    if params.evaluate.split == "train":
        return ["Split train: the model was trained on these very people."]
    trained_on = model.facts["dataset"].get("index_sha256")
    if trained_on != index_sha256:
        return [
            "The model was trained on another state of a dataset than it is evaluated on: whether "
            "these people are new to it is not known."
        ]
    if known:  # where a published list puts a person's clips into several splits
        return [
            f"The model was trained on other clips of {len(known)} of these people: "
            f"{', '.join(known)}."
        ]
    return []


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m training.evaluate`."""
    parser = arguments(__doc__ or "")
    parser.add_argument(
        "--model", metavar="URL", help="default: <paths.models>/<setting>.safetensors"
    )
    parser.add_argument("--device", help="cpu, cuda or cuda:N; default: evaluate.device")
    options = parser.parse_args(argv)

    def command() -> int:
        outcome = evaluate(load(options.params), options.model, options.device)
        if not outcome.people:
            return EXIT_OK
        left = outcome.left_out
        progress.say(
            f"evaluate: {outcome.people} {'person' if outcome.people == 1 else 'people'}"
            + (f", {left} left out of some T (see table.md)" if left else "")
            + f"\nevaluate: wrote table.md, results.json, frames.json, grid.png and "
            f"user_study.html into {outcome.folder}"
        )
        return EXIT_OK

    return guarded(command)


if __name__ == "__main__":
    sys.exit(main())
