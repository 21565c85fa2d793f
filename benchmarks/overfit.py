"""Can it learn at all? A few people learned by heart, driven by everybody's landmarks.

    python -m benchmarks.overfit --data data --squeezenet NPZ --mobilefacenet ONNX

`--frames` frames of a video of each of `--people` training people of a rebuilt dataset are
meta-learned until they are known by heart. Every person's e-hat (the mean of E over K frames) is
driven by everybody's landmarks, feed-forward, with the averaged weights. Asked for is a landmark
error below 5 % of the interocular distance where people are driven by their own frames, and that
swapping e-hat swaps the person: of all the learned people, a face recognition network must find
the generated face nearest to the one whose e-hat was given. The same measures of real frames at
the same size stand beside it. Every `--every` steps it is measured, and it ends where both targets
are met, at `--steps`, or at Ctrl-C; with 1 where one is missed. `--picture` draws everybody
(rows) driven by everybody (columns).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from pipelines.errors import StopStage, UserError
from pipelines.params.training import Evaluate
from training import setting
from training.episodes import Episodes, collate
from training.evaluation.frames import Shown, read
from training.evaluation.instruments import Instruments, Seen
from training.meta import EpisodeBatch, MetaConfig, MetaLearner
from training.metrics import motion
from training.networks import NetworkConfig
from training.pixels import to_uint8
from training.rasterize import DRAWN
from training.trained import device_named

SHOWN = 8
"""Frames of each person that are measured, of those that are learned."""

ERROR = 5.0
"""% of the interocular distance that people driven by their own frames must stay below."""

SWAPPED = 95.0
"""% of frames of people driven by others that must show the person whose e-hat was given."""


@dataclass(frozen=True)
class Result:
    """[person of e-hat][driver] of each measure, in %, and the first frame that each shows."""

    errors: npt.NDArray[np.float64]
    found: npt.NDArray[np.float64]
    right: npt.NDArray[np.float64]
    pictures: npt.NDArray[np.uint8]

    @property
    def own(self) -> float:
        """Mean landmark error of people driven by their own frames; inf where a face lacks."""
        own = np.diag(self.errors).mean() if (np.diag(self.found) == 100).all() else np.inf
        return float(own)

    @property
    def swapped(self) -> float:
        """Mean share of frames, driven by others, that show e-hat's person."""
        return float(self.right[~np.eye(len(self.right), dtype=bool)].mean())

    @property
    def met(self) -> bool:
        """Both targets."""
        return self.own < ERROR and self.swapped >= SWAPPED

    def __str__(self) -> str:
        """One line."""
        return (
            f"own landmarks: error {self.own:.2f} % (target: below {ERROR:.0f}); swapped e-hat: "
            f"{self.swapped:.1f} % show e-hat's person (target: {SWAPPED:.0f}, "
            f"by chance {100 / len(self.right):.0f})"
        )


def chosen(episodes: Episodes, people: int) -> list[int]:
    """The longest video of each of the people with the longest ones."""
    longest: dict[str, int] = {}
    for video, key in enumerate(episodes.videos):
        best = longest.get(key.person)
        if best is None or len(episodes.index.frames_of(video)) > len(
            episodes.index.frames_of(best)
        ):
            longest[key.person] = video
    ordered = sorted(longest.values(), key=lambda v: -len(episodes.index.frames_of(v)))
    return sorted(ordered[:people])


def spread(episodes: Episodes, video: int, count: int) -> list[int]:
    """Evenly spaced frames that show a face; fewer where there are fewer."""
    frames = [
        f for f in episodes.index.frames_of(video) if np.isfinite(episodes.points(f)[:DRAWN]).all()
    ]
    places = np.linspace(0, len(frames) - 1, min(count, len(frames)))
    return [frames[round(at)] for at in places]


def batches(
    episodes: Episodes, learned: dict[int, list[int]], steps: int
) -> Iterator[EpisodeBatch]:
    """Every video once a step: K + 1 different ones of its learned frames, at random."""
    rng = np.random.default_rng(0)
    for _ in range(steps):
        yield collate(
            [
                episodes.read(video, rng.choice(frames, episodes.k + 1, replace=False).tolist())
                for video, frames in learned.items()
            ]
        )


def driven(learner: MetaLearner, sources: list[Shown], drivers: list[Shown]) -> list[list[Shown]]:
    """[person][driver]: the person's e-hat under the driver's landmarks."""

    def generated(e_hat: torch.Tensor, driver: Shown) -> Shown:
        _, drawn = driver.tensors(learner.device)
        pictures = to_uint8(learner.ema_generator(drawn, e_hat.expand(len(drawn), -1)))
        return Shown(pictures, driver.drawings, driver.points, driver.clips, driver.numbers)

    with torch.no_grad():
        known = [
            learner.ema_embedder.embed(*(t[None] for t in source.tensors(learner.device)))
            for source in sources
        ]
        return [[generated(e_hat, driver) for driver in drivers] for e_hat in known]


