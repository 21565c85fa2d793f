"""What each worker of a run does: load, resume, step, save. Torch alone; no Ray, no DVC.

Several workers stay in step through `agree`: whatever goes wrong with one of them - weights that
are missing, a loss that is not finite, a full disk while saving - all of them hear of it at the
same place and end together, so that none waits for ever in a collective operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch

from pipelines import storage
from pipelines.errors import FATAL_ERRNOS, StopStage, UserError
from training import setting as settings
from training import tensor_file, trained
from training.batches import Indexed, Streamed, episodes_of
from training.checkpoint import Checkpoints, Loaded
from training.episodes import collate
from training.events import Pictured, Report, Saved, Started, Stepped, Stopped
from training.finetune import embed
from training.index import NoVideos
from training.layers import shared_weights
from training.meta import EpisodeBatch, MetaLearner, Reducer
from training.pixels import to_uint8
from training.run import SPLIT, Run
from training.shard_cache import localize

GRID_VIDEOS = 6
"""Rows of a picture grid."""


class Halt(Exception):
    """All workers have agreed to end."""


@dataclass
class Worker:
    """One worker of a run."""

    run: Run
    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    reducer: Reducer = field(default_factory=Reducer)
    report: Report = lambda event: None
    check: Callable[[], None] = lambda: None
    """Raises UserError where this machine is not fit for the run."""

    def train(self) -> None:
        """Go on from the newest whole checkpoint to the last step and leave the model."""
        try:
            self._train()
        except Halt:
            return

    def agree(self, trouble: str | None, *, mistake: bool = False) -> None:
        """Raise Halt on all workers when one of them is in trouble; it tells the driver why."""
        flag = torch.tensor([float(trouble is not None)], device=self.device)
        self.reducer.mean_([flag])
        if trouble is not None:
            self.report(Stopped(trouble, mistake))
        if flag.item():
            raise Halt

    def _train(self) -> None:
        run = self.run
        prepared: _Prepared | None = None
        trouble, mistake = None, False
        try:
            self.check()
            prepared = self._prepare()
        except (UserError, ValueError) as error:
            trouble, mistake = str(error), True
        except (StopStage, OSError) as error:
            trouble = str(error)
        self.agree(trouble, mistake=mistake)
        assert prepared is not None
        learner, source, total = prepared.learner, prepared.source, prepared.total
        done = learner.step_count
        history: list[Stepped] = []
        self._same_step(done)
        batches = source.batches(done)
        for _ in range(done, total):
            batch = self._next(batches)
            if self.rank == 0 and not prepared.shown:
                prepared.shown.extend(_first_of(batch))
            stepped = self._step(learner, batch)
            history.append(stepped)
            if self.rank == 0:
                self.report(stepped)
            last = stepped.step == total
            if last or stepped.step % run.grid_every == 0:
                self._picture(prepared)
            if last or stepped.step % run.checkpoint_every == 0:
                self._save(prepared, history)
                history.clear()
        self._leave_model(prepared)

    def _prepare(self) -> _Prepared:
        run = self.run
        torch.manual_seed(run.setting.seed)
        mmap = run.setting.loader == "mmap"
        index, shards = localize(
            run.index, run.shards, run.index_sha256, (SPLIT, "val") if mmap else (), run.cache
        )
        source: Indexed | Streamed = (Indexed if mmap else Streamed)(
            run.setting,
            index,
            shards if mmap else run.shards,
            SPLIT,
            rank=self.rank,
            world=self.world,
            workers=run.loader_workers,
            pin_memory=self.device.type == "cuda",
        )
        learner = MetaLearner(
            source.videos,
            settings.content_loss(run.setting.content, f"settings.{run.facts['setting_name']}"),
            settings.meta(run.setting),
            settings.networks(run.setting),
            device=self.device,
            reducer=self.reducer,
        )
        checkpoints = Checkpoints(run.folder, run.keep)
        total = run.total_steps(source.videos)
        notes: list[str] = []
        if source.dropped:
            notes.append(
                f"meta_train: {source.dropped} of {source.dropped + source.videos} videos store "
                f"fewer than k + 1 = {run.setting.k + 1} frames and are left out"
            )
        if self.rank == 0:  # of a worker that was killed while it saved
            storage.sweep_orphans(checkpoints.folder)
        storage.sweep_scratch(run.cache)
        with storage.scratch_folder(run.cache) as scratch:
            loaded = checkpoints.newest(scratch, notes.append)
        if loaded:
            _resume(run, learner, source, loaded, total)
        if self.rank == 0:
            past = loaded.facts["history"] if loaded else []
            history = tuple(Stepped(step, losses) for step, losses in past)
            started = Started(
                learner.step_count, total, source.videos, run.setting.batch, tuple(notes), history
            )
            self.report(started)
        return _Prepared(learner, source, total, checkpoints, _shown(self, index, shards))

    def _same_step(self, done: int) -> None:
        """All workers must have read the same checkpoint: they would mix unlike weights."""
        steps = self.reducer.gather(torch.tensor([done], device=self.device)).tolist()
        trouble = None
        if len(set(steps)) > 1:
            trouble = (
                f"{self.run.folder}: workers found checkpoints of different steps there "
                f"({', '.join(map(str, sorted(set(steps))))}); paths.work must be one folder that "
                "all nodes share"
            )
        self.agree(trouble, mistake=True)

    def _next(self, batches: Iterator[EpisodeBatch]) -> EpisodeBatch:
        """The next batch, for all workers or for none."""
        batch, trouble = None, None
        try:
            batch = next(batches)
        except ValueError as error:
            # Of a loader's process: the last line of a traceback, where it follows its class.
            last = str(error).strip().splitlines()[-1]
            trouble = last.removeprefix(f"{type(error).__name__}: ")
        self.agree(trouble, mistake=True)
        assert batch is not None
        return batch

    def _step(self, learner: MetaLearner, batch: EpisodeBatch) -> Stepped:
        """One step; its losses are the mean over the workers."""
        trouble = None
        losses: dict[str, float] = {}
        try:
            losses = learner.step(batch)
        except FloatingPointError as error:
            trouble = f"{error}: the run has diverged; lower the learning rates of the setting"
        except torch.OutOfMemoryError as error:
            trouble = (
                f"{str(error).splitlines()[0]} Raise meta.accumulate of the setting, and the same "
                "command goes on; another batch would begin anew"
            )
            if self.world > 1:  # the others wait for its gradients, not for its word
                raise StopStage(trouble) from None
        self.agree(trouble)
        values = torch.tensor(list(losses.values()), dtype=torch.float64, device=self.device)
        self.reducer.mean_([values])
        means = dict(zip(losses, values.tolist(), strict=True))
        return Stepped(learner.step_count, means)

    def _save(self, prepared: _Prepared, history: Sequence[Stepped]) -> None:
        learner, checkpoints = prepared.learner, prepared.checkpoints

        def save() -> None:
            state = {"learner": learner.state_dict(), "source": prepared.source.state()}
            steps = [[stepped.step, stepped.losses] for stepped in history]
            facts = _facts(self.run, prepared) | {"history": steps}
            checkpoints.save(learner.step_count, state, facts)
            self.report(Saved(learner.step_count))

        self._write(save, f"{checkpoints.folder}: no checkpoint")

    def _leave_model(self, prepared: _Prepared) -> None:
        """The finished model, unless it is there: of this step, not of fewer epochs."""
        run, learner = self.run, prepared.learner
        facts = _facts(run, prepared) | {"step": learner.step_count}

        def save() -> None:
            if not _is_left(run, facts):
                trained.save_model(run.model, learner, facts)

        self._write(save, f"{run.model}: no model")

    def _write(self, save: Callable[[], None], what: str) -> None:
        """Let the first worker save; all end where the disk does not take it."""
        trouble = None
        if self.rank == 0:
            try:
                save()
            except OSError as error:
                if error.errno not in FATAL_ERRNOS:
                    raise
                trouble = (
                    f"{what} could be saved ({error.strerror or error}); the checkpoints before "
                    "are kept: make room, then run the same command to go on"
                )
        self.agree(trouble)

    def _picture(self, prepared: _Prepared) -> None:
        if self.rank:
            return
        learner = prepared.learner
        rows = []
        for _, batch in prepared.shown:
            batch = batch.to(self.device, channels_last=learner.config.channels_last)
            with learner.autocast():
                e_hat = embed(learner.ema_embedder, batch.source[0], batch.source_landmarks[0])
                output = render(learner, batch.target_landmarks, e_hat)
            shown = (batch.source[0, 0], batch.target_landmarks[0], output[0], batch.target[0])
            rows.append([to_uint8(picture[None])[0] for picture in shown])
        labels = [label for label, _ in prepared.shown]
        self.report(Pictured(learner.step_count, rows, labels))


def render(learner: MetaLearner, landmarks: torch.Tensor, e_hat: torch.Tensor) -> torch.Tensor:
    """FF output (B, 3, S, S) of the averaged G for one e-hat (1, N)."""
    generator = learner.ema_generator
    training = generator.training
    generator.eval()
    try:
        with torch.no_grad(), shared_weights(generator):
            psi = generator.projection(e_hat).expand(len(landmarks), -1)
            output: torch.Tensor = generator.render(landmarks, psi)
            return output
    finally:
        generator.train(training)


@dataclass(frozen=True, slots=True)
class _Prepared:
    learner: MetaLearner
    source: Indexed | Streamed
    total: int
    checkpoints: Checkpoints
    shown: list[tuple[str, EpisodeBatch]]


def _facts(run: Run, prepared: _Prepared) -> dict[str, Any]:
    dataset = run.facts["dataset"] | {"videos": prepared.source.videos}
    shown = prepared.learner.step_count * run.setting.batch
    return run.facts | {"dataset": dataset, "epoch": shown // prepared.source.videos}


def _is_left(run: Run, facts: dict[str, Any]) -> bool:
    """Does the model of these steps, named as it is asked for now, lie in the run's folder?"""
    if not storage.exists(run.model):
        return False
    with storage.scratch_folder(run.cache) as scratch:
        try:
            with storage.local_copy(run.model, scratch) as path:
                _, found = tensor_file.read_facts(path, [trained.MODEL])
        except tensor_file.DamagedFile:
            return False
    return all(found.get(name) == facts[name] for name in ("step", "setting"))


