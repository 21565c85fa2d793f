"""Adapt: learn one person from a few frames, into a small file that `animate` takes.

Reads a trained model and frames of one person: videos, pictures or folders of pictures. Writes what
was adapted, with facts that lead back to the model and the frames. ff takes what the embedder says
of the frames; ft, the default, fine-tunes from there.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, UnidentifiedImageError

from pipelines import outputs, progress, storage
from pipelines.clips import even_numbers
from pipelines.command import EXIT_OK, NOTHING_KEPT, arguments, guarded
from pipelines.detectors import BACKENDS
from pipelines.errors import StopStage, UserError
from pipelines.params import Params, load
from pipelines.params.training import Setting
from pipelines.version import code_version
from training import content, finetune, tensor_file
from training.faces import FORMATS, STORED, Face, Finder, drawings, from_picture, pictures_to
from training.finetune import AdaptConfig, FineTuner, Person
from training.footage import Footage, follow
from training.pixels import to_unit
from training.trained import (
    PERSON,
    Trained,
    default_model,
    device_named,
    find_model,
    save_person,
)

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
NAMED = 10
"""Pictures that are passed over and named."""
SHOTS = 8
"""Frames taken of a video where nobody says how many."""


# --- what animate needs as well --------------------------------------------------------------


def add_model_options(parser: ArgumentParser) -> None:
    """Options of whoever makes something with a model."""
    parser.add_argument(
        "--model", metavar="URL", help="default: <paths.models>/<setting>.safetensors"
    )
    parser.add_argument(
        "--face", type=int, metavar="N", help="which face of a picture with several, from the left"
    )
    parser.add_argument(
        "--detector",
        choices=tuple(BACKENDS),
        help="places the landmarks; default: landmarks.backend, as in the dataset",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N; default: %(default)s")


def learn(
    model: Trained,
    faces: Sequence[Face],
    config: AdaptConfig,
    device: torch.device,
    settings: Iterable[Setting] = (),
) -> tuple[Person, int]:
    """The person of T faces, and the iterations of fine-tuning that were done.

    settings: may name files of the model's backbones, where they are not where they were.
    Raises UserError where the model cannot be fine-tuned, StopStage where its backbones cannot be
    had or fine-tuning diverges.
    """
    size = model.size
    frames = pictures_to([face.picture for face in faces], size, device)
    drawn = [drawings(face.points[None], face.picture.shape[0], size) for face in faces]
    landmarks = torch.cat([to_unit(one, device) for one in drawn])
    e_hat = finetune.embed(model.embedder, frames, landmarks)
    if config.variant == "ff":
        return finetune.feed_forward(model.generator, e_hat), 0
    if not model.tunable:
        raise UserError("this model was trained to be used as it is, not for ft: --variant ff")
    loss = content.loss_of(model, settings).to(device)
    tuner = FineTuner(model.generator, model.discriminator, loss, e_hat, frames, landmarks, config)
    done = 0
    with progress.simple("fine-tune", "iterations", tuner.iterations) as advance:
        try:
            for _ in tuner.run():
                done += 1
                advance(1)
        except FloatingPointError as error:
            raise StopStage(f"{error}; lower adapt.lr_generator") from None
    return tuner.person(), done


# --- frames ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """A file that frames came from."""

    path: Path
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Source:
        """Raises OSError where it cannot be read."""
        return cls(path, storage.sha256(path))

    def facts(self) -> dict[str, str]:
        """Its name without folders, which are nobody's business, and its digest."""
        return {"name": self.path.name, "sha256": self.sha256}


Found = tuple[Source, Face | Footage, int]
"""A file, the face or footage in it, and the number of a frame."""


