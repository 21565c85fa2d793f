"""The six "people" of the sample corpus, made from two photographs that installed packages carry.

Likeness ships no picture of its own. scikit-image bundles the portrait of the astronaut Eileen
Collins and matplotlib that of Rear Admiral Grace Hopper: both official US government portraits,
in the public domain. Three people are drawn from each by mirroring, stretching and reshaping the
face and by recolouring hair, skin, clothes and backdrop. They are six distinct-looking heads for
exercising a pipeline, not six human beings, and say nothing about either woman.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from pipelines.sample.keypoints import FACES, OUTLINES, Eye, Face, Point

WIDTH, HEIGHT = 640, 360
_CHUNK = 8192  # pixels that stay in the cache while they are mixed

Rgb = tuple[int, int, int]
Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Look:
    """How a person of the corpus differs from the photograph it is made from."""

    person: str
    gender: str
    split: str
    photograph: str
    backdrop: tuple[Rgb, Rgb]
    """Colours at the top left and the bottom right."""
    mirror: bool = False
    stretch: float = 1.0
    """Width over height."""
    jaw: float = 0.0
    """Wider (positive) or narrower lower face, as a share."""
    eyes: float = 0.0
    """Larger or smaller eyes, as a share."""
    nose: float = 0.0
    hair: Rgb | None = None
    skin: tuple[float, float, float] = (1.0, 1.0, 1.0)
    clothes: int = 0
    """Turn of the hue, 0 to 255."""
    lift: int = 0
    """Brightness added to the clothes."""
    pitch_hz: float = 180.0


PEOPLE = (
    Look("id99001", "f", "dev", "astronaut", ((196, 205, 214), (92, 104, 122))),
    Look("id99002", "f", "dev", "hopper", ((126, 160, 205), (58, 92, 150)), pitch_hz=165),
    Look(
        "id99003", "f", "dev", "astronaut", ((70, 84, 72), (28, 36, 32)),
        mirror=True, stretch=0.9, jaw=-0.08, eyes=0.10, nose=-0.06, hair=(58, 42, 36),
        skin=(0.80, 0.70, 0.62), clothes=110, pitch_hz=205,
    ),
    Look(
        "id99004", "m", "dev", "hopper", ((205, 190, 160), (138, 112, 84)),
        mirror=True, stretch=1.08, jaw=0.10, eyes=-0.08, nose=0.10,
        skin=(0.92, 0.80, 0.68), clothes=96, lift=48, pitch_hz=120,
    ),
    Look(
        "id99005", "m", "dev", "astronaut", ((176, 120, 92), (84, 44, 40)),
        stretch=1.1, jaw=0.16, eyes=-0.10, nose=0.16, hair=(168, 82, 44),
        skin=(1.0, 0.90, 0.84), clothes=200, pitch_hz=110,
    ),
    Look(
        "id99006", "f", "test", "hopper", ((150, 132, 170), (66, 52, 92)),
        stretch=0.9, jaw=-0.08, eyes=0.12, nose=-0.10,
        skin=(0.97, 0.93, 0.98), clothes=40, lift=84, pitch_hz=220,
    ),
)  # fmt: skip


def photograph(name: str) -> Image.Image:
    """Open a bundled photograph; ImportError if its package is absent. Downloads nothing."""
    if name == "hopper":
        from matplotlib import cbook

        path = cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
        return Image.open(path).convert("RGB")
    from skimage import data

    return Image.fromarray(getattr(data, name)()).convert("RGB")


def layout(look: Look, size: float, at: Point) -> Face:
    """The key points of a person set into the frame.

    `size` is the height of the face in pixels, `at` the place of its centre in the frame, as
    fractions.
    """
    source = FACES[look.photograph]
    wide, high = _scale(look, size)
    x0, y0 = at[0] * WIDTH, at[1] * HEIGHT

    def place(point: Point) -> Point:
        return (
            x0 + (point[0] - source.centre[0]) * wide,
            y0 + (point[1] - source.centre[1]) * high,
        )

    def place_eye(eye: Eye) -> Eye:
        left, right = sorted((place(eye.left), place(eye.right)))
        return Eye(left, right, eye.half_height * high * (1 + look.eyes))

    left, right = sorted((place(source.mouth[0]), place(source.mouth[2])))
    return Face(
        centre=(x0, y0),
        size=size,
        eyes=(place_eye(source.eyes[0]), place_eye(source.eyes[1])),
        mouth=(left, place(source.mouth[1]), right),
        chin=place(source.chin),
        shows_teeth=source.shows_teeth,
    )


def still(look: Look, face: Face) -> tuple[Pixels, Pixels]:
    """A person drawn where `layout` put the face: premultiplied RGBA figure, RGB backdrop."""
    source = FACES[look.photograph]
    picture = _recolour(photograph(look.photograph), source, look)
    wide, high = _scale(look, face.size)
    inverse = (
        1 / wide, 0.0, source.centre[0] - face.centre[0] / wide,
        0.0, 1 / high, source.centre[1] - face.centre[1] / high,
    )  # fmt: skip
    figure = picture.transform(
        (WIDTH, HEIGHT), Image.Transform.AFFINE, inverse, Image.Resampling.BICUBIC
    )
    return _reshape(np.asarray(figure), face, look), _backdrop(*look.backdrop)


def _scale(look: Look, size: float) -> tuple[float, float]:
    high = size / FACES[look.photograph].size
    return high * look.stretch * (-1 if look.mirror else 1), high


def _recolour(picture: Image.Image, face: Face, look: Look) -> Image.Image:
    """Tint hair, skin and clothes by where they lie around the face; cut out the background."""
    rgb = np.asarray(picture).astype(np.float32)
    y, x = np.mgrid[0 : picture.height, 0 : picture.width].astype(np.float32)
    u, v = (x - face.centre[0]) / face.size, (y - face.centre[1]) / face.size
    inner = _fade(np.hypot(u / 0.46, v / 0.53), 0.85, 1.1)
    head = _fade(np.hypot(u / 0.80, (v + 0.25) / 0.86), 0.9, 1.05) * _fade(v, 0.36, 0.5)
    grey = rgb.mean(axis=2)
    throat = _fade(np.abs(u), 0.42, 0.5) * _fade(v, 0.85, 0.95) * (1 - _fade(v, 0.1, 0.2))
    # On the throat, skin is what is redder than a collar and not dark.
    skin = np.maximum(
        inner, throat * _fade(rgb[..., 2] - rgb[..., 0], -45, -12) * _fade(-grey, -95, -125)
    )
    hair = head * (1 - skin)
    dark = _fade(grey, 50, 90)
    hat = hair * dark * _fade(v, -0.2, -0.1) * (look.photograph == "hopper")
    collar = dark * (1 - _fade(np.abs(u), 0.22, 0.34))
    body = (1 - np.maximum(inner, throat * (1 - collar))) * (1 - head)
    clothes = np.maximum(body, hat)

    hsv = np.asarray(picture.convert("HSV")).copy()
    hsv[..., 0] += np.uint8(look.clothes)  # hues wrap around, as uint8 does
    turned = np.asarray(Image.fromarray(hsv, "HSV").convert("RGB")).astype(np.float32)
    tint = np.array(_hue(look.clothes), np.float32)
    turned += look.lift * tint * np.clip(1 - grey / 160, 0, 1)[..., None]
    rgb += clothes[..., None] * (turned - rgb)

    if look.hair:
        dyed = np.array(look.hair, np.float32) * (grey / 120 + 0.15)[..., None]
        rgb += (hair * 0.85)[..., None] * (dyed - rgb)
    rgb *= 1 + skin[..., None] * (np.array(look.skin, np.float32) - 1)

    mask = Image.new("L", picture.size)
    ImageDraw.Draw(mask).polygon(OUTLINES[look.photograph], fill=255)
    alpha = np.asarray(mask.filter(ImageFilter.GaussianBlur(face.size / 110)))
    # Premultiplied, so that no trace of the old background bleeds into resampled edges.
    premultiplied = np.clip(rgb, 0, 255) * (alpha[..., None] / np.float32(255))
    return Image.fromarray(np.dstack([premultiplied.astype(np.uint8), alpha]), "RGBA")


def _reshape(figure: Pixels, face: Face, look: Look) -> Pixels:
    """Change the proportions of eyes, nose and jaw by smooth local magnification."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    dx, dy = np.zeros_like(x), np.zeros_like(y)
    for eye in face.eyes:
        cx, cy = (eye.left[0] + eye.right[0]) / 2, (eye.left[1] + eye.right[1]) / 2
        bump = look.eyes * _bump(x - cx, y - cy, 0.13 * face.size)
        dx += bump * (x - cx)
        dy += bump * (y - cy)
    nose_y = 0.4 * face.eyes[0].left[1] + 0.6 * face.mouth[0][1]
    bump = look.nose * _bump(x - face.centre[0], y - nose_y, 0.12 * face.size)
    dx += bump * (x - face.centre[0])
    dy += 0.5 * bump * (y - nose_y)
    dx += (
        look.jaw
        * _bump((x - face.chin[0]) / 1.6, y - face.mouth[1][1], 0.26 * face.size)
        * (x - face.chin[0])
    )
    return sample(figure, x - dx, y - dy)