class Measure:
    """Looks at everybody driven by everybody."""

    def __init__(
        self, episodes: Episodes, learned: dict[int, list[int]], instruments: Instruments
    ) -> None:
        self.instruments = instruments
        (self.metric,) = instruments.identities

        def shown(video: int, count: int) -> Shown:
            frames = learned[video]
            picked = np.linspace(0, len(frames) - 1, count).round().astype(int)
            return read(episodes, episodes.videos[video], [frames[at] for at in picked])

        self.sources = [shown(video, episodes.k) for video in learned]
        self.drivers = [shown(video, SHOWN) for video in learned]
        self.names = [episodes.videos[video].person for video in learned]
        self.real = [instruments.see(one.pictures, one.points) for one in self.drivers]
        self.known = np.stack([one.embeddings[self.metric].mean(0) for one in self.real])

    def nearest(self, one: Seen, person: int) -> float:
        """% of frames whose face is nearest to the person's, of all that are known."""
        closest = (one.embeddings[self.metric] @ self.known.T).argmax(1)
        return 100 * float((closest == person).mean())

    def error(self, one: Seen, driver: int, *, align: bool) -> float:
        """Mean landmark error over the frames with a face; NaN without any."""
        every = motion.landmark_error(one.points, self.real[driver].reference, align=align)
        return float(every[np.isfinite(every)].mean()) if np.isfinite(every).any() else np.nan

    def __call__(self, learner: MetaLearner) -> Result:
        """What the averaged networks know by now."""
        made = driven(learner, self.sources, self.drivers)
        seen = [[self.instruments.see(one.pictures, one.points) for one in row] for row in made]
        people = range(len(seen))
        return Result(
            np.array([[self.error(seen[p][d], d, align=p != d) for d in people] for p in people]),
            np.array([[100 * motion.found(one.points).mean() for one in row] for row in seen]),
            np.array([[self.nearest(one, p) for one in row] for p, row in enumerate(seen)]),
            np.stack([[one.pictures[0] for one in row] for row in made]),
        )

    def tables(self, result: Result) -> str:
        """Everything that is measured, by person."""
        return "\n".join(
            [
                *self._table("landmark error, %; other drivers: after alignment", result.errors),
                *self._table("face found, % of frames", result.found),
                *self._table(f"nearest by {self.metric} is e-hat's person, %", result.right),
                "of real frames, nearest is their person: "
                f"{np.mean([self.nearest(one, p) for p, one in enumerate(self.real)]):.1f} %",
            ]
        )

    def _table(self, what: str, values: npt.NDArray[np.float64]) -> list[str]:
        head = " " * 12 + "".join(f"{name:>12}" for name in self.names)
        rows = (
            f"{name:>12}" + "".join(f"{value:12.2f}" for value in row)
            for name, row in zip(self.names, values, strict=True)
        )
        return [f"{what} (rows: e-hat's person, columns: driver)", head, *rows]

    def picture(self, result: Result) -> Image.Image:
        """Drivers on top, then a row for everybody's e-hat."""
        drivers = np.concatenate([one.pictures[0] for one in self.drivers], axis=1)
        rows = [np.concatenate(list(row), axis=1) for row in result.pictures]
        return Image.fromarray(np.concatenate([drivers, *rows]))


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--people", type=int, default=4)
    parser.add_argument("--frames", type=int, default=32, help="learned of each person")
    parser.add_argument("--steps", type=int, default=8000, help="at most")
    parser.add_argument("--every", type=int, default=500, help="steps between measurements")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--channels", type=int, nargs=2, default=(16, 256), metavar=("MIN", "MAX"))
    parser.add_argument("--k", type=int, default=2)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--squeezenet", metavar="NPZ", help="content loss; without: a random VGG19")
    parser.add_argument("--mobilefacenet", metavar="ONNX", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()

    try:
        device_named(args.device)
    except UserError as error:
        parser.error(f"--device: {error}")
    index = args.data / "index.parquet"
    if not index.is_file():
        parser.error(f"--data {args.data}: no index.parquet there; name a rebuilt dataset")
    content = (
        {"squeezenet": {"weight": 0.5, "url": args.squeezenet}}
        if args.squeezenet
        else {"random": {"weight": 0.3}}
    )
    identity = {"mobilefacenet": {"url": args.mobilefacenet}}
    try:
        instruments = Instruments(
            Evaluate.model_validate({"detector": "mediapipe", "identity": identity}),
            torch.device(args.device),
        )
        content_loss = setting.content_loss(content)
    except (StopStage, UserError) as error:
        parser.error(str(error))

    torch.manual_seed(0)
    try:
        episodes = Episodes(index, args.data / "shards", "train", args.k, args.size)
    except ValueError as error:
        parser.error(f"--data {args.data}: {error}")
    learned = {
        video: spread(episodes, video, args.frames) for video in chosen(episodes, args.people)
    }
    if (least := min(map(len, learned.values()))) <= args.k:
        parser.error(f"--k {args.k}: there are {least} frames with a face; K and a target are more")
    measure = Measure(episodes, learned, instruments)
    low, high = args.channels
    learner = MetaLearner(
        len(episodes),
        content_loss,
        MetaConfig(lr_generator=args.lr, lr_discriminator=args.lr),
        NetworkConfig(args.size, low, high, generator_levels=3),
        device=args.device,
    )
    started = time.perf_counter()
    with suppress(KeyboardInterrupt):
        for batch in batches(episodes, learned, args.steps):
            losses = learner.step(batch)
            if learner.step_count % args.every == 0:
                words = "  ".join(f"{name} {value:.2f}" for name, value in losses.items())
                seconds = time.perf_counter() - started
                print(f"step {learner.step_count}, {seconds:.0f} s: {words}")
                result = measure(learner)
                print(f"    {result}", flush=True)
                if args.picture:
                    measure.picture(result).save(args.picture)
                if result.met:
                    break

    result = measure(learner)
    print(measure.tables(result))
    print(f"after {learner.step_count} steps: {result}")
    if args.picture:
        measure.picture(result).save(args.picture)
    return 0 if result.met else 1


if __name__ == "__main__":
    sys.exit(main())
