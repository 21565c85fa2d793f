"""Meta-learning: one object that takes a batch of episodes and does one step. Pure torch.

A step is one update of E,G and `d_steps` updates of D,W, each with its own backward
(docs/model.md). No files, no processes: several workers meet in a `Reducer`.

Shapes: B episodes, K source frames, pictures 3 x S x S in [-1, 1], N embedding entries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields
from itertools import chain
from math import isfinite
from typing import Any, Literal

import torch
from torch import Tensor, nn

from training.ema import average_of, follow
from training.layers import update_spectral_norm
from training.losses import discriminator_loss, frozen, generator_losses, match
from training.networks import Discriminator, Embedder, Generator, NetworkConfig
from training.table import VideoTable


@dataclass(frozen=True, slots=True)
class MetaConfig:
    """How to meta-learn; the defaults are those of docs/model.md."""

    variant: Literal["ft", "ff"] = "ft"
    """ft: with the match loss, to be fine-tuned later. ff: without, used as it is."""
    lr_generator: float = 5e-5
    """Of E and G."""
    lr_discriminator: float = 2e-4
    """Of D and of W's rows."""
    betas: tuple[float, float] = (0.0, 0.999)
    eps: float = 1e-5
    d_steps: int = 2
    """Updates of D for one of E,G."""
    feature_weight: float = 10.0
    match_weight: float = 10.0
    """10 in the second version of the paper, 80 in the first; ff takes none."""
    ema: float | None = 0.999
    """Decay of the averaged E,G, reached as (1 + n) / (10 + n) after n steps; None: no average."""
    accumulate: int = 1
    """Equal parts a batch is worked off in, to fit memory; the gradients are the whole batch's."""
    bf16: bool = False
    """bfloat16 autocast; statistics, norms, scores, psi and losses stay in float32."""
    channels_last: bool = True
    compile: bool = False
    """torch.compile the networks and backbones."""

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        if self.variant not in ("ft", "ff"):
            raise ValueError(f"variant is {self.variant!r}; it must be ft or ff")
        if self.d_steps < 1 or self.accumulate < 1:
            raise ValueError("d_steps and accumulate must be 1 or more")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}; it must be in [0, 1), or none")


@dataclass(frozen=True, slots=True)
class EpisodeBatch:
    """B episodes of a video each: K source frames and one target that is not among them."""

    source: Tensor
    """(B, K, 3, S, S)"""
    source_landmarks: Tensor
    """(B, K, 3, S, S): their landmark pictures."""
    target: Tensor
    """(B, 3, S, S)"""
    target_landmarks: Tensor
    """(B, 3, S, S)"""
    rows: Tensor
    """(B,) int64: the videos' rows of W."""

    def __len__(self) -> int:
        """B."""
        return len(self.rows)

    def to(self, device: torch.device, *, channels_last: bool = False) -> EpisodeBatch:
        """On a device, as floats in [-1, 1]; uint8 pictures are a quarter to send."""
        layout = torch.channels_last if channels_last else torch.contiguous_format

        def picture(x: Tensor) -> Tensor:
            x = x.to(device, non_blocking=True)
            x = x.float() / 127.5 - 1 if x.dtype == torch.uint8 else x
            if x.dim() == 4:
                return x.contiguous(memory_format=layout)
            return x.flatten(0, 1).contiguous(memory_format=layout).unflatten(0, x.shape[:2])

        return EpisodeBatch(
            picture(self.source),
            picture(self.source_landmarks),
            picture(self.target),
            picture(self.target_landmarks),
            self.rows.to(device, non_blocking=True),
        )

    def split(self, parts: int) -> list[EpisodeBatch]:
        """Equal parts; their mean gradient is the batch's only if they are equal."""
        if len(self) % parts:
            raise ValueError(f"a batch of {len(self)} cannot be split into {parts} equal parts")
        chunks = (getattr(self, f.name).chunk(parts) for f in fields(self))
        return [EpisodeBatch(*chunk) for chunk in zip(*chunks, strict=True)]


