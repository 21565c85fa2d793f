"""Who and which frames: disjoint, spread, the same again, and nobody lost without a word."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.errors import UserError
from pipelines.params.training import Evaluate
from training.evaluation.protocol import RUN, apart, choose, from_json, runs, spread, to_json
from training.index import VideoKey

SHOTS, HOLDOUT = (1, 3, 6), 4


class Index:
    """Videos of clips of six stored frames each, every third of the clip's."""

    def __init__(
        self, videos: dict[tuple[str, str], int], sources: tuple[str, ...] = ("vox",)
    ) -> None:
        self.videos = [VideoKey(source, *name) for source in sources for name in sorted(videos)]
        sizes = [videos[v.person, v.video] for v in self.videos]
        clips = [[6] * (n // 6) + [n % 6] * (n % 6 > 0) for n in sizes]
        self.first_clip = np.append(0, np.cumsum([len(c) for c in clips]))
        lengths = [n for c in clips for n in c]
        self.first_frame = np.append(0, np.cumsum(lengths))
        self.numbers = np.concatenate([3 * np.arange(n) for n in lengths])
        names = [
            f"{v.person}_{v.video}_{i}"
            for v, c in zip(self.videos, clips, strict=True)
            for i in range(len(c))
        ]
        self.keys = pa.array(names)

    def frames_of(self, video: int) -> range:
        first, last = self.first_clip[video], self.first_clip[video + 1]
        return range(int(self.first_frame[first]), int(self.first_frame[last]))

    def clip_of(self, frame: int) -> int:
        return int(np.searchsorted(self.first_frame, frame, "right")) - 1


VIDEOS = {
    ("a", "x"): 20, ("a", "y"): 12, ("b", "x"): 10, ("c", "x"): 8, ("c", "z"): 8,
    ("d", "x"): 4, ("e", "x"): 14,
}  # fmt: skip


def settings(**given: Any) -> Evaluate:
    return Evaluate.model_validate({"shots": SHOTS, "holdout": HOLDOUT, "people": 50, **given})


def chosen(
    videos: dict[tuple[str, str], int],
    faceless: set[int] = frozenset(),
    sources: tuple[str, ...] = ("vox",),
    **given: Any,
):
    index = Index(videos, sources)

    def points(frame: int) -> np.ndarray:
        return np.full((68, 2), np.nan if frame in faceless else 1.0, np.float32)

    return index, choose(index, points, settings(**given), "test")


def test_sources_and_holdout_are_disjoint_spread_and_nested():
    index, protocol = chosen(VIDEOS)
    for part in protocol.parts:
        video = set(index.frames_of(index.videos.index(part.video)))
        assert len(part.holdout) == HOLDOUT and list(part.holdout) == sorted(part.holdout)
        for shots, frames in part.sources.items():
            assert len(set(frames)) == len(frames) == shots
            assert not set(frames) & set(part.holdout) and set(frames) <= video
            assert set(frames) <= set(part.sources[max(part.sources)])
            assert list(frames) == sorted(frames)
        assert set(part.others) <= video - set(part.holdout) and part.others
        assert np.diff(part.holdout).tolist() == [1] * (RUN - 1), "no neighbours for jitter"
    assert apart(protocol, index) == 3, "every third frame of a clip is stored"
    _, widely = chosen({("a", "x"): 100}, holdout=16)
    held = np.array(widely.parts[0].holdout).reshape(-1, RUN)
    assert (np.diff(held, axis=1) == 1).all()
    assert np.diff([0, *held[:, 0], 100]).max() <= 100 / 4 + RUN, "not over the whole video"


def test_the_video_with_most_faces_is_taken():
    _, protocol = chosen(VIDEOS)
    assert {p.video.person: p.video.video for p in protocol.parts}["a"] == "x"
    faceless = set(range(12))  # of a/x, which comes first: 8 are left, and 12 of a/y
    _, protocol = chosen(VIDEOS, faceless)
    (part,) = (p for p in protocol.parts if p.video.person == "a")
    assert part.video.video == "y"
    _, protocol = chosen(VIDEOS, {1, 5, 9})
    (part,) = (p for p in protocol.parts if p.video.person == "a")
    assert not {1, 5, 9} & {*part.holdout, *part.sources[6], *part.others}


def test_who_has_too_few_frames_is_written_down():
    _, protocol = chosen(VIDEOS)
    left = {x.person: (x.shots, x.why) for x in protocol.left_out}
    shots = {p.video.person: tuple(p.sources) for p in protocol.parts}
    assert shots == {"a": (1, 3, 6), "b": (1, 3, 6), "c": (1, 3), "e": (1, 3, 6)}
    assert left.keys() == {"vox/c", "vox/d"}
    assert left["vox/c"][0] == (6,) and "8 stored frames of video x" in left["vox/c"][1]
    assert left["vox/d"][0] == (1, 3, 6)


def test_people_are_drawn_by_the_seed_and_their_names():
    def people(**given: Any) -> list[str]:
        return [p.video.person for p in chosen(VIDEOS, **given)[1].parts]

    assert people() == people()
    assert people(people=2) == people()[:2]
    assert {tuple(people(seed=seed)) for seed in range(6)} != {tuple(people())}
    fewer = {name: n for name, n in VIDEOS.items() if name[0] != "b"}
    rest = [p.video.person for p in chosen(fewer)[1].parts]
    assert rest == [p for p in people() if p != "b"], "others moved when one person was taken out"


def test_each_is_driven_by_another():
    _, protocol = chosen(VIDEOS)
    drivers = [part.driver for part in protocol.parts]
    assert sorted(drivers) == list(range(len(drivers)))
    assert all(driver != at for at, driver in enumerate(drivers))
    _, alone = chosen({("a", "x"): 20})
    assert alone.parts[0].driver is None


def test_study_frames_come_from_other_videos_where_there_are_any():
    index, protocol = chosen(VIDEOS)
    parts = {p.video.person: p for p in protocol.parts}
    other = set(index.frames_of(index.videos.index(VideoKey("vox", "a", "y"))))
    assert set(parts["a"].study) <= other and len(parts["a"].study) == 12
    assert set(parts["e"].study) <= set(parts["e"].others)


def test_study_frames_are_filled_up_from_the_same_video():
    videos = VIDEOS | {("a", "y"): 1}
    index, protocol = chosen(videos)
    (part,) = (p for p in protocol.parts if p.video.person == "a")
    (only,) = index.frames_of(index.videos.index(VideoKey("vox", "a", "y")))
    assert part.study == (only, *part.others) and len(part.others) == HOLDOUT
    # What is measured does not depend on the study's frames.
    _, before = chosen(VIDEOS)
    (same,) = (p for p in before.parts if p.video.person == "a")
    assert len(same.study) == 12 and set(same.study).isdisjoint(same.others)
    assert (part.sources, part.holdout) == (same.sources, same.holdout)


def test_nobody_is_an_error_that_tells_what_to_change():
    with pytest.raises(UserError, match=r"nobody in split 'test'.* 5 stored frames"):
        chosen({("d", "x"): 4})


def test_the_file_fixes_the_choice():
    index, protocol = chosen(VIDEOS)
    data = to_json(protocol, index, {"index_sha256": "abc"})
    document = json.loads(data)
    assert document["index_sha256"] == "abc"
    (a,) = (p for p in document["people"] if p["person"] == "a")
    assert a["video"] == "x" and set(a["sources"]) == {"1", "3", "6"}
    key, number = a["holdout"][0]
    assert key in a["clips"] and number % 3 == 0
    assert from_json(data, index, "frames.json") == protocol
    # Numbered by names: in another state of the dataset the same frames are found again.
    larger = Index({("0", "new"): 30, **VIDEOS})
    moved = from_json(data, larger, "frames.json")
    assert to_json(moved, larger, {"index_sha256": "abc"}) == data
    assert moved != protocol


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"people": [{"source": "vox"}]}'])
def test_a_file_that_names_no_frames_of_the_split_says_so(data):
    with pytest.raises(UserError, match=r"frames\.json does not name frames of this split"):
        from_json(data, Index(VIDEOS), "frames.json")
    index, protocol = chosen(VIDEOS)
    with pytest.raises(UserError, match=r"leave `evaluate\.frames` out"):
        from_json(to_json(protocol, index, {}), Index({("q", "x"): 30}), "frames.json")


def test_a_person_s_frames_are_theirs_where_two_sources_have_the_same_ids():
    index, protocol = chosen(VIDEOS, sources=("vox", "wax"))
    assert {p.video.source for p in protocol.parts} == {"vox", "wax"}
    data = to_json(protocol, index, {})
    assert from_json(data, index, "frames.json") == protocol
    document = json.loads(data)
    for person in document["people"]:
        person["source"], person["driver"] = "wax", None
    moved = from_json(json.dumps(document).encode(), index, "frames.json")
    for part in moved.parts:
        video = set(index.frames_of(index.videos.index(part.video)))
        assert set(part.holdout) <= video and part.video.source == "wax"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"holdout": [["c_x_0", 0]]}, "vox/a has no frame 0 of a clip c_x_0"),
        ({"others": [["a_x_0", 1]]}, "vox/a has no frame 1 of a clip a_x_0"),
        ({"video": "q"}, "there is no video vox/a/q"),
        ({"sources": {}}, "`sources` of vox/a names none"),
        ({"sources": {"0": []}}, "`sources` of vox/a for T = 0 names 0"),
        ({"sources": {"2": [["a_x_0", 0]]}}, "`sources` of vox/a for T = 2 names 1"),
        ({"holdout": []}, "`holdout` of vox/a names none"),
        ({"others": []}, "`others` of vox/a names none"),
        ({"study": []}, "`study` of vox/a names none"),
        ({"driver": "vox/q"}, "'vox/q' is not in list"),
        (None, "`people` names nobody"),
    ],
)
def test_a_file_that_lacks_what_an_evaluation_needs_says_so(change, words):
    index, protocol = chosen(VIDEOS)
    document = json.loads(to_json(protocol, index, {}))
    (a,) = (p for p in document["people"] if p["person"] == "a")
    document["people"] = [a | {"driver": None} | change] if change else []
    with pytest.raises(UserError) as caught:
        from_json(json.dumps(document).encode(), index, "old.json")
    assert str(caught.value) == (
        f"old.json does not name frames of this split: {words}; leave `evaluate.frames` out to "
        "choose anew"
    )


def test_runs_are_of_neighbours_where_there_is_room():
    assert runs(20, 8) == [4, 5, 6, 7, 12, 13, 14, 15]
    assert runs(9, 6) == [0, 1, 2, 3, 4, 5] and runs(8, 8) == list(range(8))
    assert runs(7, 6) == spread(7, 6), "no room for two runs"
    assert runs(0, 3) == []


def test_spread_covers_the_whole_range():
    assert spread(10, 1) == [5] and spread(4, 4) == [0, 1, 2, 3] and spread(3, 9) == [0, 1, 2]
    assert spread(0, 3) == []
    assert np.diff(spread(100, 7)).std() < 0.6
