"""Cut clips out of a video: one sequential decode, frame-true, for all the clips of a video.

The bytes of a clip depend on its source and settings alone. Encoders are single-threaded and
stamp no dates; every clip has its own encoder and audio decoder, so neither its neighbours in
the same decode nor a seek leave a trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path

from pipelines.video.cutting import ClipCutter
from pipelines.video.frames import FrameReader
from pipelines.video.grid import FrameTimes, locate
from pipelines.video.types import ClipResult, ClipSpec, CropSettings


def crop_clips(
    path: str | Path,
    clips: Sequence[ClipSpec],
    settings: CropSettings,
    open_output: Callable[[str], Path],
) -> Iterator[ClipResult]:
    """Cut every clip of a video; one result each, in the order in which they end.

    `open_output(key)` names the file to write, asked once per clip that succeeds. The file
    appears when it is whole; a clip that fails leaves none and harms no other. Raises MediaError
    where the video does not open, OSError where a clip cannot be written.
    """
    with closing(FrameReader(path)) as reader:
        times = cache(lambda: FrameTimes.of(path))
        waiting: list[ClipCutter] = []
        for spec in clips:
            span = locate(spec.first_frame, spec.frames, spec.fps, spec.segment_start, times)
            clip = ClipCutter(spec, span, settings, reader)
            if clip.verdict:
                yield clip.finish(open_output)
            else:
                waiting.append(clip)
        waiting.sort(key=lambda clip: (clip.first, clip.stop, clip.spec.key), reverse=True)

        live: list[ClipCutter] = []
        while waiting or live:
            if not live:
                reader.wanted = waiting[-1].first
            shown = reader.read()
            if shown is None:
                break
            while waiting and waiting[-1].first < shown.stop:
                live.append(waiting.pop())
            for clip in list(live):
                clip.show(shown)
                if clip.done:
                    live.remove(clip)
                    yield clip.finish(open_output)
        for clip in live + waiting[::-1]:
            clip.end(reader.end, reader.damage)
            yield clip.finish(open_output)
