"""What `training.animate` and `training.live` share: portraits ready to be moved.

Everything but the driver is checked, loaded and learned here, and what is made of it is published
here: labelled, signed, and under its name only when it is whole.
"""

from __future__ import annotations

import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipelines import outputs, progress
from pipelines.errors import UserError
from pipelines.params import Params
from pipelines.params import training as sections
from pipelines.version import code_version
from pipelines.video.sound import Samples
from training import marking
from training.adapt import Source, config_of, learn
from training.content import settings_of
from training.faces import (
    STORED,
    Face,
    Finder,
    Picture,
    drawings,
    from_picture,
    read_picture,
    resized,
)
from training.finetune import Person
from training.footage import Footage, follow
from training.layouts import (
    Frames,
    Layout,
    Row,
    Writer,
    check_output,
    compose,
    layout_for,
    open_writer,
)
from training.pixels import to_uint8, to_unit
from training.retarget import Motion
from training.trained import Trained, default_model, device_named, find_model, load_person


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A portrait and the person it shows."""

    source: Source
    face: Face
    person: Person


@dataclass(slots=True, eq=False)
class Scene:
    """Makes labelled frames of subjects from the landmarks that move them."""

    subjects: Sequence[Subject]
    size: int
    """S of the model."""
    layout: Layout
    label: str | None
    device: torch.device
    seconds: float = 0.0
    """Spent in the generator, so far."""
    _render: list[Callable[[torch.Tensor], torch.Tensor]] = field(default_factory=list)

    @contextmanager
    def ready(self) -> Iterator[None]:
        """`frames` may be asked for inside: the weights are prepared once."""
        with ExitStack() as stack:
            self._render = [stack.enter_context(s.person.ready()) for s in self.subjects]
            yield

    def frames(
        self, points: Sequence[npt.NDArray[np.floating]], driver: Sequence[Picture]
    ) -> Frames:
        """Frames to be shown, of (n, 68, 2) landmarks for each subject, in pixels of its crop.

        driver: n crops of any size; may be empty where the layout does not show it.
        """
        shown = np.empty((0, self.size, self.size, 3), np.uint8)
        if driver:
            shown = np.stack([resized(picture, self.size) for picture in driver])
        rows = []
        for subject, render, moved in zip(self.subjects, self._render, points, strict=True):
            portrait = subject.face.picture
            drawn = drawings(moved, portrait.shape[0], self.size)
            started = time.perf_counter()
            made = to_uint8(render(to_unit(drawn, self.device)))
            self.seconds += time.perf_counter() - started
            if self.label is not None:
                made = marking.draw_label(made, self.label)
            rows.append(Row(resized(portrait, self.size), drawn, made))
        return compose(self.layout, rows, shown)


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """Everything but the driver."""

    scene: Scene
    finder: Finder
    settings: sections.Animate
    """With what the command line says instead."""
    keys: marking.Keys
    facts: dict[str, Any]

    @property
    def motion(self) -> Motion:
        """How the driver's motion is taken."""
        return self.settings.motion

    @property
    def side(self) -> int:
        """Pixels of the crops in which landmarks are found."""
        return max(STORED, self.scene.size)

    def facts_with(self, driver: dict[str, str]) -> dict[str, Any]:
        """What the output says of itself."""
        parents = [*self.facts["parents"], {"kind": "driver", **driver}]
        return {**self.facts, "driver": driver, "parents": parents}


def check_destination(params: Params, options: Namespace) -> None:
    """Raises UserError where -o cannot be written, or is something that the command reads."""
    check_output(options.output)
    inputs = [
        *(("--portrait", portrait) for portrait in options.portrait),
        ("--driver", options.driver),
        ("--person", options.person),
        ("--model", options.model or default_model(params)),
    ]
    outputs.check_file("-o", options.output, inputs)


