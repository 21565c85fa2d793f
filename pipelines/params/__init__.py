"""params.yaml as frozen, typed models.

An unknown key, a wrong type or an impossible value stops with the key, the reason and the
nearest right key; a file where a folder is meant (`places.py`) with the key and the path. A stage's
models hold exactly what decides its output; `beam`, `ray` and `download`'s manners (rate, proxy,
cookies) change how a stage runs, never what it writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from pipelines.errors import UserError, nearest
from pipelines.params.dataset import Beam, Card, Catalog, Crop, Download, LandmarkParams, Shard
from pipelines.params.model import Model, Name
from pipelines.params.places import misplaced
from pipelines.params.training import Adapt, Animate, Evaluate, Ray, Setting


class Paths(Model):
    """Where things live; local folders or object-store URLs."""

    data: str = "data"
    """Manifests and shards: the DVC outs."""
    work: str = "work"
    """Per-item files named by their content: what makes a stage resumable. Outside DVC."""
    metrics: str = "metrics"
    cards: str = "dataset_cards"
    models: str = "models"
    """Trained models: DVC outs."""
    results: str = "results"
    """Tables and pictures of an evaluation: DVC outs."""

    def manifest(self, stage: str) -> str:
        """URL of a stage's manifest."""
        return f"{self.data.rstrip('/')}/{MANIFESTS[stage]}"


MANIFESTS = {
    "catalog": "catalog.parquet",
    "download": "downloads.parquet",
    "crop": "crops.parquet",
    "landmarks": "landmarks.parquet",
    "shard": "index.parquet",
}


class Params(Model):
    """The whole of params.yaml."""

    name: Name
    paths: Paths = Paths()
    catalog: Catalog
    download: Download = Download()
    crop: Crop = Crop()
    landmarks: LandmarkParams = LandmarkParams()
    shard: Shard = Shard()
    card: Card
    beam: Beam = Beam()
    setting: Name = "paper"
    """Which of the settings to train with."""
    settings: dict[Name, Setting] = Field(default_factory=dict)
    ray: Ray = Ray()
    adapt: Adapt = Adapt()
    evaluate: Evaluate = Evaluate()
    animate: Animate = Animate()

    def adapting(self, setting: str) -> Adapt:
        """How models of a setting are adapted: its own keys before those of `adapt`."""
        own = self.settings[setting].adapt if setting in self.settings else None
        said = {key: getattr(own, key) for key in own.model_fields_set} if own else {}
        return self.adapt.model_copy(update=said)

    @model_validator(mode="after")
    def _setting_is_one_of_them(self) -> Params:
        if self.settings and self.setting not in self.settings:
            raise ValueError(
                f"setting: there is no setting {self.setting!r}, but {', '.join(self.settings)}"
                + nearest(self.setting, self.settings)
            )
        return self

    @model_validator(mode="after")
    def _batch_has_equal_parts(self) -> Params:
        if not self.settings:
            return self
        setting, workers = self.settings[self.setting], self.ray.workers
        if setting.batch % workers:
            raise ValueError(
                f"settings.{self.setting}.batch: {setting.batch} has no equal parts for "
                f"ray.workers {workers}"
            )
        if (each := setting.batch // workers) % setting.meta.accumulate:
            raise ValueError(
                f"settings.{self.setting}.meta.accumulate: {setting.meta.accumulate} does not "
                f"divide a worker's {each} episodes"
            )
        return self


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key given twice is an error: the first would be lost in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys are distinct words."""
        seen: set[str] = set()
        for key, _ in node.value:
            problem = ""
            if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
                problem = "a key must be a word; put it in quotes"
            elif key.value in seen:
                problem = f"the key {key.value!r} is given twice"
            if problem:
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load(path: str | Path) -> Params:
    """Read and check a params file. Raises UserError naming file, key, reason and remedy."""
    try:
        data = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give one with --params FILE") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UserError(f"{where}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(data, dict):
        raise UserError(
            f"{path}: expected sections such as `catalog:`, found {type(data).__name__}"
        )
    try:
        # Through JSON, so that strict mode takes lists for tuples and nothing else is coerced.
        text = json.dumps(data, default=str)
    except ValueError as error:
        raise UserError(f"{path}: an alias holds itself: {error}") from None
    try:
        params = Params.model_validate_json(text)
        wrong = list(misplaced(params))
    except ValidationError as error:
        wrong = [_explain(e) for e in error.errors() if not _follows(e, error.errors())]
    if wrong:
        raise UserError("\n".join(f"{path}: {line}" for line in wrong))
    return params


def _follows(error: Any, errors: Sequence[Any]) -> bool:
    """Whether a list is too short only because one of its entries is wrong."""
    at = error["loc"]
    inside = (other["loc"] for other in errors if len(other["loc"]) > len(at))
    return error["type"] == "too_short" and any(loc[: len(at)] == at for loc in inside)


def _explain(error: Any) -> str:
    location = [str(part) for part in error["loc"]]
    key = ".".join(part if part.isprintable() else ascii(part) for part in location)
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key{nearest(location[-1], _fields_at(location[:-1]))}"
    if error["type"] == "missing":
        if location[-1].isdigit():
            return f"{key}: this entry of the list is required"
        return f"{key}: this key is required"
    if error["type"] == "too_short":
        return f"{key}: too few valid entries, wanted {error['ctx']['min_length']} or more"
    message = error["msg"]
    if error["type"] == "value_error":
        return f"{key}: {message.removeprefix('Value error, ')}".removeprefix(": ")
    message = message[:1].lower() + message[1:]
    hint = ""
    if error["type"] == "literal_error":
        hint = nearest(str(error["input"]), re.findall(r"'(.+?)'", error["ctx"]["expected"]))
    if error["type"].startswith("float") and _is_number(error["input"]):
        hint = "; YAML wants a point and a sign there, as in 3.0e-4 or 1.0e+3"
    return f"{key}: {message}, found {error['input']!r}{hint}"


def _is_number(text: object) -> bool:
    """Whether a text is a number to everybody but YAML 1.1."""
    return isinstance(text, str) and bool(re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", text))


def _fields_at(location: list[str]) -> list[str]:
    model: Any = Params
    for part in location:
        if part.isdigit():
            continue
        if part not in model.model_fields:  # the name of one of `settings`
            continue
        annotation = model.model_fields[part].annotation
        while not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            annotation = _inside(annotation)
        model = annotation
    return list(model.model_fields)


def _inside(annotation: Any) -> Any:
    """What a tuple, a dict or an optional holds."""
    return next(a for a in reversed(annotation.__args__) if a is not type(None) and a is not ...)
