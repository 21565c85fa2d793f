"""A tree of ready crops: what most teams hold of VoxCeleb instead of the site's videos.

Layout: `[dev/|test/][mp4/]<person>/<video>/<utterance>.mp4`, each file one clip to be used
whole (VoxCeleb2's are 224x224 at 25 frames per second). The publisher, licence and terms are
those of the dataset that the crops were cut from.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipelines.sources.base import Annotation, BadRow
from pipelines.sources.tree import walk

SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"})


def mp4(path: Path) -> Iterator[Annotation | BadRow]:
    """List a tree of crops; no file is opened, the crop stage finds the damaged ones."""
    for leaf in walk(path, "mp4", SUFFIXES):
        if isinstance(leaf, BadRow):
            yield leaf
            continue
        yield Annotation(
            leaf.person,
            leaf.video,
            leaf.utterance,
            first_frame=0,
            crop_ready=True,
            split=leaf.split,
            media=str(Path(leaf.path).absolute()),
        )
