"""params.yaml as frozen, typed models.

An unknown key, a wrong type or an impossible value stops with the key, the reason and the
nearest right key. A stage's models hold exactly what decides its output; `beam` and
`download`'s manners (rate, proxy, cookies) change how a stage runs, never what it writes.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipelines.errors import UserError, nearest

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


class Model(BaseModel):
    """Base of all sections: frozen, strict, no unknown keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Paths(Model):
    """Where things live; local folders or object-store URLs."""

    data: str = "data"
    """Manifests and shards: the DVC outs."""
    work: str = "work"
    """Per-item files named by their content: what makes a stage resumable. Outside DVC."""
    metrics: str = "metrics"
    cards: str = "dataset_cards"

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


class Source(Model):
    """One published list or tree."""

    name: Name
    """Appears in shard names: a new source adds tars and touches none."""
    reader: Literal["voxceleb1", "voxceleb2", "vox_metadata", "hdtf", "talkinghead1kh", "mp4"]
    path: str = "."
    """Relative to `catalog.metadata`."""
    people: str | None = None
    """vox1_meta.csv or vox2_meta.csv: gives the publisher's own split by person."""


class Filters(Model):
    """Optional thresholds on header facts; a clip without the fact passes."""

    min_fv_conf: float | None = None
    min_asd_conf: float | None = None
    max_offset: Annotated[int, Field(ge=0)] | None = None
    """Audio offset in frames, absolute."""
    min_frames: Positive | None = None
    max_frames: Positive | None = None


class Split(Model):
    """Split by person. The publisher's own test people stay test people."""

    seed: int = 0
    val: Fraction = 0.02
    test: Fraction = 0.0
    use_published: bool = True

    @model_validator(mode="after")
    def _leaves_training_people(self) -> Split:
        if self.val + self.test >= 1:
            raise ValueError("val + test must leave a share of people to train on")
        return self


class Catalog(Model):
    """What to rebuild."""

    metadata: str
    """Folder that holds the published lists: a DVC dependency."""
    takedowns: str = "takedowns.csv"
    sources: tuple[Source, ...]
    filters: Filters = Filters()
    split: Split = Split()
    max_bad: Fraction = 0.1
    """Failure budget: share of annotations that may be unreadable."""

    @model_validator(mode="after")
    def _sources_are_distinct(self) -> Catalog:
        if not self.sources:
            raise ValueError("sources must name at least one list or tree")
        names = [s.name for s in self.sources]
        if len(set(names)) < len(names):
            raise ValueError(f"two sources share a name: {sorted(names)}")
        return self


class Download(Model):
    """What to fetch, from where, and how politely."""

    url: str = "https://www.youtube.com/watch?v={video_id}"
    mirror: str | None = None
    """Folder, http or object-store URL asked first; `{video_id}` and `{ext}` are filled in,
    or `/{video_id}.{ext}` is appended."""
    extensions: tuple[str, ...] = ("mp4", "webm", "mkv", "mov", "mpg", "avi")
    format: str = "bv*[height<={max_height}]+ba/b[height<={max_height}]/bv*+ba/b"
    max_height: Positive = 720
    max_bytes: Positive = 4_000_000_000
    max_seconds: Positive = 3600
    """Wall-clock limit of one video's fetch."""
    concurrency: Annotated[int, Field(ge=1, le=64)] = 4
    """Fetches under way at once in each worker."""
    per_minute: Annotated[float, Field(gt=0)] = 20.0
    """Token bucket: videos started per minute, shared by all processes of this machine."""
    burst: Positive = 4
    bytes_per_second: Positive | None = None
    retries: Annotated[int, Field(ge=0, le=20)] = 4
    """Tries after the first on 429, 5xx and broken connections."""
    backoff: Annotated[float, Field(gt=0)] = 5.0
    """Seconds before the first retry; doubles each time, with jitter."""
    breaker: Positive = 1
    """Bot-checks that stop the run; the rest is left `deferred`."""
    timeout: Annotated[float, Field(gt=0)] = 30.0
    """Socket timeout, seconds."""
    cookies: str | None = None
    proxy: str | None = None
    js_runtime: str | None = None
    """yt-dlp's JavaScript runtime: deno, node, bun or quickjs, or `deno:/path/to/deno`."""
    extractor_args: dict[str, dict[str, list[str]]] = Field(default_factory=dict)
    """Passed to yt-dlp: {youtube: {player_client: [web]}}."""
    yt_dlp: dict[str, Any] = Field(default_factory=dict)
    """Any further YoutubeDL option, last word."""
    max_failed: Fraction = 0.5
    """Failure budget: share of videos. Years-old lists lose a third and more to dead links."""

    @model_validator(mode="after")
    def _url_names_the_video(self) -> Download:
        if "{video_id}" not in self.url:
            raise ValueError("download.url needs the placeholder {video_id}")
        return self


