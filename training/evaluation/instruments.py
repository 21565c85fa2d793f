"""What is measured, and with which networks: built once, named by the weights that were loaded.

Every picture, real or generated, goes through the same steps: landmarks and identity are looked
for at 256 pixels or more, since detectors know no smaller faces.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from pipelines import detectors
from pipelines.errors import StopStage
from pipelines.params.training import Evaluate
from training import perceptual
from training.evaluation.frames import Shown
from training.metrics import distribution, lpips, motion
from training.metrics.identity import Identity
from training.metrics.motion import Points
from training.metrics.similarity import psnr, ssim
from training.pixels import Pixels

DETECTED_AT = 256
"""Pixels to which smaller pictures are enlarged before a face is looked for."""

Scores = dict[str, npt.NDArray[np.float64]]
FRECHET_DIGITS, SSIM_DIGITS, CSIM_DIGITS = 1, 3, 3
"""After the point, of the three that the paper's table holds."""
LANDMARK_ERROR, FOUND, JITTER = "landmark error", "found", "jitter"


@dataclass(frozen=True, slots=True)
class Metric:
    """A column of the tables."""

    name: str
    better: str
    """higher, lower, or nearer to 1."""
    digits: int
    unit: str = ""
    scale: float = 1.0
    """Shown = measured * scale."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the instruments see in n pictures."""

    pictures: Pixels
    points: Points
    """(n, 68, 2); NaN where no face was found."""
    reference: Points
    """(n, 68, 2): as found, and where no face was found the landmarks that were asked for."""
    embeddings: dict[str, npt.NDArray[np.float32]]
    features: dict[str, npt.NDArray[np.floating[Any]]]


