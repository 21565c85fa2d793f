"""What a rebuild will take: CPU hours, wall hours, bytes and money, stage by stage."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from pipelines.doctor import rates
from pipelines.doctor.corpus import Corpus, site_megapixels
from pipelines.params import Params
from pipelines.params.training import Setting

GB = 1e9


@dataclass(frozen=True)
class Prices:
    """What an hour and a byte cost. The defaults are round list prices of large clouds."""

    cpu_hour: float = 0.04
    gb_month: float = 0.023
    gpu_hour: float = 2.0
    egress_gb: float = 0.09


@dataclass(frozen=True)
class Stage:
    """One line of the plan."""

    name: str
    units: str
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    bytes: float = 0.0
    """What it leaves on disk."""
    egress: float = 0.0
    note: str = ""

    def money(self, prices: Prices) -> float:
        """Computing, a month of its bytes, and what leaves the house."""
        return (
            self.cpu_seconds / 3600 * prices.cpu_hour
            + self.gpu_seconds / 3600 * prices.gpu_hour
            + self.bytes / GB * prices.gb_month
            + self.egress / GB * prices.egress_gb
        )


@dataclass
class Plan:
    """The estimate of a corpus."""

    corpus: Corpus
    workers: int
    stages: list[Stage] = field(default_factory=list)
    memory: float = 0.0
    """Bytes at once."""
    assumptions: list[str] = field(default_factory=list)

    unpriced: tuple[str, ...] = ()
    """Stages whose time no rate is known of: the sum leaves it out."""

    def __getitem__(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)

    @property
    def whole(self) -> str:
        """What the sum of all stages is called."""
        return f"all but {', '.join(self.unpriced)}" if self.unpriced else "all"

    @property
    def disk(self) -> float:
        """Bytes on disk when all is done."""
        return sum(stage.bytes for stage in self.stages)


def workers_of(params: Params) -> int:
    """Processes that the Beam options ask for, the local runner's or a portable one's."""
    local = params.beam.options.get("direct_num_workers")
    if local == 0:  # Beam: one for each core
        return os.cpu_count() or 1
    found = local or params.beam.options.get("parallelism")
    return found if isinstance(found, int) and found > 0 else 1


def estimate(
    params: Params,
    corpus: Corpus,
    workers: int,
    samples_per_second: float | None = None,
) -> Plan:
    """The plan. samples_per_second: of training, all workers together, where it is known."""
    plan = Plan(corpus, workers, memory=(workers + 1) * rates.PROCESS_MIB * 1024**2)
    plan.stages += [
        _catalog(corpus),
        _download(params, corpus, plan),
        _crop(params, corpus, plan),
        _landmarks(params, corpus, plan),
        *_shard(params, corpus, plan),
        Stage("card", "1 card", rates.CARD, wall_seconds=rates.CARD),
    ]
    if params.settings:
        training = _training(params, corpus, plan, samples_per_second)
        plan.stages.append(training)
        plan.unpriced = ("evaluate",) if training.wall_seconds else ("meta_train", "evaluate")
    plan.assumptions += [
        f"{corpus.clips:,} clips of {corpus.videos:,} videos and {corpus.people:,} people, "
        f"{corpus.clip_seconds / 3600:,.1f} hours; counted from {corpus.counted_from}",
        f"no link is dead and no clip fails: each that does makes the run cheaper; source frames "
        f"of {corpus.megapixels:.2f} megapixels, {corpus.video_seconds / 3600:,.1f} hours of video",
        "CPU seconds of the 2-core machine of benchmarks/README.md; wall hours at "
        f"{workers} workers with a core each",
    ]
    return plan


def _start(plan: Plan) -> float:
    return rates.PROCESS * (plan.workers + 1)


def _shared(plan: Plan, cpu: float) -> float:
    """Wall seconds of work that all workers share."""
    return rates.PROCESS * 2 + (cpu - _start(plan)) / plan.workers


def _catalog(corpus: Corpus) -> Stage:
    cpu = rates.PROCESS + rates.CATALOG_CLIP * corpus.clips
    size = rates.CATALOG_BYTES * corpus.clips
    return Stage("catalog", f"{corpus.clips:,} clips", cpu, wall_seconds=cpu, bytes=size)


def _download(params: Params, corpus: Corpus, plan: Plan) -> Stage:
    own = params.download
    fetched = corpus.videos - corpus.in_place
    cpu = rates.PROBE_VIDEO * corpus.videos + rates.PROBE_SECOND * corpus.video_seconds
    cpu += _start(plan) + rates.SITE_VIDEO * fetched
    wall, notes = _shared(plan, cpu), []
    if corpus.in_place:
        notes.append("read in place" if not fetched else f"{corpus.in_place:,} read in place")
    if fetched and own.mirror is not None:
        plan.assumptions.append(_mirrored(corpus, wall))
    pace = fetched / own.per_minute * 60
    if pace > wall:
        wall = pace
        notes.append(f"{own.per_minute:g} a minute")
    seconds = corpus.video_seconds - corpus.in_place_seconds if fetched else 0.0
    pixels = site_megapixels(params) * 1e6 * 25 * seconds
    return Stage(
        "download",
        f"{corpus.videos:,} videos",
        cpu,
        wall_seconds=wall,
        bytes=pixels * rates.BITS_PER_PIXEL / 8,
        note=", ".join(notes),
    )


def _mirrored(corpus: Corpus, wall: float) -> str:
    """What is assumed of a mirror that does not hold all, or was not asked."""
    if corpus.mirror is None:
        return (
            "how many videos the mirror holds is not known, so all wait for download.per_minute; "
            "those it holds do not, and if it holds all the stage takes "
            f"{wall / 3600:,.1f} wall hours and the network's"
        )
    held, looked_for = corpus.mirror
    return (
        f"the mirror's folder holds {held} of the {looked_for} videos looked for in it "
        f"({held / looked_for:.0%}), and that share of all; the site gives the others"
    )


def _area(params: Params) -> float:
    return (params.crop.size / 256) ** 2


def _crop(params: Params, corpus: Corpus, plan: Plan) -> Stage:
    frame = rates.CROP_FRAME * (0.5 + 0.5 * _area(params))  # half of it encodes the crop
    frame += rates.CROP_MEGAPIXEL * corpus.megapixels
    cpu = _start(plan) + rates.CROP_VIDEO * corpus.videos + frame * corpus.frames
    size = rates.CROP_SECOND * _area(params) * corpus.clip_seconds
    size += rates.RECORD_BYTES * corpus.clips
    return Stage(
        "crop", f"{corpus.clips:,} clips", cpu, wall_seconds=_shared(plan, cpu), bytes=size
    )


def _landmarks(params: Params, corpus: Corpus, plan: Plan) -> Stage:
    own = params.landmarks
    units = f"{corpus.frames:,.0f} frames"
    size = rates.LANDMARK_BYTES * corpus.frames
    base = _start(plan) + rates.LANDMARK_VIDEO * corpus.videos
    if own.backend == "face_alignment" and own.device != "cpu":
        gpu = rates.LANDMARK_FRAME_GPU * corpus.frames
        note = "GPU rate not measured"
        return Stage("landmarks", units, base + gpu, gpu, base + gpu, size, note=note)
    cpu = base + rates.LANDMARK_FRAME[own.backend] * corpus.frames
    return Stage("landmarks", units, cpu, wall_seconds=_shared(plan, cpu), bytes=size)


def _shard(params: Params, corpus: Corpus, plan: Plan) -> list[Stage]:
    pictures = corpus.clips * min(
        params.shard.frames, corpus.frames / corpus.clips if corpus.clips else 0
    )
    cpu = _start(plan) + rates.SHARD_FRAME * corpus.frames
    cpu += rates.SHARD_PICTURE * _area(params) * pictures
    size = (rates.PICTURE_BYTES * _area(params) + rates.MEMBER_BYTES) * pictures
    size += rates.POINTS_BYTES * corpus.frames + 4 * rates.MEMBER_BYTES * corpus.clips
    kept = size + (rates.CATALOG_BYTES + rates.MANIFEST_BYTES) * corpus.clips
    return [
        Stage(
            "shard",
            f"{pictures:,.0f} pictures",
            cpu,
            wall_seconds=_shared(plan, cpu),
            bytes=size + rates.MANIFEST_BYTES * corpus.clips,
        ),
        # DVC copies where the file system knows no reflinks; a push sends it all once.
        Stage("DVC cache", "1 copy", bytes=kept, egress=kept, note="and one push to a remote"),
    ]


def _training(params: Params, corpus: Corpus, plan: Plan, rate: float | None) -> Stage:
    setting = params.settings[params.setting]
    videos = _train_videos(params, corpus)
    samples = setting.epochs * videos
    units = f"{samples:,} samples"
    on_gpu = params.ray.gpus_per_worker > 0
    size = _checkpoints(params, corpus)
    if rate is None and on_gpu:
        note = "give --samples-per-second: see benchmarks/step.py"
        return Stage("meta_train", units, bytes=size, note=note)
    if rate is not None:
        wall = samples / rate
        gpu = wall * params.ray.workers * params.ray.gpus_per_worker
        cpu = wall * params.ray.workers * params.ray.cpus_per_worker
        note = f"{rate:g} samples/s as given"
        return Stage("meta_train", units, cpu, gpu, wall, size, note=note)
    # The work grows with the picture's area, the square of the channels and the frames embedded.
    teraflops = rates.META_TERAFLOPS * _channels(setting) * (setting.k + 8) / 16
    teraflops += sum(rates.CONTENT_TERAFLOPS.get(name, 0.0) for name in setting.content)
    teraflops *= (setting.networks.image_size / 256) ** 2
    cpu = rates.META_START + samples * rates.TERAFLOP * teraflops
    cores = max(1.0, params.ray.workers * params.ray.cpus_per_worker)
    note = "full-size cost scaled by area and channels"
    return Stage("meta_train", units, cpu, wall_seconds=cpu / cores, bytes=size, note=note)


def _train_videos(params: Params, corpus: Corpus) -> int:
    split = params.catalog.split
    return max(1, round(corpus.videos * (1 - split.val - split.test)))


def _channels(setting: Setting) -> float:
    """The work of a layer against the paper's: half of them have few channels, half have many."""
    own = setting.networks
    return ((own.min_channels / 64) ** 2 + (own.max_channels / 512) ** 2) / 2


def _checkpoints(params: Params, corpus: Corpus) -> float:
    """Bytes of the checkpoints that are kept: weights, two moments of each, averages, W."""
    setting = params.settings[params.setting]
    share = _channels(setting) * setting.networks.image_size / 256  # smaller ones are less deep
    networks = 4 * share * (3 * rates.PARAMETERS + rates.AVERAGED)
    table = 3 * 4 * rates.EMBEDDING * _train_videos(params, corpus)
    return params.ray.keep * (networks + table)
