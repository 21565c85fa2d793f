"""Looks for many names at once in any bytes: some 300 MB a CPU second, however many there are.

Each name is found by its last four bytes, as two 16-bit words in two tables of 65,536 flags,
and then compared in full. A name of less than `STRONG` bytes would turn up in pictures by
chance; such names are looked for where tables and tars say what a text means (`contents.py`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from mmap import mmap

import numpy as np

STRONG = 6
"""Bytes: by chance, six come up once in hundreds of terabytes."""
_CHUNK = 1 << 22
_TAIL = 4


class Names:
    """Names to look for, each with the label that a find is reported by.

    excused: longer identifiers of those who stay; a name inside one of them is no find.
    """

    def __init__(self, labels: Mapping[str, str], excused: Iterable[str] = ()) -> None:
        self.labels = {name.encode(): label for name, label in labels.items()}
        self.strong = sorted(name for name in self.labels if len(name) >= STRONG)
        self._by_tail: dict[int, list[bytes]] = defaultdict(list)
        self._longer: dict[bytes, list[tuple[int, bytes]]] = defaultdict(list)
        for name in self.strong:
            self._by_tail[int.from_bytes(name[-_TAIL:], "little")].append(name)
        whole = "\n".join(excused).encode()
        for name in self.strong:
            if name in whole:
                for other in whole.split(b"\n"):
                    if name != other and (at := other.find(name)) >= 0:
                        self._longer[name].append((at, other))
        self._low, self._high = np.zeros(1 << 16, np.bool_), np.zeros(1 << 16, np.bool_)
        for tail in self._by_tail:
            self._low[tail & 0xFFFF] = self._high[tail >> 16] = True

    def find(self, data: bytes | mmap) -> str | None:
        """The label of a strong name that occurs in the bytes."""
        if not self.strong:
            return None
        for start in range(0, len(data), _CHUNK):
            # Three bytes over the edge, so that no tail is cut in two.
            size = min(_CHUNK + _TAIL - 1, len(data) - start)
            for shift in (0, 1):
                pairs = (size - shift) // 2
                if pairs < 2:
                    continue
                words = np.frombuffer(data, "<u2", pairs, start + shift)
                hits = np.flatnonzero(self._low[words[:-1]])
                hits = hits[self._high[words[hits + 1]]]
                for hit in hits.tolist():
                    if label := self._at(data, start + shift + 2 * hit):
                        return label
        return None

    def _at(self, data: bytes | mmap, at: int) -> str | None:
        tail = int.from_bytes(data[at : at + _TAIL], "little")
        for name in self._by_tail.get(tail, ()):
            begin = at + _TAIL - len(name)
            if begin < 0 or data[begin : begin + len(name)] != name:
                continue
            if not any(
                begin >= into and data[begin - into : begin - into + len(other)] == other
                for into, other in self._longer.get(name, ())
            ):
                return self.labels[name]
        return None
