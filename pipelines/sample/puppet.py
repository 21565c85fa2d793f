"""Makes a still portrait talk: smooth warps for head, jaw and eyelids, and a voice to match.

Every motion is a function of time in seconds, so a frame rate only chooses when to look, and the
annotated box at k/25 s is exact whatever the video's own rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from pipelines.sample.keypoints import Eye, Face
from pipelines.sample.portraits import HEIGHT, WIDTH, Floats, Pixels, sample

AUDIO_RATE = 44_100
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Pose:
    """Where the head is and what the face does at one moment."""

    dx: float
    dy: float
    roll: float
    """Radians."""
    zoom: float
    yaw: float
    """Shift of the nose tip against the head's outline, as a share of the face's size."""
    pitch: float
    mouth: float
    """0 shut, 1 wide open."""
    lids: float
    """0 open, 1 shut."""


@dataclass(frozen=True)
class Performance:
    """A seeded, smooth script of motion; the mouth moves only while somebody speaks."""

    speech: tuple[tuple[float, float], ...]
    """Intervals of speech, in seconds."""
    phases: npt.NDArray[np.float64]
    size: float

    @classmethod
    def seeded(
        cls, rng: np.random.Generator, speech: Sequence[tuple[float, float]], size: float
    ) -> Performance:
        """Draw the phases and paces of one video's motion."""
        return cls(tuple(speech), rng.uniform(0, 1, 16), size)

    def pose(self, t: float) -> Pose:
        """The pose at `t` seconds."""
        p = self.phases * 2 * np.pi

        def sway(i: int, hertz: float) -> float:
            pace = hertz * (0.8 + 0.4 * self.phases[i + 1])
            return float(
                0.7 * np.sin(2 * np.pi * pace * t + p[i])
                + 0.3 * np.sin(2 * np.pi * 2.3 * pace * t + p[i + 1])
            )

        # Half a blink-free second, then a blink every two to three seconds.
        period = 2.0 + self.phases[14]
        since = (t + self.phases[15] * 1.5) % period - (period - 0.4)
        return Pose(
            dx=0.055 * self.size * sway(0, 0.30),
            dy=0.030 * self.size * sway(2, 0.42),
            roll=0.065 * sway(4, 0.27),
            zoom=1 + 0.025 * sway(6, 0.22),
            yaw=0.050 * sway(8, 0.33),
            pitch=0.032 * sway(10, 0.45),
            mouth=float(self.mouth(np.array([t]))[0]),
            lids=float(np.clip(1.25 - abs(since) / 0.085, 0, 1)),
        )

    def mouth(self, t: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """How far the mouth is open at each time: syllables under the envelope of speech."""
        p = self.phases * 2 * np.pi
        syllable = np.sin(2 * np.pi * 2.1 * t + p[12] + 0.8 * np.sin(2 * np.pi * 0.9 * t + p[13]))
        stress = 0.68 + 0.32 * np.sin(2 * np.pi * 0.75 * t + p[11])
        speaking = np.zeros_like(t)
        for start, end in self.speech:
            speaking += np.clip(np.minimum(t - start, end - t) / 0.12, 0, 1)
        result: npt.NDArray[np.float64] = speaking * stress * np.abs(syllable) ** 0.8
        return result

    def voice(self, seconds: float, pitch_hz: float) -> npt.NDArray[np.float32]:
        """A voice-like tone, mono, loud as the mouth is open."""
        t = np.arange(round(seconds * AUDIO_RATE)) / AUDIO_RATE
        mouth = self.mouth(t)
        glide = 1 + 0.06 * np.sin(2 * np.pi * 0.6 * t + self.phases[3] * 6)
        phase = 2 * np.pi * np.cumsum(pitch_hz * glide) / AUDIO_RATE
        tone = np.zeros_like(t)
        for k in range(1, 16):
            # Two fixed formants and one that rises as the jaw drops, as in "ah".
            f = k * pitch_hz
            first = np.exp(-(((f - 350 - 450 * mouth) / 220) ** 2))
            tone += (
                (first + 0.4 * np.exp(-(((f - 1400) / 350) ** 2)) + 0.08)
                / k**0.5
                * np.sin(k * phase)
            )
        return (0.16 * mouth * tone).astype(np.float32)


class Puppet:
    """One person in one frame, ready to be drawn in any pose."""

    def __init__(self, figure: Pixels, backdrop: Pixels, face: Face) -> None:
        self._figure, self._face = figure, face
        self._rest = _over(figure, backdrop)
        y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
        u, v = (x - face.centre[0]) / face.size, (y - face.centre[1]) / face.size
        radius = np.hypot(u / 0.78, np.where(v < 0, v / 1.15, v / 0.68))
        t = np.clip((1.5 - radius) / 0.65, 0, 1)
        # Only what the figure can reach when it moves is drawn anew in each frame.
        near = Image.fromarray(figure[..., 3]).filter(ImageFilter.BoxBlur(26))
        drawn = (np.asarray(near) > 0) & (t > 0)
        self._drawn = np.flatnonzero(drawn)
        self._backdrop = backdrop[drawn]
        self._x, self._y = x[drawn], y[drawn]
        self._follows = (t * t * (3 - 2 * t))[drawn]
        # Depth of an egg-shaped head: what turns most when the head turns.
        egg = np.clip(1 - (u / 0.56) ** 2 - ((v + 0.02) / 0.66) ** 2, 0, 1)
        self._depth = (egg * egg * (3 - 2 * egg) * face.size)[drawn]
        u, v = u[drawn], v[drawn]
        self._lower = np.flatnonzero((np.abs(u) < 0.75) & (v > -0.15) & (v < 0.95))
        self._upper = np.flatnonzero((np.abs(u) < 0.65) & (v > -0.6) & (v < 0.2))
        self._lips = _Lips(face)
        self._lids = [_Lids(eye, face.size) for eye in face.eyes]

    def draw(self, pose: Pose) -> Pixels:
        """The frame, RGB, in this pose."""
        # Where does each pixel of the frame come from? From the outside in: head, turn, face.
        cos, sin = math.cos(pose.roll) / pose.zoom, math.sin(pose.roll) / pose.zoom
        px, py = _pivot(self._face)
        ox, oy = self._x - (px + pose.dx), self._y - (py + pose.dy)
        x = self._x + self._follows * (px + cos * ox + sin * oy - self._x)
        y = self._y + self._follows * (py - sin * ox + cos * oy - self._y)
        x -= pose.yaw * self._depth
        y -= pose.pitch * self._depth

        y[self._lower], colour, share = self._lips.part(x[self._lower], y[self._lower], pose.mouth)
        if pose.lids > 0:
            for lids in self._lids:
                y[self._upper] = lids.shut(x[self._upper], y[self._upper], pose.lids)
        patch = sample(self._figure, x, y)
        skin = patch[self._lower, :3].astype(np.float32)
        patch[self._lower, :3] = skin + share[:, None] * (colour - skin) + 0.5

        frame = self._rest.copy()
        frame.reshape(-1, 3)[self._drawn] = _over(patch, self._backdrop)
        return frame


def face_box(face: Face, pose: Pose) -> Box:
    """The face's box, tight and square as VoxCeleb's: x, y, w, h in fractions of the frame."""
    side = 0.98 * face.size * pose.zoom
    px, py = _pivot(face)
    cos, sin = math.cos(pose.roll) * pose.zoom, math.sin(pose.roll) * pose.zoom
    rx, ry = face.centre[0] - px, face.centre[1] - py
    x = px + pose.dx + cos * rx - sin * ry + 0.3 * pose.yaw * face.size
    # An open mouth lowers the chin.
    y = py + pose.dy + sin * rx + cos * ry + (0.3 * pose.pitch + 0.03 * pose.mouth) * face.size
    return (x - side / 2) / WIDTH, (y - side / 2) / HEIGHT, side / WIDTH, side / HEIGHT


def _pivot(face: Face) -> tuple[float, float]:
    """A head turns about the neck, a little below the chin."""
    return face.chin[0], face.chin[1] + 0.15 * face.size


class _Lips:
    """Parts the lips along their line: the chin drops, a dark cavity shows between."""

    def __init__(self, face: Face) -> None:
        (x0, y0), (xm, ym), (x1, y1) = face.mouth
        self._middle, self._half = (x0 + x1) / 2, (x1 - x0) / 2
        self._line = [float(c) for c in np.polyfit([x0, xm, x1], [y0, ym, y1], 2)]
        self._size, self._teeth = face.size, face.shows_teeth
        self._drop = 0.115 * face.size

    def part(self, x: Floats, y: Floats, mouth: float) -> tuple[Floats, Floats, Floats]:
        """New rows for the sources `x`, `y` of the lower face; the cavity's colour and share."""
        across = (x - self._middle) / self._half
        within = np.clip(x, self._middle - self._half, self._middle + self._half)
        line = (self._line[0] * within + self._line[1]) * within + self._line[2]
        arch = np.sqrt(np.clip(1 - across * across, 0, 1))
        gap = self._drop * mouth * arch * np.sqrt(arch)
        below = y - line
        under = below - gap
        # At the lip the jaw drops by the gap, at the chin by a broad bump, at the throat not.
        chin = 0.8 * self._drop * mouth * np.exp(-((across / 1.5) ** 2))
        near = np.exp(-np.clip(under, 0, None) / np.float32(0.07 * self._size))
        far = np.clip(1 - (under / self._size - 0.17) / 0.38, 0, 1)
        shift = (near * gap + (1 - near) * chin) * far * far * (3 - 2 * far)
        above = np.clip(-below / np.float32(0.10 * self._size), 0, 1)
        lift = 0.10 * gap * (1 - above) ** 2
        y = y - np.where(under > 0, shift, np.where(below > 0, below, -lift))

        share = np.clip(np.minimum(below + 0.5, 0.5 - under), 0, 1)
        share *= np.clip(gap / 1.5, 0, 1)
        depth = np.clip(below / np.maximum(gap, 1), 0, 1)[..., None]
        tongue = np.clip((depth - 0.45) / 0.5, 0, 1) * np.clip(1 - across * across, 0, 1)[..., None]
        colour = np.array((38, 14, 14), np.float32) + tongue * np.array((92, 34, 34), np.float32)
        if not self._teeth:
            # Upper teeth show under the lip as soon as the gap has room for them.
            tall = 0.030 * self._size
            teeth = np.clip(tall - below, 0, 1) * np.clip((0.72 - np.abs(across)) / 0.12, 0, 1)
            teeth *= np.clip(gap / tall - 0.6, 0, 1)
            colour = colour + teeth[..., None] * (np.array((206, 192, 176), np.float32) - colour)
        return y, colour, share


class _Lids:
    """Draws the upper lid down over one eye by stretching the skin above it."""

    def __init__(self, eye: Eye, size: float) -> None:
        (x0, y0), (x1, y1) = eye.left, eye.right
        self._middle, self._half = (x0 + x1) / 2, (x1 - x0) / 2
        self._y0, self._slope = (y0 + y1) / 2, (y1 - y0) / (x1 - x0)
        self._tall, self._skin = eye.half_height, 0.075 * size

    def shut(self, x: Floats, y: Floats, lids: float) -> Floats:
        """New rows for the sources `x`, `y` around the eye."""
        across = (x - self._middle) / self._half
        half = self._tall * np.clip(1.15 - across * across, 0, 1)
        centre = self._y0 + self._slope * (x - self._middle)
        top, bottom, brow = centre - half, centre + half, centre - half - self._skin
        edge = top + 0.86 * lids * (bottom - top)
        skin = brow + (y - brow) * (top - brow) / (edge - brow)
        ball = bottom - (bottom - y) * (bottom - top) / np.maximum(bottom - edge, 1e-3)
        moved: Floats = np.where(y < edge, skin, ball)
        return np.where((y > brow) & (y < bottom), moved, y)


def _over(figure: Pixels, backdrop: Pixels) -> Pixels:
    clear = (255 - figure[..., 3:]).astype(np.uint16)
    clear += clear >> 7  # 0..256, to shift where one would divide
    # A dark backdrop pixel may round up by one against a full colour: 255 is not passed.
    return np.minimum(figure[..., :3] + (backdrop * clear >> 8), 255).astype(np.uint8)