def collect(
    paths: Sequence[Path], finder: Finder, shots: int | None, side: int, which: int | None = None
) -> tuple[list[Face], list[Source]]:
    """Frames of a person, spread evenly over all that show a face, and the files they are from.

    shots: how many; None: all pictures, and frames of videos up to `SHOTS`. Pictures come first.
    In a folder, pictures without one face are passed over and counted. Raises UserError.
    """
    found: list[Found] = []
    filmed = False
    if twice := [path for path, times in Counter(paths).items() if times > 1]:
        raise UserError(f"--frames names {twice[0]} twice: once is enough")
    for path in paths:
        if path.is_dir():
            found += [(source, face, 0) for source, face in _folder(path, finder, side, which)]
        elif _is_picture(path):
            face = from_picture(path, finder, side, which)  # first: it tells what will not do
            found.append((Source.of(path), face, 0))
        else:
            footage = follow(path, finder, side, which)
            for remark in footage.remarks():
                progress.complain(f"adapt: {remark}")
            filmed, source = True, Source.of(path)
            found += [(source, footage, number) for number in footage.found.nonzero()[0].tolist()]
    found = _once(found)
    if shots is not None and shots > len(found):
        names = ", ".join(path.name for path in paths)
        raise UserError(f"--shots {shots}: frames that show a face in {names}: {len(found)}")
    pictures = [one for one in found if isinstance(one[1], Face)]
    frames = [one for one in found if isinstance(one[1], Footage)]
    wanted = shots or max(len(pictures), SHOTS if filmed else 0)
    if wanted < len(pictures):
        progress.say(f"adapt: takes {wanted} of {len(pictures)} pictures, spread evenly")
    picked = [pictures[number] for number in even_numbers(len(pictures), wanted)]
    picked += [frames[number] for number in even_numbers(len(frames), wanted - len(picked))]
    sources = list(dict.fromkeys(source for source, _, _ in picked))
    faces: list[Face] = []
    films: dict[Path, tuple[Footage, list[int]]] = {}
    for source, thing, number in picked:
        if isinstance(thing, Face):
            faces.append(thing)
        else:
            films.setdefault(source.path, (thing, []))[1].append(number)
    for footage, numbers in films.values():
        cut = zip(numbers, footage.pictures(numbers), strict=True)
        faces += [Face(picture, footage.points[number]) for number, picture in cut]
    return faces, sources


def _once(found: Sequence[Found]) -> list[Found]:
    """Each file once, by whatever names it was given: a copy would only weigh twice."""
    first: dict[str, Path] = {}
    for source, _, _ in found:
        first.setdefault(source.sha256, source.path)
    copies = {source for source, _, _ in found if first[source.sha256] != source.path}
    for copy in sorted(copies, key=lambda source: source.path):
        progress.say(f"adapt: passed over {copy.path}: the same file as {first[copy.sha256]}")
    return [frame for frame in found if frame[0] not in copies]


def _folder(
    folder: Path, finder: Finder, side: int, which: int | None
) -> list[tuple[Source, Face]]:
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name[0] != ".")
    pictures = [path for path in files if _is_picture(path)]
    others = Counter(path.suffix or path.name for path in files if path not in pictures)
    if pictures and others:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items()))
        progress.say(f"adapt: left out of {folder}, as no pictures that it reads: {kinds}")
    if not pictures:
        raise UserError(f"{folder}: no pictures in this folder ({', '.join(sorted(PICTURES))})")
    found, passed = [], []
    for path in pictures:
        try:
            found.append((Source.of(path), from_picture(path, finder, side, which)))
        except UserError as error:
            passed.append(str(error))
    if not found:
        words = f"{folder}: none of {len(pictures)} pictures will do; the last: {passed[-1]}"
        raise UserError(words)
    if passed:
        progress.say(f"adapt: passed over {len(passed)} of {len(pictures)} pictures:")
        for line in passed[:NAMED]:
            progress.say(f"  {line}")
        if len(passed) > NAMED:
            progress.say(f"  and {len(passed) - NAMED} more")
    return found


def _is_picture(path: Path) -> bool:
    if path.suffix.lower() in PICTURES:
        return True
    try:
        with Image.open(path, formats=FORMATS):
            return True
    except Image.DecompressionBombError:  # told when it is read
        return True
    except UnidentifiedImageError:
        return False
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None


