"""Scene cuts: made ones, a flash, and those of a real video."""

from fractions import Fraction

import numpy as np
from videos import SIDE, cut, write

from pipelines.params.dataset import Crop
from pipelines.statuses import Status
from pipelines.video import ClipSpec, CropSettings
from pipelines.video.scenes import scene_score

THRESHOLD = Crop().scene_threshold


def test_a_cut_is_found_and_a_flash_is_not(tmp_path):
    rng = np.random.default_rng(1)
    scenes = [
        np.kron(rng.integers(30, 220, (8, 8), np.uint8), np.ones((8, 8), np.uint8))
        for _ in range(2)
    ]

    def draw(number: int) -> np.ndarray:
        if number in (20, 21):
            return np.full((SIDE, SIDE), 235, np.uint8)
        return np.roll(scenes[number >= 60], number // 8, axis=1)

    source = write(tmp_path / "a.mp4", list(range(90)), Fraction(1, 25), draw=draw)
    settings = CropSettings(size=SIDE, preset="ultrafast")
    clips = [ClipSpec("flash", 0, 50), ClipSpec("cut", 40, 40)]
    results = cut(source, clips, tmp_path, settings)
    assert {result.status for result in results.values()} == {Status.OK}
    assert results["flash"].scene_score < THRESHOLD < results["cut"].scene_score
    assert results["cut"].scene_at == 2.4


def test_the_cuts_of_a_real_video(corpus, tmp_path):
    """A recording with three annotated clips, two of which run across a change of camera."""
    trees = corpus.glob("metadata/voxceleb2/txt/*/C1_0*/*.txt")
    clips = []
    for file in sorted(trees):
        rows = [line.split() for line in file.read_text().splitlines() if line[:1].isdigit()]
        boxes = np.array([row[1:5] for row in rows], np.float32)
        clips.append(ClipSpec(file.stem, int(rows[0][0]), len(rows), boxes=boxes))
    (video,) = corpus.glob("videos/C1_0*")
    results = cut(video, clips, tmp_path, CropSettings())
    assert {result.status for result in results.values()} == {Status.OK}
    assert (results["00001"].scene_at, results["00002"].scene_at) == (1.52, 7.88)
    assert min(results[key].scene_score for key in ("00001", "00002")) > 0.8 > THRESHOLD
    assert results["00003"].scene_score < 0.1


def test_nothing_to_compare_is_no_cut():
    assert scene_score(np.zeros((1, 256), np.float32)) == (0.0, 0)
    assert scene_score(np.full((50, 256), 90, np.float32))[0] == 0.0
