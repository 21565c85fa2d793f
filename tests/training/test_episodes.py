"""Episodes: the right frames with their landmarks, whoever reads them, and clear words if not."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_shards import (
    PEOPLE,
    ROWS,
    SIDE,
    STEP,
    MakeShards,
    Shards,
    points,
    which,
)

from training import episodes as episodes_module
from training.episodes import Episode, EpisodeLoader, Episodes, collate, loader
from training.index import VideoKey
from training.meta import EpisodeBatch
from training.rasterize import rasterize
from training.sampler import EpisodeSampler


def same(one: Any, two: Any) -> bool:
    """Two episodes, or two batches, field by field."""
    pairs = [(getattr(one, f.name), getattr(two, f.name)) for f in fields(one)]
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)


def shown(episode: Episode) -> list[tuple[int, int, int]]:
    return [which(x) for x in (*episode.source, episode.target)]


def test_rows_of_w_are_the_sorted_videos(shards: Shards) -> None:
    episodes = shards.open()
    assert episodes.videos == [VideoKey("test", *name) for name in ROWS]
    assert len(episodes) == 5


def test_an_episode_has_the_fields_of_a_batch(shards: Shards) -> None:
    episode = shards.open()[0, 1]
    assert [f.name for f in fields(Episode)] == [f.name for f in fields(EpisodeBatch)]
    assert episode.source.shape == episode.source_landmarks.shape == (4, 3, SIDE, SIDE)
    assert episode.target.shape == episode.target_landmarks.shape == (3, SIDE, SIDE)
    assert {x.dtype for x in (episode.source, episode.target_landmarks)} == {np.dtype("u1")}
    assert episode.rows == 1


def test_frames_are_the_video_s_own_and_disjoint(shards: Shards) -> None:
    episodes = shards.open()
    seen: dict[int, set[tuple[int, int, int]]] = {}
    for epoch in range(15):
        for row in range(5):
            frames = shown(episodes[epoch, row])
            assert len(set(frames)) == 5
            seen.setdefault(row, set()).update(frames)
    for row, (person, video) in enumerate(ROWS):
        stored = PEOPLE[person][video]
        assert seen[row] == {(row, c, at) for c, n in enumerate(stored) for at in range(n)}


def test_every_frame_comes_with_its_own_landmarks(shards: Shards) -> None:
    episodes = shards.open()
    for row in range(5):
        episode = episodes[3, row]
        drawings = [*episode.source_landmarks, episode.target_landmarks]
        for (_, clip, at), drawing in zip(shown(episode), drawings, strict=True):
            wanted = rasterize(points(row, clip, at * STEP), SIDE, source_size=SIDE)
            assert np.array_equal(drawing.transpose(1, 2, 0), wanted)


def test_targets_are_drawn_evenly(shards: Shards) -> None:
    episodes = shards.open(k=1)
    first, *_ = frames = episodes.index.frames_of(1)
    draws = np.array([episodes.draw(epoch, 1) for epoch in range(2000)]) - first
    for column in draws.T:
        counts = np.bincount(column, minlength=len(frames))
        assert abs(counts - 200).max() < 70  # 5 standard deviations


def test_an_episode_depends_on_seed_epoch_and_video_alone(shards: Shards) -> None:
    one, two = shards.open(), shards.open()
    places = [(epoch, row) for epoch in range(3) for row in range(5)]
    before = {place: one[place] for place in places}
    assert all(same(two[place], before[place]) for place in reversed(places))
    assert one.draw(0, 1) != one.draw(1, 1)
    assert one.draw(0, 1) != shards.open(seed=1).draw(0, 1)


def test_another_video_more_changes_no_other_s_frames(
    make_shards: MakeShards, tmp_path: Path
) -> None:
    few = make_shards({"id1": {"b": [3, 1, 6]}}).open()
    more = Shards(tmp_path / "more", PEOPLE, set()).open()
    first = more.index.frames_of(1).start
    assert [frame - first for frame in more.draw(5, 1)] == few.draw(5, 0)


def test_frames_without_a_face_are_the_last_choice(make_shards: MakeShards) -> None:
    faceless = {(1, 0, 0), (1, 2, 1), (1, 2, 5), (0, 0, 2), (0, 0, 3)}
    episodes = make_shards(faceless=faceless).open()
    for epoch in range(20):
        assert not faceless & set(shown(episodes[epoch, 1]))
    for epoch in range(20):  # five frames, of which three show a face: all are needed
        few = episodes[epoch, 0]
        assert set(shown(few)) >= {(0, 0, 2), (0, 0, 3)}
        assert few.target_landmarks.any()


@pytest.mark.parametrize("size", [16, 48])
def test_another_size_scales_picture_and_points(shards: Shards, size: int) -> None:
    episode = shards.open(size=size)[0, 1]
    assert episode.source.shape == (4, 3, size, size)
    row, clip, at = which(episode.target)
    wanted = rasterize(points(row, clip, at * STEP), size, source_size=SIDE)
    assert np.array_equal(episode.target_landmarks.transpose(1, 2, 0), wanted)


def test_collate_makes_a_batch_that_the_learner_takes(shards: Shards) -> None:
    episodes = shards.open()
    parts = [episodes[0, 3], episodes[0, 1]]
    batch = collate(parts)
    assert batch.rows.tolist() == [3, 1]
    assert batch.source.shape == (2, 4, 3, SIDE, SIDE)
    assert np.array_equal(batch.source[1].numpy(), parts[1].source)
    assert batch.target.is_contiguous(memory_format=torch.channels_last)
    ready = batch.to(torch.device("cpu"), channels_last=True)
    assert ready.source.min() >= -1 and ready.source.max() <= 1
    assert ready.source.is_floating_point()


@pytest.mark.parametrize("size", [SIDE, 48])
def test_a_batch_read_at_once_is_its_episodes(shards: Shards, size: int) -> None:
    episodes = shards.open(size=size)
    places = EpisodeSampler(len(episodes), 2, episodes.seed)
    for batch, of in zip(loader(episodes, 2, workers=1), places, strict=True):
        assert same(batch, collate([episodes[place] for place in of]))


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_workers(shards: Shards, workers: int) -> None:
    alone = loader(shards.open(), 2)
    several = loader(shards.open(), 2, workers=workers)
    for _ in range(2):
        for one, two in zip(alone, several, strict=True):
            assert same(one, two)
    assert alone.state_dict() == several.state_dict()


def test_ranks_together_give_the_global_batch(shards: Shards) -> None:
    alone = loader(shards.open(), 4)
    ranks = [loader(shards.open(), 4, rank=rank, world=2) for rank in range(2)]
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert torch.equal(torch.cat([part.rows for part in parts]), whole.rows)
        assert torch.equal(torch.cat([part.target for part in parts]), whole.target)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_resumes_inside_an_epoch(shards: Shards, workers: int) -> None:
    def run(batches: EpisodeLoader, steps: int) -> tuple[list[EpisodeBatch], dict[str, int]]:
        taken: list[EpisodeBatch] = []
        while True:
            for batch in batches:
                taken.append(batch)
                if len(taken) == steps:
                    return taken, batches.state_dict()

    whole, _ = run(loader(shards.open(), 2), 6)
    begun, state = run(loader(shards.open(), 2, workers=workers), 2)
    assert state == {"seed": 0, "epoch": 0, "cursor": 4}
    resumed = loader(shards.open(), 2, workers=workers)
    resumed.load_state_dict(state)
    rest, _ = run(resumed, 4)
    assert all(same(one, two) for one, two in zip(whole, [*begun, *rest], strict=True))


def test_a_broken_off_epoch_goes_on_at_the_unused_batch(shards: Shards) -> None:
    whole = [batch.rows.tolist() for batch in loader(shards.open(), 1)]
    batches = loader(shards.open(), 1, workers=2)
    assert next(iter(batches)).rows.tolist() == whole[0]
    assert [batch.rows.tolist() for batch in batches] == whole[1:]


def test_loading_leaves_torch_s_random_numbers_alone(shards: Shards) -> None:
    before = torch.get_rng_state()
    list(loader(shards.open(), 2, workers=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_tars_are_opened_once_and_stay_behind_when_pickled(shards: Shards) -> None:
    episodes = shards.open()
    before = [episodes[0, row] for row in range(5)]
    assert len(episodes._maps) == 2
    copy = pickle.loads(pickle.dumps(episodes))
    assert len(copy._maps) == 0
    assert all(same(copy[0, row], before[row]) for row in range(5))


def test_few_tars_stay_open(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episodes_module, "MAPS", 1)
    one, two = shards.open(), shards.open()
    for row in (0, 2, 1, 4):
        assert same(one[0, row], two[0, row])
        assert len(one._maps) == 1


def test_too_large_a_k_names_the_video(shards: Shards) -> None:
    with pytest.raises(ValueError) as caught:
        shards.open(k=5)
    assert str(caught.value) == (
        "video test/id1/a has 5 stored frames, but K = 5 source frames and a target need 6: "
        "take a smaller K, or few_frames='drop'"
    )
    with pytest.raises(ValueError, match=r"id1/a has 5 stored frames .and 3 videos more."):
        shards.open(k=8)


def test_short_videos_are_dropped_when_asked(shards: Shards) -> None:
    episodes = shards.open(k=8, few_frames="drop")
    assert episodes.videos == [VideoKey("test", "id1", "b")]
    frames = shown(episodes[0, 0])
    assert len(set(frames)) == 9
    assert {row for row, _, _ in frames} == {1}
    with pytest.raises(ValueError, match="has the 41 frames of K = 40"):
        shards.open(k=40, few_frames="drop")


def test_another_split_has_no_videos(shards: Shards) -> None:
    with pytest.raises(ValueError, match="split 'val' holds nobody"):
        Episodes(shards.index, shards.folder, "val")


def test_a_missing_tar_is_named(shards: Shards) -> None:
    shards.tar(1).unlink()
    with pytest.raises(ValueError, match=r"test-train-00001.tar is missing"):
        shards.open()


def test_a_truncated_tar_is_named(shards: Shards) -> None:
    tar = shards.tar(0)
    whole = tar.stat().st_size
    tar.write_bytes(tar.read_bytes()[:-512])
    with pytest.raises(ValueError, match=f"{tar} has {whole - 512} bytes, not {whole}"):
        shards.open()


def test_a_tar_cut_after_the_start_is_named(shards: Shards) -> None:
    episodes = shards.open()
    shards.tar(1).write_bytes(b"short")
    with pytest.raises(ValueError, match=r"00001.tar has 5 bytes"):
        episodes[0, 0]


def test_damage_inside_a_tar_names_the_member(shards: Shards) -> None:
    episodes = shards.open()
    tar = shards.tar(1)
    data = bytearray(tar.read_bytes())
    for start, size in zip(episodes.index.offsets[:5], episodes.index.sizes[:5], strict=True):
        data[start + 2 : start + size] = bytes(int(size) - 2)
    tar.write_bytes(data)
    with pytest.raises(ValueError, match=r"00001.tar: id1_a_00000.00\d.jpg is no whole JPEG"):
        shards.open()[0, 0]


def test_other_bytes_where_landmarks_should_be_are_named(shards: Shards) -> None:
    def one_later(row: dict[str, Any]) -> None:
        row["landmarks_offset"] += 1

    shards.edit(one_later)
    with pytest.raises(ValueError, match=r"id1_a_00000.landmarks.npy is no array of 15 x 68"):
        shards.open()[0, 0]


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row.update(frame_offsets=[o + 10**6 for o in row["frame_offsets"]]),
        lambda row: row.update(landmarks_size=10**6),
        lambda row: row.update(frames=2),
        lambda row: row.update(frame_sizes=row["frame_sizes"][:-1]),
    ],
)
def test_an_index_that_cannot_be_true_is_refused(
    shards: Shards, change: Callable[[dict[str, Any]], None]
) -> None:
    shards.edit(change)
    with pytest.raises(ValueError, match=r"index.parquet: what it says of .* cannot be true"):
        shards.open()


def test_only_places_that_exist_have_an_episode(shards: Shards) -> None:
    with pytest.raises(IndexError, match=r"no episode \(0, 5\) among 5 videos"):
        shards.open()[0, 5]


def test_a_sampler_of_other_videos_is_refused(shards: Shards) -> None:
    with pytest.raises(ValueError, match="sampler of 4 videos, but 5 videos"):
        EpisodeLoader(shards.open(), EpisodeSampler(4, 2))


def test_a_gpu_box_needs_no_more_than_four_packages() -> None:
    allowed = {"torch", "numpy", "pyarrow", "PIL", "training"}
    foreign = ["pipelines", "webdataset", "cv2", "fsspec", "pydantic", "ray", "apache_beam", "dvc"]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({foreign}))\n"
        "import training.episodes, benchmarks.step"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    source = Path(episodes_module.__file__).read_text().splitlines()
    imported = {line.split()[1].split(".")[0] for line in source if line[:5] in ("from ", "impor")}
    assert imported - allowed <= sys.stdlib_module_names
