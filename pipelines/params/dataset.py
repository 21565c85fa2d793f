"""The sections of the rebuild: from the catalog to the card."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipelines.params.model import Fraction, Model, Name, Positive
from pipelines.schemas import LARGEST_CROP

Extension = Annotated[str, Field(pattern=r"^[A-Za-z0-9]+$")]
"""Of a file's name, without the dot."""


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

    @model_validator(mode="after")
    def _some_length_passes(self) -> Filters:
        if self.min_frames and self.max_frames and self.min_frames > self.max_frames:
            raise ValueError(f"min_frames {self.min_frames} is above max_frames {self.max_frames}")
        return self


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
    mirror_only: bool = False
    """Ask the mirror and never the site: a video that it does not hold is `removed`."""
    extensions: Annotated[tuple[Extension, ...], Field(min_length=1)] = (
        "mp4",
        "webm",
        "mkv",
        "mov",
        "mpg",
        "avi",
    )
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
        for name in re.findall(r"\{(\w*)\}", self.mirror or ""):
            if name not in ("video_id", "ext"):
                raise ValueError(
                    f"mirror: nothing fills in {{{name}}}, only {{video_id}} and {{ext}}"
                )
        if self.mirror_only and self.mirror is None:
            raise ValueError("mirror_only: there is no mirror to ask; name one")
        return self


class Crop(Model):
    """How clips are cut."""

    policy: Literal["clip", "track"] = "clip"
    """clip: one box for the whole clip. track: a box of constant size that follows the face."""
    size: Annotated[int, Field(ge=16, le=LARGEST_CROP, multiple_of=2)] = 256
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

    title: Annotated[str, Field(min_length=1)]
    licence: Annotated[str, Field(min_length=1)]
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