def sample(picture: Pixels, x: Floats, y: Floats) -> Pixels:
    """Read an RGBA picture at fractional places, bilinearly; beyond the edge, the edge."""
    height, width = picture.shape[:2]
    # Four bytes as one integer: a quarter of the gathers.
    flat = np.ascontiguousarray(picture).view(np.uint32).ravel()
    out = np.empty((x.size, 4), np.uint8)
    xs, ys = x.ravel(), y.ravel()
    for start in range(0, x.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        px = np.clip(xs[part], 0, width - 1.001)
        py = np.clip(ys[part], 0, height - 1.001)
        column, row = px.astype(np.int32), py.astype(np.int32)
        # In place, for float32 less int32 would be float64.
        px -= column.astype(np.float32)
        py -= row.astype(np.float32)
        right, down = px[:, None], py[:, None]
        index = row * width + column
        upper = _mix(_bytes(flat, index), _bytes(flat, index + 1), right)
        index += width
        lower = _mix(_bytes(flat, index), _bytes(flat, index + 1), right)
        out[part] = _mix(upper, lower, down) + np.float32(0.5)
    return out.reshape(*x.shape, 4)


def _bytes(flat: npt.NDArray[np.uint32], index: npt.NDArray[np.int32]) -> Floats:
    pixels: Floats = flat.take(index)[:, None].view(np.uint8).astype(np.float32)
    return pixels


def _mix(a: Floats, b: Floats, share: Floats) -> Floats:
    b -= a
    b *= share
    b += a
    return b


def _backdrop(light: Rgb, dark: Rgb) -> Pixels:
    """A studio wall: a gradient with soft, fixed blotches, so that it is not flat to a codec."""
    noise = np.random.default_rng(7).integers(0, 255, (9, 16), dtype=np.uint8)
    wall = Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    blotches = np.asarray(wall).astype(np.float32)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    along = (x / WIDTH + y / HEIGHT) / 2 + (blotches - 128) / 1500
    colours = np.array(light) + along[..., None] * (np.array(dark) - np.array(light))
    wall_rgb: Pixels = np.clip(colours, 0, 255).astype(np.uint8)
    return wall_rgb


def _hue(turn: int) -> Rgb:
    r, g, b = Image.new("HSV", (1, 1), (turn, 150, 255)).convert("RGB").tobytes()
    return r / 255, g / 255, b / 255  # type: ignore[return-value]


def _bump(dx: Floats, dy: Floats, radius: float) -> Floats:
    return np.exp(-(dx * dx + dy * dy) / np.float32(2 * radius * radius))


def _fade(value: Floats, start: float, end: float) -> Floats:
    """1 below `start`, 0 above `end`, smooth between."""
    t = np.clip((end - value) / (end - start), 0, 1)
    result: Floats = t * t * (3 - 2 * t)
    return result
