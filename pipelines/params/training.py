"""The sections of training: settings to meta-learn with, Ray, adaptation, evaluation, animation.

A setting has the names and defaults of `training.networks.NetworkConfig` and
`training.meta.MetaConfig`; a test keeps them the same. They stand here a second time because
whoever rebuilds a dataset has no torch.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipelines.params.model import Model, Positive

Rate = Annotated[float, Field(gt=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]
"""What an average keeps of itself a step: at 1 it would never learn anything."""
Shots = Annotated[tuple[Positive, ...], Field(min_length=1)]
BackboneName = Literal["vgg19", "vggface", "squeezenet", "random", "pixels"]


class Networks(Model):
    """Size of E, G and D."""

    image_size: Annotated[int, Field(ge=8, le=8192)] = 256
    min_channels: Annotated[int, Field(ge=1, le=8192)] = 64
    max_channels: Annotated[int, Field(ge=1, le=8192)] = 512
    attention: bool = True
    generator_levels: Positive = 4
    residual_blocks: Annotated[int, Field(ge=0, le=64)] = 4

    @model_validator(mode="after")
    def _fit_each_other(self) -> Networks:
        size, levels = self.image_size, self.generator_levels
        if size & (size - 1):
            raise ValueError(f"image_size: {size} is no power of two")
        if size >> levels < 2:
            raise ValueError(f"generator_levels: {levels} halvings leave nothing of {size} pixels")
        if self.max_channels < self.min_channels:
            raise ValueError(
                f"max_channels: {self.max_channels} is less than min_channels {self.min_channels}"
            )
        if self.attention and (size < 32 or levels < 3 or self._at_attention < 8):
            raise ValueError(
                "attention: it needs image_size 32, generator_levels 3 and 8 channels after three "
                "halvings, or more; else say `attention: false`"
            )
        return self

    @property
    def _at_attention(self) -> int:
        return min(self.max_channels, self.min_channels << 2)


class Meta(Model):
    """How a step is made."""

    variant: Literal["ft", "ff"] = "ft"
    """ft: with the match loss, to be fine-tuned later. ff: without, used as it is."""
    lr_generator: Rate = 5e-5
    lr_discriminator: Rate = 2e-4
    betas: tuple[Decay, Decay] = (0.0, 0.999)
    eps: Rate = 1e-5
    d_steps: Positive = 2
    feature_weight: Weight = 10.0
    match_weight: Weight = 10.0
    ema: Decay | None = 0.999
    accumulate: Positive = 1
    """Equal parts a worker's batch is worked off in, to fit memory."""
    bf16: bool = False
    channels_last: bool = True
    compile: bool = False


class Weights(Model):
    """A file of trained weights."""

    url: str
    """A path, or a URL that is fetched once into the cache."""
    sha256: Annotated[str, Field(pattern="^([0-9a-f]{8,64})?$")] = ""
    """64 hex digits, or the first 8 or more; needed for a URL."""


class Backbone(Model):
    """A part of the content loss."""

    weight: Weight
    url: str = ""
    """Of the weights, as in `Weights`; vgg19 knows where its own are."""
    sha256: Annotated[str, Field(pattern="^([0-9a-f]{8,64})?$")] = ""
    rgb: bool = False
    """The file's first convolution was converted to RGB input."""
    average_pool: bool = False


class Adapt(Model):
    """How one person is learned from a few frames."""

    variant: Literal["ft", "ff"] = "ft"
    iterations: Annotated[int, Field(ge=0)] | None = None
    """Of fine-tuning; null: 125 for one frame up to 230 for 32."""
    patience: Positive | None = None
    """Stop early after so many iterations without a better content loss; null: never."""
    batch_size: Positive = 8
    lr_generator: Rate = 5e-5
    lr_discriminator: Rate = 2e-4
    ema: Decay | None = 0.972
    seed: Annotated[int, Field(ge=0)] = 0
    bf16: bool = False


