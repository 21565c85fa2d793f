"""The One-Euro filter: calm where a signal is calm, quick where it is quick.

Casiez, Roussel and Vogel 2012: a low-pass filter whose cutoff frequency rises with the speed of
the signal, so that a resting point does not tremble and a moving one does not lag.
"""

from __future__ import annotations

from math import pi

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

SPEED_CUTOFF = 1.0
"""Hz, of the low-pass filter over the speed itself: the paper's."""


class OneEuro:
    """Filters arrays of one shape, each number for itself. Causal: it never waits for a frame.

    min_cutoff: Hz at rest; lower is calmer. beta: Hz for each unit a second of speed; higher
    follows fast motion more closely. The units are those of the signal.
    """

    def __init__(self, min_cutoff: float, beta: float) -> None:
        if min_cutoff <= 0 or beta < 0:
            raise ValueError("min_cutoff must be above 0, beta 0 or more")
        self.min_cutoff, self.beta = min_cutoff, beta
        self._last: tuple[Array, Array] | None = None  # the value and its speed
        self._waited = 0.0

    def __call__(self, x: npt.ArrayLike, seconds: float) -> Array:
        """The filtered value of `x`, which came `seconds` after the one before it.

        An array with a NaN among its numbers is passed over: the last value stands. Until a
        first whole one has come, what came is given back.
        """
        raw = np.asarray(x, np.float64)
        self._waited += seconds
        if not np.isfinite(raw).all():
            return raw if self._last is None else self._last[0]
        elapsed, self._waited = self._waited, 0.0
        if self._last is None:
            self._last = raw, np.zeros_like(raw)
            return raw
        value, speed = self._last
        speed = _mix(speed, (raw - value) / elapsed, SPEED_CUTOFF, elapsed)
        value = _mix(value, raw, self.min_cutoff + self.beta * np.abs(speed), elapsed)
        self._last = value, speed
        return value


def _mix(old: Array, new: Array, cutoff: float | Array, seconds: float) -> Array:
    """A first-order low-pass step of `cutoff` Hz."""
    share = 1 / (1 + 1 / (2 * pi * cutoff * seconds))
    return old + share * (new - old)