class Instruments:
    """All metrics that params name weights for."""

    def __init__(self, settings: Evaluate, device: torch.device) -> None:
        """Raises StopStage where named weights or the detector cannot be had."""
        where = "cpu" if settings.detector == "mediapipe" else str(device)
        with _named("detector"):
            self.detector = detectors.load(settings.detector, where)
        with _named("identity"):
            self.identities = {
                net.metric: net
                for net in (
                    Identity(name, _weights(given), torch.get_num_threads())
                    for name, given in settings.identity.items()
                )
            }
        with _named("features"):
            self.networks: dict[str, nn.Module] = {
                name: distribution.extractor(name, _weights(given) if given else None).to(device)
                for name, given in settings.features.items()
            }
        with _named("lpips"):
            self.distances = [
                lpips.load(
                    name,
                    _weights(given) if given else None,
                    _weights(given.heads) if given and given.heads else None,
                ).to(device)
                for name, given in settings.lpips.items()
            ]
        self.settings = settings

    # --- names -------------------------------------------------------------------------------

    @property
    def framewise(self) -> list[Metric]:
        """Metrics of a frame or a person, in the order of tables."""
        return [
            Metric("SSIM", "higher", SSIM_DIGITS),
            Metric("PSNR", "higher", 2, "dB"),
            *(Metric(distance.name, "lower", 3) for distance in self.distances),
            *(Metric(name, "higher", CSIM_DIGITS) for name in self.identities),
            Metric(LANDMARK_ERROR, "lower", 2, "% of interocular"),
            Metric(FOUND, "higher", 1, "% of frames", 100),
            Metric(JITTER, "nearer to 1", 2, "output / driver"),
        ]

    @property
    def distributional(self) -> list[Metric]:
        """Metrics of all people's frames together."""
        found = []
        for network in self.networks:
            frechet, kernel = distribution.names(network)  # type: ignore[arg-type]
            inception = network == "inception"
            found.append(Metric(frechet, "lower", FRECHET_DIGITS))
            # KID is told times 1000 by custom; other networks' features are larger.
            unit, scale = ("x 1000", 1000) if inception else ("", 1)
            found.append(Metric(kernel, "lower", 2, unit, scale))
        return found

    @property
    def absent(self) -> list[str]:
        """A line for each family that lacks the weights it is named by."""
        lines = []
        named = {distance.name for distance in self.distances}
        if not any(name.startswith("LPIPS") for name in named):
            lines.append("LPIPS: `evaluate.lpips` names no published weights and heads")
        if "inception" not in self.networks:
            lines.append("FID, KID: `evaluate.features` does not name inception")
        if "CSIM" not in self.identities:
            lines.append("CSIM: `evaluate.identity.arcface` names no published weights")
        return lines

    # --- looking -----------------------------------------------------------------------------

    def see(self, pictures: Pixels, asked: Points) -> Seen:
        """Look at (n, S, S, 3) that were to show landmarks (n, 68, 2), in their pixels.

        Where the detector finds no face, identity is measured where the face should be: a frame
        is never left out because it is bad.
        """
        size = pictures.shape[1]
        scale = max(DETECTED_AT / size, 1)
        large = np.stack([_resized(picture, round(size * scale)) for picture in pictures])
        # One by one: stored frames are too far apart to follow a face from one to the next.
        points = np.concatenate([self.detector(frame[None], None).points for frame in large])
        points = points.astype(np.float64)
        asked = (asked + 0.5) * scale - 0.5
        reference = np.where(motion.found(points)[:, None, None], points, asked)
        return Seen(
            pictures,
            points,
            reference,
            {name: net.embed(large, reference) for name, net in self.identities.items()},
            {name: distribution.features(net, pictures) for name, net in self.networks.items()},
        )

    # --- scores ------------------------------------------------------------------------------

    def reenacted_self(self, seen: Seen, real: Seen, driver: Shown) -> Scores:
        """Pictures against the real frames that they should equal: (n,) each, jitter (1,)."""
        jitter = motion.jitter(seen.points, real.reference, driver.clips, driver.numbers)
        scores = {
            "SSIM": ssim(seen.pictures, real.pictures),
            "PSNR": psnr(seen.pictures, real.pictures),
            LANDMARK_ERROR: motion.landmark_error(seen.points, real.reference),
            FOUND: motion.found(seen.points).astype(np.float64),
            JITTER: np.array([jitter]),
        }
        for distance in self.distances:
            scores[distance.name] = distance.measure(seen.pictures, real.pictures)
        for name, embedding in seen.embeddings.items():
            scores[name] = (embedding * real.embeddings[name]).sum(1).astype(np.float64)
        return scores

    def reenacted_cross(self, seen: Seen, real: Seen, driver: Seen) -> Scores:
        """Pictures of one person driven by another: identity of the one, expression of the other.

        CSIM is the mean over all of the person's real frames; the landmark error is to the
        driver's landmarks, after a similarity transform.
        """
        scores = {
            LANDMARK_ERROR: motion.landmark_error(seen.points, driver.reference, align=True),
            FOUND: motion.found(seen.points).astype(np.float64),
        }
        for name, embedding in seen.embeddings.items():
            scores[name] = (embedding @ real.embeddings[name].mean(0)).astype(np.float64)
        return scores

    def real(self, others: Seen, real: Seen) -> Scores:
        """Real frames of a person against their other real frames: what is at most to be had."""
        scores = {FOUND: motion.found(others.points).astype(np.float64)}
        for name, embedding in others.embeddings.items():
            scores[name] = (embedding @ real.embeddings[name].mean(0)).astype(np.float64)
        return scores


@contextmanager
def _named(key: str) -> Iterator[None]:
    """What cannot be had stops the stage, by the key of params.yaml that asks for it."""
    try:
        yield
    except perceptual.BackboneUnavailable as error:
        raise StopStage(f"evaluate.{key}.{error}") from None
    except detectors.DetectorUnavailable as error:
        raise StopStage(f"evaluate.{key}: {error}") from None


def _weights(given: Any) -> perceptual.Weights:
    return perceptual.Weights(given.url, given.sha256)


def _resized(picture: Pixels, side: int) -> Pixels:
    if side == len(picture):
        return picture
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC))