# --- the command -----------------------------------------------------------------------------


def config_of(params: Params, model: Trained, options: Namespace) -> AdaptConfig:
    """How models of this setting are adapted, with what the command line says instead."""
    given = {key: getattr(options, key, None) for key in ("variant", "iterations")}
    asked = {key: value for key, value in given.items() if value is not None}
    try:
        return AdaptConfig(**(params.adapting(model.setting_name).model_dump() | asked))
    except ValueError as error:
        raise UserError(f"adapt: {error}") from None


def facts_of(
    model: Trained, config: AdaptConfig, sources: Sequence[Source], **more: object
) -> dict[str, Any]:
    """What a person file says of itself."""
    frames = [source.facts() for source in sources]
    return {
        "kind": "person",
        "variant": config.variant,
        **({"adapt": asdict(config)} if config.variant == "ft" else {}),
        "frames": frames,
        "code": code_version(),
        "parents": [
            {"kind": "model", "sha256": model.sha256},
            *({"kind": "frames", **frame} for frame in frames),
        ],
        **more,
    }


def adapt(params: Params, options: Namespace) -> str:
    """Learn and write one person; returns what to say."""
    if options.shots is not None and options.shots < 1:
        raise UserError(f"--shots {options.shots}: give 1 or more")
    if not options.output.endswith(".safetensors") or Path(options.output).is_dir():
        raise UserError(f"-o {options.output}: a person is a file that ends in .safetensors")
    inputs = [("--frames", path) for path in options.frames]
    model_url = options.model or default_model(params)
    outputs.check_file("-o", options.output, [*inputs, ("--model", model_url)])
    if Path(options.output).exists():
        try:
            tensor_file.read_facts(Path(options.output), [PERSON])
        except UserError as error:  # a model that took days, somebody else's file
            raise UserError(f"-o would write over what is no person: {error}") from None
    device = device_named(options.device)
    model = find_model(params, options.model, device)
    config = config_of(params, model, options)
    if options.iterations is not None and config.variant == "ff":
        raise UserError(f"--iterations {options.iterations}: ff takes none, only ft does")
    finder = Finder(options.detector or params.landmarks.backend, options.device)
    faces, sources = collect(
        [Path(path) for path in options.frames],
        finder,
        options.shots,
        max(STORED, model.size),
        options.face,
    )
    person, iterations = learn(model, faces, config, device, content.settings_of(params))
    facts = facts_of(
        *(model, config, sources), shots=len(faces), iterations=iterations, detector=finder.backend
    )
    save_person(options.output, person, model, facts)
    tuned = f", {iterations} iterations" if config.variant == "ft" else ""
    kib = storage.size(options.output) / 1024
    return (
        f"adapt: {config.variant} from {len(faces)} frame{'s' * (len(faces) > 1)}{tuned}; "
        f"wrote {options.output} ({kib:,.0f} KiB)"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m training.adapt`."""
    parser = arguments(__doc__ or "")
    parser.add_argument(
        "--frames",
        required=True,
        nargs="+",
        metavar="PATH",
        help="of one person: videos, pictures or folders of pictures",
    )
    parser.add_argument("-o", "--output", required=True, metavar="FILE.safetensors")
    parser.add_argument(
        "--shots",
        type=int,
        metavar="T",
        help=f"frames to learn from; default: {SHOTS} of a video, all of pictures",
    )
    parser.add_argument("--variant", choices=("ft", "ff"), help="default: adapt.variant")
    parser.add_argument("--iterations", type=int, metavar="N", help="default: adapt.iterations")
    add_model_options(parser)
    options = parser.parse_args(argv)

    def command() -> int:
        progress.say(adapt(load(options.params), options))
        return EXIT_OK

    return guarded(command, NOTHING_KEPT)


if __name__ == "__main__":
    sys.exit(main())