def _resume(
    run: Run, learner: MetaLearner, source: Indexed | Streamed, loaded: Loaded, total: int
) -> None:
    if loaded.step > total:
        raise UserError(
            f"{run.folder} is already at step {loaded.step}, beyond the {total} steps of "
            f"epochs: {run.setting.epochs}; raise epochs, or remove that folder to begin anew"
        )
    try:
        learner.load_state_dict(loaded.state["learner"])
    except (KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{run.folder}: its checkpoint does not fit the networks of this version ({reason}); "
            "remove that folder to begin anew"
        ) from error
    source.resume(loaded.state["source"])


def _shown(worker: Worker, index: str, shards: str) -> list[tuple[str, EpisodeBatch]]:
    """The fixed episodes of the picture grids: held-out people first, then training ones."""
    if worker.rank or worker.run.setting.loader == "stream":
        return []  # a stream finds no given video: its first batch is shown
    setting = worker.run.setting
    shown: list[tuple[str, EpisodeBatch]] = []
    for split, label in (("val", "held out"), (SPLIT, "trained on")):
        try:
            episodes = episodes_of(setting, index, shards, split)
        except NoVideos:
            continue
        wanted = GRID_VIDEOS // 2 if split == "val" else GRID_VIDEOS - len(shown)
        videos = range(0, len(episodes), max(len(episodes) // wanted, 1))[:wanted]
        shown += [(label, collate([episodes[0, video]])) for video in videos]
    return shown


def _first_of(batch: EpisodeBatch) -> list[tuple[str, EpisodeBatch]]:
    """A batch's first episodes, kept for the picture grids."""
    tensors = [getattr(batch, f.name) for f in fields(batch)]
    return [
        ("trained on", EpisodeBatch(*(tensor[at : at + 1].clone() for tensor in tensors)))
        for at in range(min(len(batch), GRID_VIDEOS))
    ]
