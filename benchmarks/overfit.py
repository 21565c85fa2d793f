"""Can it learn at all? A few people learned by heart, driven by everybody's landmarks.

    python -m benchmarks.overfit --data data --squeezenet NPZ --mobilefacenet ONNX

One video each of `--people` training people of a rebuilt dataset is meta-learned until it is known
by heart. Then every person's e-hat (the mean of E over K frames) is driven by everybody's
landmarks, feed-forward. Asked for is a landmark error below 5 % of the interocular distance
where people are driven by their own frames, and that swapping e-hat swaps the person: of all the
learned people, a face recognition network must find the generated face nearest to the one whose
e-hat was given. The same measures of real frames at the same size stand beside it. `--picture`
draws everybody (rows) driven by everybody (columns). Exits with 1 where the target is missed.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pipelines.errors import UserError
from pipelines.params.training import Evaluate
from training import setting
from training.episodes import Episodes, collate
from training.evaluation.frames import Shown, read, to_pixels
from training.evaluation.instruments import Instruments, Seen
from training.meta import MetaConfig, MetaLearner
from training.metrics import motion
from training.networks import NetworkConfig
from training.rasterize import DRAWN
from training.trained import device_named

SHOWN = 8
"""Frames of each person that are measured."""


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
    """Evenly spaced frames that show a face."""
    frames = [
        f for f in episodes.index.frames_of(video) if np.isfinite(episodes.points(f)[:DRAWN]).all()
    ]
    return [frames[round(at)] for at in np.linspace(0, len(frames) - 1, count)]


def learn(learner: MetaLearner, episodes: Episodes, videos: list[int], steps: int) -> None:
    """Every video once a step, until Ctrl-C at the latest."""
    started = time.perf_counter()
    with suppress(KeyboardInterrupt):
        for step in range(steps):
            losses = learner.step(collate([episodes[step, video] for video in videos]))
            if step % 100 == 0 or step == steps - 1:
                words = "  ".join(f"{name} {value:.2f}" for name, value in losses.items())
                print(f"{step:5d} {time.perf_counter() - started:6.0f} s  {words}", flush=True)
    print(f"learned for {learner.step_count} steps")


def driven(learner: MetaLearner, sources: list[Shown], drivers: list[Shown]) -> list[list[Shown]]:
    """[person][driver]: the person's e-hat under the driver's landmarks."""

    def generated(e_hat: torch.Tensor, driver: Shown) -> Shown:
        _, drawn = driver.tensors(learner.device)
        pictures = to_pixels(learner.ema_generator(drawn, e_hat.expand(len(drawn), -1)))
        return Shown(pictures, driver.drawings, driver.points, driver.clips)

    with torch.no_grad():
        known = [
            learner.ema_embedder.embed(*(t[None] for t in source.tensors(learner.device)))
            for source in sources
        ]
        return [[generated(e_hat, driver) for driver in drivers] for e_hat in known]


def table(rows: list[list[float]], names: list[str], what: str) -> str:
    """Rows by e-hat's person, columns by driver's."""
    lines = [f"{what}: rows are e-hat's, columns the driver's"]
    lines.append(" " * 12 + "".join(f"{name:>12}" for name in names))
    for name, row in zip(names, rows, strict=True):
        lines.append(f"{name:>12}" + "".join(f"{value:12.2f}" for value in row))
    return "\n".join(lines)


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--people", type=int, default=4)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--channels", type=int, nargs=2, default=(32, 256), metavar=("MIN", "MAX"))
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--lr", type=float, default=2e-4)
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
    instruments = Instruments(
        Evaluate.model_validate(
            {"detector": "mediapipe", "identity": {"mobilefacenet": {"url": args.mobilefacenet}}}
        ),
        torch.device(args.device),
    )

    torch.manual_seed(0)
    try:
        episodes = Episodes(index, args.data / "shards", "train", args.k, args.size)
    except ValueError as error:
        parser.error(f"--data {args.data}: {error}")
    videos = chosen(episodes, args.people)
    names = [episodes.videos[video].person for video in videos]
    content = (
        {"squeezenet": {"weight": 0.5, "url": args.squeezenet}}
        if args.squeezenet
        else {"random": {"weight": 0.3}}
    )
    low, high = args.channels
    learner = MetaLearner(
        len(episodes),
        setting.content_loss(content),
        MetaConfig(lr_generator=args.lr, lr_discriminator=args.lr),
        NetworkConfig(args.size, low, high, generator_levels=3),
        device=args.device,
    )
    learn(learner, episodes, videos, args.steps)

    def shown(video: int, count: int) -> Shown:
        return read(episodes, episodes.videos[video], spread(episodes, video, count))

    def see(what: Shown) -> Seen:
        return instruments.see(what.pictures, what.points)

    drivers = [shown(video, SHOWN) for video in videos]
    real = [see(driver) for driver in drivers]
    made = driven(learner, [shown(video, args.k) for video in videos], drivers)
    seen = [[see(one) for one in row] for row in made]

    def apart(one: Seen, person: int, driver: int) -> float:
        points, reference = one.points, real[driver].reference
        every = motion.landmark_error(points, reference, align=person != driver)
        return float(every[np.isfinite(every)].mean()) if np.isfinite(every).any() else np.nan

    errors = [[apart(one, p, d) for d, one in enumerate(row)] for p, row in enumerate(seen)]
    found = [[100 * float(motion.found(one.points).mean()) for one in row] for row in seen]
    (metric,) = instruments.identities
    known = np.stack([one.embeddings[metric].mean(0) for one in real])

    def nearest(one: Seen, person: int) -> float:
        return 100 * float(((one.embeddings[metric] @ known.T).argmax(1) == person).mean())

    right = [[nearest(one, p) for one in row] for p, row in enumerate(seen)]
    of_real = np.mean([nearest(one, p) for p, one in enumerate(real)])
    print(table(errors, names, "landmark error, % of interocular (other drivers: after alignment)"))
    print(table(found, names, "face found, % of frames"))
    print(table(right, names, f"nearest by {metric} is e-hat's person, % of frames"))
    own = [errors[p][p] for p in range(len(videos))]
    swapped = [right[p][d] for p in range(len(videos)) for d in range(len(videos)) if p != d]
    print(
        f"own landmarks: error {np.mean(own):.2f} % (target: below 5); "
        f"swapped e-hat: {np.mean(swapped):.1f} % show e-hat's person "
        f"(by chance {100 / len(videos):.0f}, of real frames {of_real:.1f})"
    )
    if args.picture:
        rows = [np.concatenate([d.pictures[0] for d in drivers], axis=1)]
        rows += [np.concatenate([one.pictures[0] for one in row], axis=1) for row in made]
        Image.fromarray(np.concatenate(rows)).save(args.picture)
    return 0 if np.mean(own) < 5 else 1


if __name__ == "__main__":
    sys.exit(main())