def prepare(
    params: Params, options: Namespace, driver: Path | None = None
) -> tuple[Job, Footage | None]:
    """Check, load the model, find all faces, the driver's too, and last learn the portraits.

    Raises UserError for what does not go together and for what cannot be used: what takes longest
    comes last. driver: a video, or None where a live one will tell for itself.
    """
    own = params.animate
    asked = {"motion": options.motion, "batch_size": options.batch}
    settings = own.model_copy(update={k: v for k, v in asked.items() if v is not None})
    if settings.batch_size < 1:
        raise UserError(f"--batch {options.batch}: give 1 or more")
    if options.person and len(options.portrait) > 1:
        raise UserError(f"--person is one person, but there are {len(options.portrait)} portraits")
    if options.person and options.variant:
        raise UserError("--person says by itself how it was learned: leave out --variant")
    layout = layout_for(len(options.portrait), options.layout)
    paths = [Path(portrait) for portrait in options.portrait]
    for path in paths:  # a wrong name is told before a model is loaded
        read_picture(path)
    keys = marking.keys(own.certificate, own.key)
    device = device_named(options.device)
    model = find_model(params, options.model, device)
    label = None if options.no_label else own.label
    if label is None:
        progress.say("animate: the visible label is off (--no-label); the file's facts say so")
    else:  # a label that does not fit is told before any work
        marking.draw_label(np.zeros((1, model.size, model.size, 3), np.uint8), label)

    finder = Finder(options.detector or params.landmarks.backend, options.device)
    side = max(STORED, model.size)
    faces = [from_picture(path, finder, side, options.face) for path in paths]
    footage = None
    if driver is not None:
        footage = follow(driver, finder, side, options.driver_face, "--driver-face")
    persons, variant, of_person = _persons(params, options, model, faces, device)
    subjects = [
        Subject(Source.of(path), face, person)
        for path, face, person in zip(paths, faces, persons, strict=True)
    ]
    portraits = [subject.source.facts() for subject in subjects]
    facts = {
        "kind": "video",
        "model": {"sha256": model.sha256, "facts": model.facts},
        **of_person,
        "portraits": portraits,
        "motion": settings.motion,
        "layout": layout,
        "variant": variant,
        "label": "off" if label is None else label,
        "code": code_version(),
        "parents": [
            {"kind": "model", "sha256": model.sha256},
            *({"kind": "person", "sha256": one["sha256"]} for one in of_person.values()),
            *({"kind": "portrait", **one} for one in portraits),
        ],
    }
    scene = Scene(subjects, model.size, layout, label, device)
    return Job(scene, finder, settings, keys, facts), footage


def _persons(
    params: Params,
    options: Namespace,
    model: Trained,
    faces: Sequence[Face],
    device: torch.device,
) -> tuple[list[Person], str, dict[str, Any]]:
    """The person of each face, their variant, and the facts of a person file."""
    if options.person:
        person, facts = load_person(options.person, model)
        source = Source.of(Path(options.person))
        return (
            [person],
            "ft" if person.tuned else "ff",
            {"person": {**source.facts(), "facts": facts}},
        )
    chosen = Namespace(variant=options.variant or "ff")
    config = config_of(params, model, chosen)
    every = settings_of(params)
    persons = [learn(model, [face], config, device, every)[0] for face in faces]
    return persons, config.variant, {}


@contextmanager
def published(
    output: str, job: Job, driver: dict[str, str], fps: Fraction, sound: Iterable[Samples] | None
) -> Iterator[Writer]:
    """A writer whose work is signed and appears under its name when the block ends in peace."""
    final = check_output(output)
    final.parent.mkdir(parents=True, exist_ok=True)
    marks: dict[str, Any] = {"label": job.scene.label, "keys": job.keys}
    facts = job.facts_with(driver)
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=".likeness-") as folder:
        scratch = Path(folder, final.name)
        writer = open_writer(scratch, fps, sound)
        try:
            yield writer
        finally:
            writer.close()
        if not scratch.is_dir():
            marking.sign(scratch, facts=facts, into=final, **marks)
            return
        sidecar = marking.sign(scratch, facts=facts, **marks)
        try:
            scratch.rename(final)
        except OSError as error:
            raise UserError(
                f"{final}: something else was written there meanwhile ({error.strerror}); "
                "name another folder"
            ) from None
        sidecar.replace(marking.sidecar_path(final))
