"""Frames as the networks see them, with their landmarks in the same pixels."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from pipelines.errors import UserError
from training.episodes import Episodes
from training.index import EmptySplit, VideoKey
from training.pixels import Pixels, to_unit


@dataclass(frozen=True, slots=True)
class Shown:
    """n frames of one video."""

    pictures: Pixels
    """(n, S, S, 3)"""
    drawings: Pixels
    """(n, S, S, 3): their landmark pictures."""
    points: npt.NDArray[np.float64]
    """(n, 68, 2) pixels of the pictures."""
    clips: npt.NDArray[np.int64]
    """(n,): the clip that each is of."""
    numbers: npt.NDArray[np.int64]
    """(n,): its place in the clip."""

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Pictures and landmark pictures as the networks take them."""
        return to_unit(self.pictures, device), to_unit(self.drawings, device)


def open_split(index: str, shards: str, split: str, size: int) -> Episodes:
    """A split's frames at S pixels.

    Raises EmptySplit for a split without anybody, UserError where index, tars or frames are
    missing.
    """
    if not Path(index).is_file():
        raise UserError(f"{index}: no such file; run the shard stage first")
    try:
        return Episodes(index, shards, split, k=1, size=size, few_frames="drop")
    except EmptySplit:
        raise
    except ValueError as error:
        raise UserError(f"evaluate: {error}") from None


def read(episodes: Episodes, video: VideoKey, frames: Sequence[int]) -> Shown:
    """Frames of a video; decoded at S. Raises UserError for a damaged tar."""
    place = episodes.videos.index(video)
    try:
        episode = episodes.read(place, frames)
        points = np.stack([_points(episodes, frame) for frame in frames])
    except ValueError as error:
        raise UserError(f"evaluate: {error}") from None
    pictures = np.concatenate((episode.source, episode.target[None])).transpose(0, 2, 3, 1)
    drawings = np.concatenate((episode.source_landmarks, episode.target_landmarks[None]))
    clips = np.array([episodes.index.clip_of(frame) for frame in frames])
    return Shown(
        np.ascontiguousarray(pictures),
        np.ascontiguousarray(drawings.transpose(0, 2, 3, 1)),
        points,
        clips,
        episodes.index.numbers[np.array(frames)].astype(np.int64),
    )


def _points(episodes: Episodes, frame: int) -> npt.NDArray[np.float64]:
    with Image.open(io.BytesIO(episodes.jpeg(frame)), formats=["JPEG"]) as picture:
        scale = episodes.size / picture.width
    return (episodes.points(frame).astype(np.float64) + 0.5) * scale - 0.5