class Reducer:
    """How workers agree on gradients; this one is alone. See `training.parallel`."""

    def mean_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over the workers."""

    def gather(self, tensor: Tensor) -> Tensor:
        """Every worker's tensor, joined along the first axis in the order of ranks."""
        return tensor

    @property
    def workers(self) -> int:
        """How many there are."""
        return 1


class MetaLearner:
    """E, G, D, W, their optimizers and averages, and the step that moves them."""

    def __init__(
        self,
        videos: int,
        content_loss: nn.Module,
        config: MetaConfig | None = None,
        networks: NetworkConfig | None = None,
        *,
        device: torch.device | str = "cpu",
        reducer: Reducer | None = None,
    ) -> None:
        self.config = config = config or MetaConfig()
        self.networks = networks or NetworkConfig()
        self.device = torch.device(device)
        self.reducer = reducer or Reducer()
        self.step_count = 0

        self.embedder = self._place(Embedder(self.networks))
        self.generator = self._place(Generator(self.networks))
        self.discriminator = self._place(Discriminator(self.networks))
        self.content_loss = self._place(content_loss)
        adam: dict[str, Any] = {"betas": config.betas, "eps": config.eps}
        self.table = VideoTable(
            videos, self.networks.embedding, lr=config.lr_discriminator, **adam
        ).to(self.device)
        self.generator_optimizer = torch.optim.Adam(
            list(self._generator_parameters()), lr=config.lr_generator, fused=True, **adam
        )
        self.discriminator_optimizer = torch.optim.Adam(
            self.discriminator.parameters(), lr=config.lr_discriminator, fused=True, **adam
        )
        self.ema_embedder = average_of(self.embedder, config.ema)
        self.ema_generator = average_of(self.generator, config.ema)
        if config.compile:
            for module in (self.embedder, self.generator, self.discriminator, self.content_loss):
                # D sees B and 2 B samples: a graph of any number of them would be a slower one.
                module.compile(dynamic=False)

    def _place(self, module: Any) -> Any:
        layout = torch.channels_last if self.config.channels_last else torch.contiguous_format
        return module.to(self.device, memory_format=layout)

    def _generator_parameters(self) -> Iterator[nn.Parameter]:
        return chain(self.embedder.parameters(), self.generator.parameters())

    def autocast(self) -> AbstractContextManager[Any]:
        """Where forwards run."""
        context: AbstractContextManager[Any] = torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.config.bf16
        )
        return context

    def step(self, batch: EpisodeBatch) -> dict[str, float]:
        """One update of E,G, then `d_steps` of D,W on the same episodes; the losses as numbers."""
        parts = batch.to(self.device, channels_last=self.config.channels_last).split(
            self.config.accumulate
        )
        fakes, logs = self.update_generator(parts)
        for _ in range(self.config.d_steps):
            logs |= self.update_discriminator(parts, fakes)
        self.step_count += 1
        values: list[float] = torch.stack(list(logs.values())).tolist()  # the step's only wait
        numbers = dict(zip(logs, values, strict=True))
        for name, value in numbers.items():
            if not isfinite(value):
                raise FloatingPointError(f"{name} is {value} at step {self.step_count}")
        return numbers

    def forward_generator(self, batch: EpisodeBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """x-hat with its graph, and the loss terms of E,G with a gradient into E and G alone."""
        rows = self.table(batch.rows)
        with self.autocast():
            e_hat = self.embedder.embed(batch.source, batch.source_landmarks)
            fake = self.generator(batch.target_landmarks, e_hat)
            terms = generator_losses(
                self.discriminator,
                self.content_loss,
                fake,
                batch.target,
                batch.target_landmarks,
                rows,
            )
        if self.config.variant == "ft":
            terms["match"] = match(e_hat, rows)
        return fake, terms

    def update_generator(
        self, parts: Sequence[EpisodeBatch]
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """One update of E and G (and of their averages); D and W stay as they are."""
        update_spectral_norm(self.embedder, self.generator)
        weights = {
            "content": 1.0,
            "feature_matching": self.config.feature_weight,
            "adversarial": 1.0,
            "match": self.config.match_weight,
        }
        fakes, logs = [], Mean()
        with frozen(self.discriminator):
            for part in parts:
                fake, terms = self.forward_generator(part)
                loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
                (loss / len(parts)).backward()
                fakes.append(fake.detach())
                logs.add(terms | {"generator": loss})
        self._apply(self.generator_optimizer)
        for average, module in (
            (self.ema_embedder, self.embedder),
            (self.ema_generator, self.generator),
        ):
            follow(average, module, self._decay())
        return fakes, logs.means()

    def _decay(self) -> float | None:
        """Of the averages: short at first, or a short run would average its random start."""
        if self.config.ema is None:
            return None
        return min(self.config.ema, (1 + self.step_count) / (10 + self.step_count))

    def update_discriminator(
        self, parts: Sequence[EpisodeBatch], fakes: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """One update of D and of the batch's rows of W, on given x-hats; E and G stay."""
        update_spectral_norm(self.discriminator)
        logs, rows_b, grads_bn = Mean(), [], []
        for part, fake in zip(parts, fakes, strict=True):
            rows = self.table(part.rows).requires_grad_()
            with self.autocast():
                loss, real_score, fake_score = discriminator_loss(
                    self.discriminator, fake, part.target, part.target_landmarks, rows
                )
            (loss / len(parts)).backward()
            assert rows.grad is not None
            rows_b.append(part.rows)
            grads_bn.append(rows.grad)
            logs.add({"discriminator": loss, "real_score": real_score, "fake_score": fake_score})
        self._apply(self.discriminator_optimizer)
        self.table.update(
            self.reducer.gather(torch.cat(rows_b)),
            self.reducer.gather(torch.cat(grads_bn)) / self.reducer.workers,
        )
        return logs.means()

    def _apply(self, optimizer: torch.optim.Optimizer) -> None:
        parameters = chain.from_iterable(group["params"] for group in optimizer.param_groups)
        self.reducer.mean_([p.grad for p in parameters if p.grad is not None])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def _parts(self) -> dict[str, Any]:
        averages = {"ema_embedder": self.ema_embedder, "ema_generator": self.ema_generator}
        return {
            "embedder": self.embedder,
            "generator": self.generator,
            "discriminator": self.discriminator,
            "table": self.table,
            **({} if self.config.ema is None else averages),
            "generator_optimizer": self.generator_optimizer,
            "discriminator_optimizer": self.discriminator_optimizer,
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything the next step depends on, as tensors and plain values; not copied."""
        state: dict[str, Any] = {name: part.state_dict() for name, part in self._parts().items()}
        cuda = [torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else []
        return state | {
            "step": self.step_count,
            "networks": asdict(self.networks),
            "rng": {"cpu": torch.get_rng_state(), "cuda": cuda},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken, bit for bit on the same machine; sets torch's RNG."""
        if state["networks"] != asdict(self.networks):
            raise ValueError(f"checkpoint of {state['networks']}, not of {asdict(self.networks)}")
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
            if isinstance(part, torch.optim.Optimizer):
                lay_out(part)
        self.step_count = state["step"]
        torch.set_rng_state(state["rng"]["cpu"].cpu())
        for rng in state["rng"]["cuda"]:
            torch.cuda.set_rng_state(rng.cpu(), self.device)


def lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Give an optimizer's loaded moments the memory order of their parameters.

    Files keep plain order, networks may be channels_last, and the fused Adam walks over both
    alike: it would pair each weight with another one's moments.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter).copy_(value)


class Mean:
    """The mean of loss terms over the parts of a batch, left on the device."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, terms: dict[str, Tensor]) -> None:
        """Take in the terms of one part."""
        self.count += 1
        for name, term in terms.items():
            self.sums[name] = self.sums.get(name, 0) + term.detach()

    def means(self) -> dict[str, Tensor]:
        """What the parts have in the mean."""
        return {name: total / self.count for name, total in self.sums.items()}
