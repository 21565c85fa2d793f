"""What a request covers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from leaver import FRIEND, LEAVER, OTHER, OWN, SHARED, STRANGER, asked

from pipelines.forget.whose import unknown, whose
from pipelines.params import Params
from pipelines.schemas import CATALOG


def test_a_person_takes_their_own_videos_along(params: Params) -> None:
    forgotten = whose(params, asked(params, f"person,{LEAVER}"))
    assert set(forgotten.videos) == {OWN}
    assert set(forgotten.ids) == {OWN}
    assert forgotten.shared == {SHARED}
    assert {FRIEND, STRANGER, SHARED, OTHER} <= forgotten.staying
    assert not forgotten.staying & {LEAVER, OWN}
    assert list(unknown(forgotten)) == []


def test_a_video_and_a_clip(params: Params) -> None:
    clip = f"{STRANGER}_{OTHER}_00001"
    forgotten = whose(params, asked(params, f"video,{SHARED}", f"clip,{clip}", "person,nobody7"))
    # The only clip of a video takes the video along.
    assert set(forgotten.videos) == {SHARED, OTHER}
    assert f"{STRANGER}/{OTHER}/00001" in forgotten.ids
    assert forgotten.request(FRIEND, SHARED, "") == forgotten.requests[0]
    assert forgotten.request(LEAVER, OWN, "") is None
    assert [r.id for r in unknown(forgotten)] == ["nobody7"]


def test_ready_crops_are_their_source_s_and_person_s_own(
    make_params: Callable[..., Params], tmp_path: Path
) -> None:
    for name in ("one/p1/v/1", "two/p1/v/1", "two/p2/v/1"):
        clip = tmp_path / "metadata" / f"{name}.mp4"
        clip.parent.mkdir(parents=True)
        clip.touch()
    sources = [{"name": name, "reader": "mp4", "path": name} for name in ("one", "two")]
    params = make_params(catalog={"sources": sources})
    forgotten = whose(params, asked(params, "person,p1"))
    assert set(forgotten.videos) == {"one/p1/v", "two/p1/v"}
    (request,) = forgotten.requests
    # An older manifest in the cache names no source.
    for video, found in (("two/p1/v", request), ("p1/v", request), ("two/p2/v", None), ("v", None)):
        assert forgotten.of_row({"video": video}) == found


def test_the_catalog_knows_what_the_lists_no_longer_tell(
    params: Params, tmp_path: Path, write_manifest: Callable[..., None]
) -> None:
    row = {
        "person": "idgone1",
        "video": "gonevideo",
        "utterance": "1",
        "key": "idgone1_gonevideo_1",
    }
    row |= {"source": "vox", "split": "", "shard": "", "crop_ready": False, "detail": ""}
    write_manifest(params, "catalog", CATALOG, [row | {"status": "ok"}])
    (tmp_path / "metadata").rename(tmp_path / "elsewhere")
    forgotten = whose(params, asked(params, "person,idgone1"))
    assert set(forgotten.videos) == {"gonevideo"}
    assert len(forgotten.unread) == 1
