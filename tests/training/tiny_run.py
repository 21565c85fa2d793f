"""A tiny run and ways to end it early."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tiny_setting import SETTING
from tiny_shards import Shards

from pipelines import storage
from pipelines.params import Params
from training.events import Event, Stepped
from training.run import Run, plan
from training.trainer import Worker

EPOCHS = 4
STEPS = 10  # of 5 videos, 2 a step


def params_of(shards: Shards, **changes: Any) -> Params:
    return Params.model_validate(
        {
            "name": "tiny",
            "paths": {
                "data": str(shards.folder.parent),
                "work": str(shards.folder.parent / "work"),
            },
            "catalog": {"metadata": ".", "sources": ({"name": "a", "reader": "mp4"},)},
            "card": {"title": "t", "licence": "other", "description": "d"},
            "setting": "tiny",
            "settings": {"tiny": SETTING | {"epochs": EPOCHS} | changes},
            "ray": {"checkpoint_every": 3, "grid_every": 5, "keep": 2},
        },
        strict=False,
    )


def run_of(shards: Shards, **changes: Any) -> Run:
    params = params_of(shards, **changes)
    run = plan(params, params.settings[params.setting], storage.sha256(shards.index))
    return replace(run, cache=str(shards.folder.parent / "cache"))


def trained_events(run: Run, **options: Any) -> list[Event]:
    events: list[Event] = []
    Worker(run, report=events.append, **options).train()
    return events


def losses(events: list[Event]) -> dict[int, dict[str, float]]:
    return {event.step: event.losses for event in events if isinstance(event, Stepped)}


class Killed(BaseException):
    """Ends a worker at once."""


def die_at(step: int) -> Callable[[Event], None]:
    def report(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == step:
            raise Killed

    return report


def damage_a_picture(shards: Shards) -> str:
    """The member whose first bytes are overwritten."""
    episodes = shards.open()
    for frame in episodes.index.frames_of(3):
        start = int(episodes.index.offsets[frame])
        tar = episodes.index.shards[int(episodes.index.shard_of[episodes.index.clip_of(frame)])]
        path = shards.folder / "train" / f"{tar}.tar"
        data = bytearray(path.read_bytes())
        data[start : start + 4] = b"\0" * 4
        path.write_bytes(data)
    return path.name