class Crop(Model):
    """How clips are cut."""

    policy: Literal["clip", "track"] = "clip"
    """clip: one box for the whole clip. track: a box of constant size that follows the face."""
    size: Annotated[int, Field(ge=16, le=2048, multiple_of=2)] = 256
    margin: Annotated[float, Field(ge=0, le=4)] = 0.6
    """Side of the crop = side of the face box x (1 + margin)."""
    smooth: Annotated[float, Field(ge=0, le=10)] = 0.4
    """Seconds over which boxes are smoothed."""
    min_face: Annotated[int, Field(ge=0)] = 40
    """Pixels of the source."""
    min_frames: Positive = 25
    scene_threshold: Fraction = 0.55
    """0 turns the check off."""
    crf: Annotated[int, Field(ge=0, le=51)] = 16
    preset: Literal[
        "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower"
    ] = "veryfast"
    audio_rate: Literal[8000, 16000, 22050, 24000, 32000, 44100, 48000] = 16000
    max_failed: Fraction = 0.5


class LandmarkParams(Model):
    """Where the face is, and which clips are good enough."""

    backend: Literal["face_alignment", "mediapipe"] = "face_alignment"
    device: str = "cpu"
    batch_size: Positive = 16
    min_confidence: Fraction = 0.5
    min_sharpness: Annotated[float, Field(ge=0)] = 25.0
    max_yaw: Annotated[float, Field(gt=0, le=180)] = 75.0
    max_pitch: Annotated[float, Field(gt=0, le=180)] = 45.0
    max_roll: Annotated[float, Field(gt=0, le=180)] = 45.0
    min_detected: Fraction = 0.8
    min_overlap: Fraction = 0.5
    max_failed: Fraction = 0.5


class Shard(Model):
    """WebDataset tars."""

    clips: Positive = 512
    """Clips per tar aimed at; fixes the number of buckets from the catalog."""
    frames: Positive = 32
    """Evenly spaced frames stored per clip."""
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 92


class Card(Model):
    """What the dataset card says that no manifest knows."""

    title: str
    licence: str
    """SPDX identifier or Hugging Face licence id."""
    description: str
    homepage: str = ""
    citation: str = ""
    thumbnails: Positive = 48


class Beam(Model):
    """Passed through to Apache Beam; never decides what is written."""

    runner: str = "FnApiRunner"
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _runner_tells_the_truth(self) -> Beam:
        if self.runner.rpartition(".")[2] == "DaskRunner":
            raise ValueError(
                "DaskRunner silently drops branches and runs steps twice; use FnApiRunner, "
                "FlinkRunner, SparkRunner or DataflowRunner"
            )
        return self


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
        return Params.model_validate_json(text)
    except ValidationError as error:
        lines = [f"{path}: {_explain(e)}" for e in error.errors()]
        raise UserError("\n".join(lines)) from None


def _explain(error: Any) -> str:
    location = [str(part) for part in error["loc"]]
    key = ".".join(part if part.isprintable() else ascii(part) for part in location)
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key{nearest(location[-1], _fields_at(location[:-1]))}"
    if error["type"] == "missing":
        return f"{key}: this key is required"
    message = error["msg"]
    if error["type"] == "value_error":
        return f"{key}: {message.removeprefix('Value error, ')}"
    message = message[:1].lower() + message[1:]
    hint = ""
    if error["type"] == "literal_error":
        hint = nearest(str(error["input"]), re.findall(r"'(.+?)'", error["ctx"]["expected"]))
    return f"{key}: {message}, found {error['input']!r}{hint}"


def _fields_at(location: list[str]) -> list[str]:
    model: Any = Params
    for part in location:
        if part.isdigit():
            continue
        annotation = model.model_fields[part].annotation
        while not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            annotation = annotation.__args__[0]
        model = annotation
    return list(model.model_fields)
