"""Which clips are shown, and how their landmarks are drawn."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from card_run import build_run, make_params
from PIL import Image

from pipelines import card, manifest
from pipelines.report import contact_sheet
from pipelines.shard import tar_url


def test_contact_sheet_spreads_over_people(made):
    params, _ = made
    sheet = list(contact_sheet.contact_sheet(params))
    people = Counter(item.person for item in sheet)
    assert len(people) == 5 and sorted(people.values()) == [1, 1, 1, 1, 2]
    assert sheet == list(contact_sheet.contact_sheet(params))
    assert all("Frame 20 of" in item.alt for item in sheet), "not the frame without landmarks"


def test_landmarks_are_drawn_where_they_are():
    points = np.full((68, 2), 20, np.float32)
    points[0:17] = [[x, 200] for x in np.linspace(40, 200, 17)]
    grey = Image.new("RGB", (256, 256), (0, 0, 0))
    drawn = np.asarray(Image.open(io.BytesIO(contact_sheet.draw(grey, points))))
    assert drawn.shape == (128, 128, 3)
    assert drawn[100, 60].min() > 150 and drawn[80, 60].max() < 40


DAMAGES = {
    "cut": lambda tar, at, size: tar[:at],
    "zeros": lambda tar, at, size: tar[:at] + bytes(size) + tar[at + size :],
    "pickle": lambda tar, at, size: tar[:at] + b"\x80\x04N." + tar[at + 4 :],
    "zip": lambda tar, at, size: tar[:at] + b"PK\x03\x04" + tar[at + 4 :],
    "shifted": lambda tar, at, size: tar[:at] + bytes(512) + tar[at:],
}


@pytest.mark.parametrize("member", ["landmarks", "frame"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_tar_is_one_line(tmp_path, capsys, member, damage):
    params = make_params(tmp_path)
    build_run(params, people=1)
    row = manifest.read(params.paths.manifest("shard")).to_pylist()[0]
    at, size = row["landmarks_offset"], row["landmarks_size"]
    if member == "frame":  # the one that is shown
        at, size = row["frame_offsets"][1], row["frame_sizes"][1]
    path = Path(tar_url(params, row["shard"]))
    path.write_bytes(DAMAGES[damage](path.read_bytes(), at, size))
    assert card.main(["--params", str(tmp_path / "params.yaml")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"likeness: {path} does not hold what the index says: `python -m pipelines.verify`, then "
        "run the shard stage again"
    )
