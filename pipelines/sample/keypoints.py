"""Where the faces are in the two photographs: constants, so that a build needs no detector."""

from __future__ import annotations

from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True)
class Eye:
    """The corners of one eye and half its height."""

    left: Point
    right: Point
    half_height: float


@dataclass(frozen=True)
class Face:
    """Key points of one face, in pixels of the picture it belongs to."""

    centre: Point
    size: float
    """From the hair line to the chin."""
    eyes: tuple[Eye, Eye]
    mouth: tuple[Point, Point, Point]
    """The line along which the lips part: left corner, middle, right corner."""
    chin: Point
    shows_teeth: bool


# Read off once, by eye over the output of a face mesh.
FACES = {
    "astronaut": Face(
        centre=(225.0, 124.0),
        size=103.0,
        eyes=(
            Eye((194.0, 100.6), (213.8, 102.6), 3.7),
            Eye((237.4, 103.8), (257.0, 103.2), 3.7),
        ),
        mouth=((204.6, 140.2), (223.2, 149.4), (243.0, 142.5)),
        chin=(221.3, 175.5),
        shows_teeth=True,
    ),
    "hopper": Face(
        centre=(266.0, 232.0),
        size=202.0,
        eyes=(
            Eye((203.0, 191.5), (240.0, 190.0), 5.2),
            Eye((288.3, 188.0), (325.0, 186.0), 5.2),
        ),
        mouth=((236.7, 276.0), (268.7, 278.4), (300.3, 273.3)),
        chin=(271.3, 333.0),
        shows_teeth=False,
    ),
}

# Head and body against the background, clockwise from the left of the hair or hat.
OUTLINES: dict[str, list[Point]] = {
    "astronaut": [
        (0, 511), (0, 413), (9, 407), (19, 390), (26, 342), (45, 280), (65, 246), (91, 226),
        (116, 200), (124, 177), (139, 159), (157, 150), (180, 148), (184, 146), (183, 134),
        (173, 125), (168, 115), (157, 101), (154, 68), (158, 57), (163, 52), (186, 38), (201, 24),
        (227, 17), (248, 19), (273, 31), (287, 44), (294, 56), (298, 72), (298, 96), (289, 116),
        (272, 134), (265, 138), (263, 149), (256, 162), (255, 171), (289, 203), (299, 219),
        (303, 232), (331, 253), (341, 264), (352, 287), (364, 345), (418, 345), (477, 383),
        (500, 460), (511, 511),
    ],
    "hopper": [
        (11, 599), (17, 526), (27, 459), (27, 434), (24, 421), (38, 410), (46, 389), (60, 380),
        (81, 368), (97, 363), (121, 360), (132, 354), (167, 343), (183, 333), (197, 318),
        (196, 306), (180, 300), (168, 290), (161, 272), (160, 245), (157, 222), (154, 205),
        (153, 190), (149, 165), (147, 135), (148, 110), (154, 106), (176, 83), (180, 66),
        (196, 51), (210, 44), (219, 32), (238, 26), (253, 24), (280, 28), (299, 42), (315, 46),
        (335, 57), (345, 68), (351, 83), (362, 88), (368, 103), (368, 129), (370, 134),
        (366, 179), (373, 188), (374, 196), (369, 211), (369, 222), (361, 258), (358, 282),
        (345, 298), (331, 306), (329, 311), (337, 322), (363, 342), (422, 367), (461, 377),
        (488, 391), (493, 396), (511, 444), (511, 599),
    ],
}  # fmt: skip
