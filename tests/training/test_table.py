from __future__ import annotations

import pytest
import torch

from training import table as table_module
from training.table import VideoTable


def table(beta1: float = 0.0) -> VideoTable:
    return VideoTable(6, 4, lr=0.1, betas=(beta1, 0.999), eps=1e-5)


def test_only_the_rows_that_are_shown_change() -> None:
    w = table()
    before = {k: v.clone() for k, v in w.state_dict().items()}
    w.update(torch.tensor([1, 4]), torch.randn(2, 4))
    for name, value in w.state_dict().items():
        still = [0, 2, 3, 5]
        assert torch.equal(value[still], before[name][still]), name
    assert not torch.equal(w.weight_vn[[1, 4]], before["weight_vn"][[1, 4]])


def test_each_row_has_an_adam_of_its_own() -> None:
    """As many separate Adams as rows, each stepping only when its row is shown."""
    for beta1 in (0.0, 0.9):
        w = table(beta1)
        alone = [w.weight_vn[v].clone().requires_grad_() for v in range(6)]
        adams = [torch.optim.Adam([p], lr=0.1, betas=(beta1, 0.999), eps=1e-5) for p in alone]
        for rows in ([0, 1], [1, 2], [1, 5], [0, 5], [1, 0]):
            grads = torch.randn(2, 4)
            w.update(torch.tensor(rows), grads)
            for row, grad in zip(rows, grads, strict=True):
                alone[row].grad = grad.clone()
                adams[row].step()
        torch.testing.assert_close(w.weight_vn, torch.stack([p.detach() for p in alone]))
        assert w.steps_v.tolist() == [3, 4, 1, 0, 0, 2]


def test_a_video_that_comes_twice_steps_once_with_the_sum() -> None:
    twice, once = table(), table()
    once.load_state_dict(twice.state_dict())
    grads = torch.randn(3, 4)
    twice.update(torch.tensor([2, 0, 2]), grads)
    once.update(torch.tensor([2, 0]), torch.stack((grads[0] + grads[2], grads[1])))
    torch.testing.assert_close(twice.weight_vn, once.weight_vn)
    assert twice.steps_v[2] == 1


def test_in_parts_it_sums_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, grads = torch.randint(0, 6, (40,)), torch.randn(40, 4)
    whole, parts = table(), table()
    parts.load_state_dict(whole.state_dict())
    whole.update(rows, grads)
    monkeypatch.setattr(table_module, "PART", 3 * grads.numel())
    parts.update(rows, grads)
    for name, value in whole.state_dict().items():
        assert torch.equal(parts.state_dict()[name], value), name


def test_reading_gives_a_copy() -> None:
    w = table()
    rows = w(torch.tensor([3]))
    rows += 1
    assert not torch.equal(rows[0], w.weight_vn[3])
    assert not rows.requires_grad
