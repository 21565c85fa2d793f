"""Several workers as one: gradients averaged over torch.distributed's default group."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from training.meta import Reducer

BUCKET = 64 * 2**20
"""Bytes sent at once."""


class DistributedReducer(Reducer):
    """Every worker ends a step with the same weights, if all began with the same."""

    def mean_(self, tensors: Sequence[Tensor]) -> None:
        """Mean over workers, in buckets, in an order that all workers share."""
        bucket: list[Tensor] = []
        size = 0
        for tensor in tensors:
            bucket.append(tensor)
            size += tensor.numel() * tensor.element_size()
            if size >= BUCKET:
                self._mean_bucket(bucket)
                bucket, size = [], 0
        self._mean_bucket(bucket)

    def _mean_bucket(self, bucket: list[Tensor]) -> None:
        if not bucket:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
        dist.all_reduce(flat)
        flat /= self.workers
        parts = flat.split([tensor.numel() for tensor in bucket])
        for tensor, part in zip(bucket, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))

    def gather(self, tensor: Tensor) -> Tensor:
        """All workers' tensors of the same shape, in the order of ranks."""
        parts = [torch.empty_like(tensor) for _ in range(self.workers)]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @property
    def workers(self) -> int:
        """Size of the default group."""
        return int(dist.get_world_size())
