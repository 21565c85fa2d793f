"""Cost of one full-size meta step: CPU seconds, samples a second, and the share of peak.

    python -m benchmarks.step [--bf16] [--plain] [--rounds 3]
    python -m benchmarks.step --device cuda --bf16 --batch 48 [--compile]

Batch 1, K = 8 source frames, 256x256, with attention, VGG19 and VGGFace of random weights (they
cost what the trained ones do); needs only torch and numpy. The work is what PyTorch's flop
counter sees of a step; the peak is the best large matmul of the same run and type. `--plain`
is the reference: the same networks with convolution and resampling apart, as a textbook has
them. Pictures and landmark pictures are noise: no cost depends on content.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from statistics import median

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from training.device import tune
from training.layers import Conv
from training.losses import CONTENT_WEIGHTS, ContentLoss
from training.meta import EpisodeBatch, MetaConfig, MetaLearner
from training.networks import NetworkConfig
from training.perceptual import random_backbone

CPU_SECONDS = 6.8
"""The target for one sample in bf16; public implementations take 10.5 to 13.9 in fp32."""
WARM_UP = 3
"""Steps until memory is laid out and kernels are chosen."""


def random_batch(batch: int, frames: int, size: int) -> EpisodeBatch:
    """Episodes of noise, as uint8 pictures."""

    def pictures(*shape: int) -> torch.Tensor:
        return torch.randint(0, 256, (*shape, 3, size, size), dtype=torch.uint8)

    return EpisodeBatch(
        pictures(batch, frames),
        pictures(batch, frames),
        pictures(batch),
        pictures(batch),
        torch.arange(batch),
    )


def plain_forward(conv: Conv, x: torch.Tensor) -> torch.Tensor:
    """What `Conv.forward` computes, one operation after the other."""
    weight = conv.normalised()
    if conv.resample == "up":
        x = F.interpolate(x, scale_factor=2.0)
        if conv.kernel == 3:  # it comes as that of a transposed convolution
            weight = weight.transpose(0, 1).flip(2, 3) / 4
    x = F.conv2d(x, weight, conv.bias, padding=conv.kernel // 2)
    return F.avg_pool2d(x, 2) if conv.resample == "down" else x


def timed(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Wall and CPU seconds, all threads together, until the device has finished."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wait()
    return time.perf_counter() - wall, time.process_time() - cpu


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the best large square matmul, all threads."""
    side = 8192 if device.type == "cuda" else 2048
    a = torch.randn(side, side, device=device, dtype=dtype)
    b = torch.randn(side, side, device=device, dtype=dtype)
    timed(lambda: a @ b, device)
    return 2 * side**3 / min(timed(lambda: a @ b, device)[0] for _ in range(5))


def main() -> int:
    """Run the benchmark; 1 where the CPU target, of bf16, is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--frames", type=int, default=8, help="K")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3, help="timed steps, after three to warm up")
    parser.add_argument(
        "--threads", type=int, default=1, help="on CPU; of more, those that wait are counted too"
    )
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--no-channels-last", action="store_true")
    parser.add_argument("--no-attention", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--plain", action="store_true", help="the reference")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    try:
        device = torch.device(args.device)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        parser.error(f"--device {args.device}: {str(error).splitlines()[0]}")
    tune(device)

    if args.plain:
        Conv.forward = plain_forward  # type: ignore[method-assign, assignment]
    torch.manual_seed(0)
    weights = CONTENT_WEIGHTS["v2"]

    def make(*, compiled: bool) -> MetaLearner:
        return MetaLearner(
            max(args.batch, 16),
            ContentLoss(*((random_backbone(name), weight) for name, weight in weights.items())),
            MetaConfig(
                bf16=args.bf16,
                channels_last=not args.no_channels_last,
                compile=compiled,
                accumulate=args.accumulate,
            ),
            NetworkConfig(image_size=args.size, attention=not args.no_attention),
            device=device,
        )

    # One episode's work, eagerly: the counter sees no compiled kernel, and a whole batch may not
    # fit but when it is compiled.
    learner = make(compiled=False)
    with FlopCounterMode(display=False) as counter:
        learner.step(random_batch(args.accumulate, args.frames, args.size))
    flops = counter.get_total_flops() / args.accumulate * args.batch
    if args.compile:
        del learner
        learner = make(compiled=True)
    batch = random_batch(args.batch, args.frames, args.size)
    if device.type == "cuda":
        batch = EpisodeBatch(*(getattr(batch, f.name).pin_memory() for f in fields(batch)))
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(WARM_UP):
        learner.step(batch)
    times = [timed(lambda: learner.step(batch), device) for _ in range(args.rounds)]
    wall, cpu = median(t[0] for t in times), median(t[1] for t in times)

    dtype = torch.bfloat16 if args.bf16 else torch.float32
    peak = matmul_peak(device, dtype)
    print(
        f"{device}, torch {torch.__version__}, {torch.get_num_threads()} threads, "
        f"{'bf16' if args.bf16 else 'fp32'}, "
        f"{'contiguous' if args.no_channels_last else 'channels last'}"
        f"{', compiled' if args.compile else ''}{', plain' if args.plain else ''}; "
        f"batch {args.batch}, K {args.frames}, {args.size} px, {args.rounds} rounds"
    )
    print(f"step: {wall:.3f} s wall, {cpu:.2f} s CPU; {args.batch / wall:.2f} samples/s")
    print(f"CPU seconds a sample: {cpu / args.batch:.2f}")
    print(f"peak of a {dtype} matmul: {peak / 1e12:.3f} TFLOP/s")
    print(
        f"work: {flops / args.batch / 1e12:.3f} TFLOP a sample; "
        f"{flops / wall / 1e12:.3f} TFLOP/s, {flops / wall / peak:.0%} of that peak"
    )
    if device.type == "cuda":
        print(f"memory: {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB at most")
    return int(device.type == "cpu" and args.bf16 and cpu / args.batch > CPU_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
