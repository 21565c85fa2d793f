"""Mirrors are asked before the site: folders, object stores, and other sites."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from small_site import Run, at, closed_port, hits

from pipelines import storage
from pipelines.errors import StopStage
from pipelines.sample.server import SampleServer

pytestmark = pytest.mark.usefixtures("without_beam", "own_temporary_folder")


def test_a_mirror_folder_is_read_in_place(
    run: Run, serve: Callable[..., SampleServer], tmp_path: Path, whole_video: Path
) -> None:
    site = serve("aaa", "bbb")
    (tmp_path / "mirror").mkdir()
    shutil.copyfile(whole_video, tmp_path / "mirror" / "aaa.mp4")
    rows = run(["aaa", "bbb"], url=at(site), mirror=str(tmp_path / "mirror"))
    assert (rows["aaa"]["origin"], rows["bbb"]["origin"]) == ("mirror", "site")
    assert rows["aaa"]["path"] == rows["aaa"]["url"] == str(tmp_path / "mirror" / "aaa.mp4")
    assert (tmp_path / "mirror" / "aaa.mp4").exists()
    assert hits(site, "aaa") == 0
    assert len(list((tmp_path / "work" / "videos").rglob("*.mp4"))) == 1


def test_a_mirror_s_video_that_was_replaced_is_taken_anew(
    run: Run, tmp_path: Path, whole_video: Path
) -> None:
    (tmp_path / "mirror").mkdir()
    video = tmp_path / "mirror" / "aaa.mp4"
    shutil.copyfile(whole_video, video)
    first = run(["aaa"], mirror=str(tmp_path / "mirror"))["aaa"]
    body = bytearray(whole_video.read_bytes())
    at = body.index(b"mdat") + 200  # another picture of the same size
    body[at] ^= 1
    video.write_bytes(body)
    second = run(["aaa"], mirror=str(tmp_path / "mirror"))["aaa"]
    assert second["bytes"] == first["bytes"]
    assert second["sha256"] == storage.digest_bytes(bytes(body)) != first["sha256"]


def test_a_mirror_folder_called_videos_is_not_taken_for_the_work_folder_s(
    run: Run, tmp_path: Path, whole_video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").mkdir()
    shutil.copyfile(whole_video, "videos/aaa.mp4")
    row = run(["aaa"], mirror="videos")["aaa"]
    assert row["path"] == "./videos/aaa.mp4"
    from pipelines.crop import CropWorker

    worker = CropWorker.__new__(CropWorker)
    worker._videos = {"aaa": row}
    worker._params = type("P", (), {"paths": type("Q", (), {"work": str(tmp_path / "work")})})
    ((path, _, _),) = worker._by_file([{"video": "aaa", "media": None, "person": "id1"}])
    assert Path(str(path)).is_file()


def test_an_http_mirror_is_asked_before_the_site(
    run: Run, serve: Callable[..., SampleServer], tmp_path: Path
) -> None:
    site, mirror = serve("aaa", "bbb"), serve("aaa")
    template = mirror.url + "/videos/{video_id}.mp4"
    rows = run(["aaa", "bbb"], url=at(site), mirror=template)
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert rows["aaa"]["origin"] == "mirror"
    assert rows["aaa"]["url"] == mirror.url + "/videos/aaa.mp4"
    assert rows["aaa"]["path"].startswith("videos/")
    assert rows["bbb"]["origin"] == "site"
    assert hits(site, "aaa") == 0


def test_an_object_store_mirror_is_copied(
    run: Run, serve: Callable[..., SampleServer], whole_video: Path
) -> None:
    import fsspec

    with fsspec.open("memory://mirror/aaa.mp4", "wb") as file:
        file.write(whole_video.read_bytes())
    row = run(["aaa"], mirror="memory://mirror")["aaa"]
    assert (row["status"], row["origin"]) == ("ok", "mirror")
    assert row["path"].endswith("-mirror.mp4")


def test_a_mirror_s_broken_file_leads_to_the_site_and_is_told_when_both_fail(
    run: Run, serve: Callable[..., SampleServer], tmp_path: Path
) -> None:
    site = serve("aaa", bbb="404")
    (tmp_path / "mirror").mkdir()
    for video in ("aaa", "bbb"):
        (tmp_path / "mirror" / f"{video}.mp4").write_bytes(b"<!doctype html><html></html>")
    rows = run(["aaa", "bbb"], url=at(site), mirror=str(tmp_path / "mirror"))
    assert (rows["aaa"]["status"], rows["aaa"]["origin"]) == ("ok", "site")
    assert rows["bbb"]["status"] == "removed"
    assert "HTTP Error 404" in rows["bbb"]["detail"]
    assert rows["bbb"]["detail"].endswith("; mirror: not_a_video: an HTML page")
    assert (tmp_path / "mirror" / "bbb.mp4").exists()


def test_a_mirror_that_is_down_leads_to_the_site(
    run: Run, serve: Callable[..., SampleServer]
) -> None:
    site = serve("aaa", bbb="404")
    rows = run(["aaa", "bbb"], url=at(site), mirror=f"http://127.0.0.1:{closed_port()}")
    assert rows["aaa"]["status"] == "ok"
    assert rows["bbb"]["status"] == "network" and "; removed: " in rows["bbb"]["detail"]
    assert rows["bbb"]["detail"].startswith("mirror: network: mirror: ")


def test_a_mirror_that_moved_or_was_mended_is_read_anew(
    run: Run, tmp_path: Path, whole_video: Path, make_video: Callable[..., Path]
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    for video in ("aaa", "bbb"):
        shutil.copyfile(whole_video, old / f"{video}.mp4")
    before = run(["aaa", "bbb"], mirror=str(old))
    old.rename(new)
    moved = run(["aaa", "bbb"], mirror=str(new))
    assert moved["aaa"]["path"] == str(new / "aaa.mp4")
    assert moved["aaa"]["sha256"] == before["aaa"]["sha256"]
    make_video(new / "aaa.mp4", frames=30, side=128, seed=1)
    mended = run(["aaa", "bbb"], mirror=str(new))
    assert mended["aaa"]["sha256"] == storage.sha256(new / "aaa.mp4") != moved["aaa"]["sha256"]
    assert mended["bbb"] == moved["bbb"]


def test_an_open_breaker_does_not_close_the_mirror(
    run: Run, serve: Callable[..., SampleServer], tmp_path: Path, whole_video: Path
) -> None:
    site = serve("ccc", aaa="bot_check")
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    shutil.copy(whole_video, mirror / "bbb.mp4")
    rows = run(["aaa", "bbb", "ccc"], url=at(site), mirror=str(mirror))
    assert [row["status"] for row in rows.values()] == ["bot_check", "ok", "deferred"]
    assert site.total().requests == 1


def test_an_empty_mirror_folder_is_one_that_is_not_mounted(
    run: Run, serve: Callable[..., SampleServer], tmp_path: Path
) -> None:
    site = serve("aaa")
    (tmp_path / "mirror").mkdir()
    with pytest.raises(StopStage, match=r"download.mirror: .*mirror is empty; mount it"):
        run(["aaa"], url=at(site), mirror=str(tmp_path / "mirror"))
    assert site.total().requests == 0


@pytest.mark.parametrize("template", ["", "/{video_id}.mp4"])
def test_a_mirror_folder_that_is_not_there_asks_nothing_of_the_site(
    run: Run, serve: Callable[..., SampleServer], tmp_path: Path, template: str
) -> None:
    """A disk that is not mounted, or a mistyped key."""
    site = serve("aaa")
    with pytest.raises(StopStage, match=r"download.mirror: .*mirorr: no such folder; mount it"):
        run(["aaa"], url=at(site), mirror=str(tmp_path / "mirorr") + template)
    assert hits(site, "aaa") == 0


def test_a_mirror_that_refuses_has_not_said_that_it_lacks_the_video(
    run: Run, serve: Callable[..., SampleServer]
) -> None:
    """As with credentials that have expired."""
    site, mirror = serve("aaa", bbb="404"), serve(aaa="403", bbb="403")
    template = mirror.url + "/videos/{video_id}.mp4"
    rows = run(["aaa", "bbb"], url=at(site), mirror=template)
    assert (rows["aaa"]["status"], rows["aaa"]["origin"]) == ("ok", "site")
    assert rows["bbb"]["status"] == "network"
    assert rows["bbb"]["detail"].startswith("mirror: network: HTTP Error 403; removed: ")


def test_the_mirror_alone(
    run: Run, serve: Callable[..., SampleServer], tmp_path: Path, whole_video: Path
) -> None:
    site = serve("aaa", "bbb", "ccc")
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    shutil.copy(whole_video, mirror / "aaa.mp4")
    (mirror / "bbb.mp4").write_bytes(b"<html></html>")
    rows = run(["aaa", "bbb", "ccc"], url=at(site), mirror=str(mirror), mirror_only=True)
    assert [row["status"] for row in rows.values()] == ["ok", "not_a_video", "removed"]
    assert rows["bbb"]["detail"] == "an HTML page"
    assert rows["ccc"]["detail"] == "the mirror does not hold it; no site is asked"
    assert site.total().requests == 0


def test_what_a_mirror_s_folder_is_given_later_is_taken(
    run: Run, serve: Callable[..., SampleServer], tmp_path: Path, whole_video: Path
) -> None:
    site = serve(aaa="404", bbb="404", ccc="404")
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "bbb.mp4").write_bytes(b"<html></html>")
    first = run(["aaa", "bbb", "ccc"], url=at(site), mirror=str(mirror))
    assert {row["status"] for row in first.values()} == {"removed"}
    asked = site.total().requests
    shutil.copy(whole_video, mirror / "aaa.mp4")
    second = run(["aaa", "bbb", "ccc"], url=at(site), mirror=str(mirror))
    assert [row["status"] for row in second.values()] == ["ok", "removed", "removed"]
    assert site.total().requests == asked, "the broken one is as it was"
    shutil.copy(whole_video, mirror / "bbb.mp4")
    assert run(["aaa", "bbb", "ccc"], url=at(site), mirror=str(mirror))["bbb"]["status"] == "ok"
