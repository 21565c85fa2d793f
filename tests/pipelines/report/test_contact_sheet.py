"""Which clips are shown, and how their landmarks are drawn."""

import io
from collections import Counter

import numpy as np
from PIL import Image

from pipelines.report import contact_sheet


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
