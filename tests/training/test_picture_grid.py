"""Picture grids: every picture at its place, readable, as PNG."""

from __future__ import annotations

import numpy as np
from PIL import Image

from training.grid import CELL, GAP, grid, save_png


def colour(value: int, side: int = 64) -> np.ndarray:
    return np.full((side, side, 3), value, np.uint8)


def test_pictures_stand_in_order_and_small_ones_are_enlarged():
    out = grid([[colour(10), colour(20)], [colour(30), colour(40)]])
    assert out.dtype == np.uint8 and out.shape == (2 * CELL + 3 * GAP, 2 * CELL + 3 * GAP, 3)
    centres = [GAP + CELL // 2, 2 * GAP + CELL + CELL // 2]
    assert [[out[y, x, 0] for x in centres] for y in centres] == [[10, 20], [30, 40]]
    assert (out[:GAP] == 255).all()


def test_headings_and_labels_get_room_and_no_picture_is_covered():
    rows = [[colour(0)] * 3] * 2
    bare, full = (
        grid(rows),
        grid(rows, ["source", "a long heading of many words", "FF"], ["T=1", "x"]),
    )
    assert full.shape[0] > bare.shape[0] and full.shape[1] > bare.shape[1]
    assert (full == 0).all(-1).sum() >= 6 * CELL**2
    top = full.shape[0] - (bare.shape[0] - GAP)
    assert (full[:top] < 128).any(), "no heading"
    left = full.shape[1] - (bare.shape[1] - GAP)
    assert (full[top:, :left] < 128).any(), "no label"


def test_rows_and_pictures_may_differ_in_size():
    out = grid([[colour(9, 256)], [colour(8, 64), colour(7, 200)]], labels=["one", "two"])
    assert out.shape[0] == 2 * 256 + 3 * GAP
    assert grid([]).size


def test_a_png_holds_the_very_pixels(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    save_png(picture, str(tmp_path / "deep" / "grid.png"))
    with Image.open(tmp_path / "deep" / "grid.png") as image:
        assert image.format == "PNG" and (np.asarray(image) == picture).all()
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["grid.png"]
