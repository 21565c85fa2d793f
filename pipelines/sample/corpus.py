"""Builds the sample corpus: talking heads on video, VoxCeleb2-style annotations, known faults.

    <root>/videos/<video>.mp4                               what a video site would serve
    <root>/metadata/txt/<person>/<video>/<utterance>.txt    annotations in VoxCeleb2's layout
    <root>/metadata/vox2_meta.csv                           people and their split
    <root>/expected.json                                    what must become of each clip

The six people are drawn from two public-domain photographs inside scikit-image and matplotlib
(see `portraits`), so nothing is downloaded. The same seed gives the same bytes on the same
library versions: one encoder thread, no clock. Needs the extra `sample`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from pipelines.sample import plan
from pipelines.sample.keypoints import Face
from pipelines.sample.plan import Clip, Video
from pipelines.sample.portraits import (
    HEIGHT,
    PEOPLE,
    WIDTH,
    Look,
    Pixels,
    layout,
    photograph,
    still,
)
from pipelines.sample.puppet import AUDIO_RATE, Performance, Puppet, face_box
from pipelines.statuses import Status

VERSION = 1
_STAGING = ".building"


class SampleError(Exception):
    """The sample corpus cannot be built or found; the message says what to do."""


@dataclass(frozen=True)
class Corpus:
    """What `build` made, and what a correct pipeline makes of it."""

    root: Path
    seed: int
    videos: tuple[Video, ...]

    @property
    def clips(self) -> tuple[Clip, ...]:
        """Every annotated clip, sorted by person, video and utterance."""
        return tuple(clip for video in self.videos for clip in video.clips)

    @property
    def faults(self) -> dict[str, str]:
        """Faults by video id, for `server.SampleServer`."""
        return {video.video: video.fault for video in self.videos if video.fault}

    @property
    def video_folder(self) -> Path:
        """What the server serves."""
        return self.root / "videos"

    @property
    def metadata(self) -> Path:
        """What the catalog reads."""
        return self.root / "metadata"


def build(root: Path, seed: int = 0, report: Callable[[str], None] | None = None) -> Corpus:
    """Build the corpus in `root`, or return it as it is if it is already there.

    `report` is told the name of each video as it is done. Raises SampleError if a package with
    the photographs is missing or if `root` holds videos or metadata of another origin.
    """
    try:
        corpus = load(root)
    except SampleError:
        corpus = None
    if corpus is not None and corpus.seed == seed:
        return corpus
    videos = plan.videos(seed)
    staging = root / _STAGING
    _claim(root, staging)
    _write_metadata(staging / "metadata", videos, seed)
    folder = staging / "videos"
    folder.mkdir()

    def make(video: Video) -> str:
        _write_video(folder / f"{video.video}.mp4", video, seed)
        return video.video

    # NumPy and the encoder let go of the interpreter lock, so two threads fill two cores.
    with ThreadPoolExecutor(max_workers=min(2, os.cpu_count() or 1)) as pool:
        for name in pool.map(make, videos):
            if report:
                report(name)
    for part in ("videos", "metadata"):
        shutil.rmtree(root / part, ignore_errors=True)
        (staging / part).rename(root / part)
    listing = {"version": VERSION, "seed": seed, "videos": [asdict(v) for v in videos]}
    draft = staging / "expected.json"
    draft.write_text(json.dumps(listing, indent=1) + "\n")
    draft.rename(root / "expected.json")
    staging.rmdir()
    return Corpus(root, seed, videos)


def load(root: Path) -> Corpus:
    """The corpus that `build` left in `root`; SampleError if there is none of this version."""
    try:
        listing = json.loads((root / "expected.json").read_text())
    except (OSError, ValueError):
        listing = {}
    if not isinstance(listing, dict) or listing.get("version") != VERSION:
        raise SampleError(
            f"no sample corpus in {root}: run `python -m pipelines.sample build {root}`"
        )
    return Corpus(root, listing["seed"], tuple(_video(v) for v in listing["videos"]))


def _video(row: dict[str, Any]) -> Video:
    clips = tuple(Clip(**{**clip, "status": Status(clip["status"])}) for clip in row["clips"])
    return Video(**{**row, "clips": clips})


def _claim(root: Path, staging: Path) -> None:
    """Make an empty staging folder, and touch nothing that an earlier build did not make."""
    for package in sorted({look.photograph for look in PEOPLE}):
        try:
            photograph(package)
        except ImportError as error:
            raise SampleError(
                f"the sample corpus needs {error.name}: pip install 'likeness[sample]'"
            ) from error
    ours = staging.exists() or (root / "expected.json").exists()
    if not ours and any((root / part).exists() for part in ("videos", "metadata")):
        raise SampleError(f"{root} holds videos or metadata of another origin: name a new folder")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    (root / "expected.json").unlink(missing_ok=True)


def _write_metadata(folder: Path, videos: tuple[Video, ...], seed: int) -> None:
    for video in videos:
        score = _rng(seed, video, "scores")
        performance = _performance(video, seed)
        face = _face(video)
        for clip in video.clips:
            confidence = 17 + 4 * score.random()
            lines = [
                f"Identity  : \t{clip.person}",
                f"Reference : \t{clip.video}",
                "Offset    : \t0",
                f"FV Conf   : \t{confidence:.3f}\t(1)",
                f"ASD Conf  : \t{confidence / 3:.3f}",
                "",
                "FRAME \tX \tY \tW \tH ",
            ]
            for k in range(clip.first_frame, clip.first_frame + clip.frames):
                x, y, w, h = face_box(face, performance.pose(k / 25))
                lines.append(f"{k:06d} \t{x:.3f} \t{y:.3f} \t{w:.3f} \t{h:.3f} ")
            path = folder / "txt" / clip.person / clip.video / f"{clip.utterance}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines) + "\n")
    # The byte order mark and the blanks before the commas are VoxCeleb2's own.
    rows = ["VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set "]
    rows += [f"{p.person} ,n0{p.person[2:]} ,{p.gender} ,{p.split} " for p in PEOPLE]
    (folder / "vox2_meta.csv").write_text("\n".join(rows) + "\n", encoding="utf-8-sig")


def _write_video(path: Path, video: Video, seed: int) -> None:
    if video.material == plan.ABSENT:
        return
    if video.material == plan.HTML:
        path.write_text(
            "<!doctype html><html><head><title>Before you continue</title></head><body>"
            "<p>Please accept our terms to watch this video.</p></body></html>\n"
        )
        return
    performance = _performance(video, seed)
    seconds = video.frames25 / 25
    voice = performance.voice(seconds, _look(video).pitch_hz)
    _encode(path, _frames(video, performance), video.fps, voice)
    if video.material == plan.CUT_SHORT:
        # The index stands at the front and promises more than there is.
        os.truncate(path, path.stat().st_size * 55 // 100)


def _frames(video: Video, performance: Performance) -> Iterator[Pixels]:
    count = video.frames25 * video.fps // 25
    table = _table() if video.material in (plan.FACELESS, plan.SCENE_CUT) else None
    face = _face(video)
    puppet = Puppet(*still(_look(video), face), face)
    middle = video.clips[-1].first_frame + video.clips[-1].frames // 2
    for n in range(count):
        t = n / video.fps
        faceless = video.material == plan.FACELESS or t * 25 >= middle
        if table is not None and faceless:
            # A slow pan over a table with a cup of coffee.
            left = 8 + n * (table.shape[1] - WIDTH - 16) // count
            yield np.ascontiguousarray(table[:HEIGHT, left : left + WIDTH])
        else:
            yield puppet.draw(performance.pose(t))


def _encode(path: Path, frames: Iterator[Pixels], fps: int, voice: Any) -> None:
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    with av.open(str(path), "w", format="mp4", container_options=options) as out:
        picture = out.add_stream("libx264", rate=fps)
        picture.width, picture.height, picture.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        picture.options = {"preset": "veryfast", "crf": "21", "threads": "1", "g": str(2 * fps)}
        picture.codec_context.thread_count = 1
        sound = out.add_stream("aac", rate=AUDIO_RATE, layout="mono")
        sound.bit_rate = 64_000
        for stream in (picture, sound):
            stream.codec_context.flags |= av.codec.context.Flags.bitexact
        for pixels in frames:
            out.mux(picture.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(picture.encode(None))
        for start in range(0, len(voice), 1024):
            block = av.AudioFrame.from_ndarray(
                voice[None, start : start + 1024], format="fltp", layout="mono"
            )
            block.sample_rate, block.pts = AUDIO_RATE, start
            block.time_base = Fraction(1, AUDIO_RATE)
            out.mux(sound.encode(block))
        out.mux(sound.encode(None))


def _face(video: Video) -> Face:
    # Each video of a person is framed a little differently.
    turn = sum(video.video.encode())
    at = (0.42 + turn % 7 * 0.025, 0.54 + turn % 3 * 0.01)
    return layout(_look(video), 156 + turn % 5 * 6, at)


def _performance(video: Video, seed: int) -> Performance:
    speech = [(c.first_frame / 25, (c.first_frame + c.frames) / 25) for c in video.clips]
    return Performance.seeded(_rng(seed, video, "motion"), speech, 165)


def _look(video: Video) -> Look:
    return next(look for look in PEOPLE if look.person == video.person)


def _rng(seed: int, video: Video, use: str) -> np.random.Generator:
    return np.random.default_rng([seed, *video.video.encode(), *use.encode()])


def _table() -> Pixels:
    picture = photograph("coffee")
    return np.asarray(picture.resize((720, 480), Image.Resampling.BICUBIC))[60:420]
