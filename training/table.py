# mypy: allow-subclassing-any
"""W: one learned row for each training video, with an Adam state of its own for each row.

A video is seen rarely, so a dense optimizer would drag every row along at each step and give
young rows the bias correction of old ones. Here a row changes only in a step that shows its
video, and counts its own steps. One table, never a file or a tensor for each video.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.networks import ROW_DEVIATION

PART = 1 << 24
"""Numbers that the sum of gradients holds at once: 64 MiB."""


class VideoTable(nn.Module):
    """W (videos, N) and its lazily updated Adam moments. V videos, B samples, N entries."""

    weight_vn: Tensor
    first_vn: Tensor
    second_vn: Tensor
    steps_v: Tensor

    def __init__(
        self, videos: int, width: int, *, lr: float, betas: tuple[float, float], eps: float
    ) -> None:
        super().__init__()
        self.lr, self.betas, self.eps = lr, betas, eps
        self.register_buffer("weight_vn", torch.randn(videos, width) * ROW_DEVIATION)
        self.register_buffer("first_vn", torch.zeros(videos, width))
        self.register_buffer("second_vn", torch.zeros(videos, width))
        self.register_buffer("steps_v", torch.zeros(videos, dtype=torch.int64))

    def forward(self, rows_b: Tensor) -> Tensor:
        """A copy of the rows, (B, N), outside any graph."""
        return self.weight_vn[rows_b]

    def update(self, rows_b: Tensor, grad_bn: Tensor) -> None:
        """One Adam step of these rows. A video that comes twice gets the sum of its gradients.

        Every sample computes its row's whole update; samples of one video thus write the same
        values, and the result does not depend on the order of writing.
        """
        with torch.no_grad():
            grad_bn = self._summed(rows_b, grad_bn)
            beta1, beta2 = self.betas
            steps_b = self.steps_v[rows_b] + 1
            first_bn = self.first_vn[rows_b].lerp(grad_bn, 1 - beta1)
            second_bn = self.second_vn[rows_b].lerp(grad_bn.square(), 1 - beta2)
            age_b1 = steps_b[:, None].double()
            unbiased1_b1 = (1 - beta1**age_b1).float()
            unbiased2_b1 = (1 - beta2**age_b1).float()
            change_bn = first_bn / unbiased1_b1 / ((second_bn / unbiased2_b1).sqrt() + self.eps)
            self.weight_vn[rows_b] = self.weight_vn[rows_b] - self.lr * change_bn
            self.first_vn[rows_b] = first_bn
            self.second_vn[rows_b] = second_bn
            self.steps_v[rows_b] = steps_b

    def _summed(self, rows_b: Tensor, grad_bn: Tensor) -> Tensor:
        """For each sample the sum of its row's gradients, (B, N).

        The same on all workers: no matrix product, which TF32 would round, and no adding in
        whatever order threads come. In parts, or it would take B x B x N of memory.
        """
        part = max(1, PART // grad_bn.numel())
        return torch.cat(
            [
                ((some[:, None] == rows_b[None]).to(grad_bn.dtype)[:, :, None] * grad_bn).sum(1)
                for some in rows_b.split(part)
            ]
        )