class Setting(Model):
    """Everything that decides what is learned, but for the dataset."""

    about: str = ""
    """What to call it wherever its results are shown."""
    seed: Annotated[int, Field(ge=0)] = 0
    epochs: Positive = 75
    """An epoch shows each video once. More of them go on from where fewer ended."""
    batch: Positive = 48
    """Episodes a step, of all workers together."""
    k: Positive = 8
    """Source frames of an episode, beside its target."""
    few_frames: Literal["drop", "error"] = "drop"
    """What becomes of videos with fewer than k + 1 frames."""
    loader: Literal["mmap", "stream"] = "mmap"
    """stream: tars from beginning to end, for object stores; resumes at epochs only."""
    content: Annotated[dict[BackboneName, Backbone], Field(min_length=1)]
    networks: Networks = Networks()
    meta: Meta = Meta()
    adapt: Adapt | None = None
    """Keys that go before those of the section `adapt` for its models."""


class Ray(Model):
    """How training runs, never what is learned."""

    address: str | None = None
    """Of a cluster; else `RAY_ADDRESS`; else a cluster of this machine, for this run."""
    workers: Positive = 1
    """Must divide `batch`."""
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1
    gpus_per_worker: Annotated[float, Field(ge=0, le=1)] = 0
    """A share of one, as 0.5, only for a worker alone: NCCL wants a GPU for each of several."""
    loader_workers: Annotated[int, Field(ge=0)] = 0
    """Processes of each worker that decode pictures and draw landmarks."""
    max_failures: Annotated[int, Field(ge=-1)] = 3
    """Lost workers and nodes that a run survives; -1: any number."""
    checkpoint_every: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Steps. The losses between two checkpoints lie in the later one's header, which is small."""
    keep: Annotated[int, Field(ge=2)] = 3
    """Newest checkpoints kept: two at least, since the newest may turn out damaged."""
    grid_every: Positive = 1000
    """Steps between picture grids."""

    @model_validator(mode="after")
    def _whole_gpus(self) -> Ray:
        if 0 < self.gpus_per_worker < 1 and self.workers > 1:
            raise ValueError(f"gpus_per_worker: {self.gpus_per_worker} needs workers: 1")
        return self


class Perceptual(Weights):
    """A backbone of a perceptual distance."""

    heads: Weights | None = None
    """Linear heads; without the published ones the distance is not called LPIPS."""


class Evaluate(Model):
    """The paper's protocol."""

    device: str = "cpu"
    """cpu, cuda or cuda:N."""
    split: Literal["train", "val", "test"] = "test"
    people: Positive = 50
    """At most; drawn by the seed."""
    shots: Shots = (1, 8, 32)
    """T: frames a person is learned from."""
    holdout: Positive = 32
    """Frames of the same video that are rendered and compared."""
    seed: Annotated[int, Field(ge=0)] = 0
    bootstrap: Positive = 1000
    """Resamplings of people behind an interval."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    frames: str | None = None
    """frames.json of an earlier evaluation, to measure on the very same frames."""
    detector: Literal["mediapipe", "face_alignment"] = "mediapipe"
    """Measures landmark error and jitter on what was rendered."""
    identity: dict[Literal["arcface", "mobilefacenet"], Weights] = Field(default_factory=dict)
    """ONNX networks for CSIM; only arcface's published weights make it a CSIM without more name."""
    features: dict[Literal["inception", "squeezenet", "random"], Weights | None] = Field(
        default_factory=dict
    )
    """Networks for FID and KID; inception knows where its own weights are, `random` is for tests
    of the machinery."""
    lpips: dict[Literal["alex", "vgg", "squeezenet"], Perceptual | None] = Field(
        default_factory=dict
    )
    """Perceptual distances; alex and vgg know where their own weights are."""

    @model_validator(mode="after")
    def _squeezenet_has_weights(self) -> Evaluate:
        for name, given in (("features", self.features), ("lpips", self.lpips)):
            if given.get("squeezenet", self) is None:
                raise ValueError(f"{name}.squeezenet: name a url, there is no published one")
        return self


class Animate(Model):
    """How a portrait is brought to life."""

    motion: Literal["relative", "absolute"] = "relative"
    """relative: the driver's change since its calmest frame, on the portrait's own geometry."""
    min_cutoff: Annotated[float, Field(gt=0)] = 1.0
    """Hz, of the One-Euro filter: lower is calmer."""
    beta: Annotated[float, Field(ge=0)] = 0.3
    """Of the One-Euro filter: higher follows fast motion more closely."""
    batch_size: Positive = 8
    label: str = "AI-generated"
    certificate: str | None = None
    """PEM chain and key to sign with; null: a development certificate made on first use."""
    key: str | None = None

    @model_validator(mode="after")
    def _chain_and_key_go_together(self) -> Animate:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key must be given together")
        return self
