"""Downloads through the real yt-dlp from a site on the loopback interface that fails on demand."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from small_site import Row, Run, at, closed_port, hits

from pipelines.errors import UserError
from pipelines.sample.server import SampleServer
from pipelines.statuses import Status

pytestmark = pytest.mark.usefixtures("without_beam", "own_temporary_folder")


def test_a_video_is_fetched_once_for_all_its_clips_and_described(
    run: Run, serve: Callable[..., SampleServer], whole_video: Path, tmp_path: Path
) -> None:
    site = serve("aaa", "bbb")
    clips: list[str | Row] = [
        {"video": "aaa"},
        {"video": "aaa", "utterance": "00002", "status": "filtered"},
        {"video": "bbb", "status": "filtered"},
        {"person": "id2", "video": "aaa"},
    ]
    rows = run(clips, url=at(site))
    assert list(rows) == ["aaa"]
    row = rows["aaa"]
    assert (row["status"], row["detail"], row["origin"]) == ("ok", "", "site")
    assert (row["width"], row["height"], row["fps"], row["codec"]) == (128, 128, 25.0, "h264")
    assert (row["seconds"], row["has_audio"]) == (1.0, False)
    assert row["url"] == f"{site.url}/watch/aaa"
    assert row["path"].startswith("videos/")
    assert (tmp_path / "work" / row["path"]).read_bytes() == whole_video.read_bytes()
    assert row["bytes"] == whole_video.stat().st_size
    assert hits(site, "bbb") == 0
    assert list((tmp_path / "work" / "partial").iterdir()) == []


def test_a_complete_video_is_never_fetched_twice(
    run: Run, serve: Callable[..., SampleServer], tmp_path: Path
) -> None:
    site = serve("aaa")
    first = run(["aaa"], url=at(site))
    asked = hits(site, "aaa")
    assert run(["aaa"], url=at(site)) == first
    # Killed between publishing the video and recording it.
    shutil.rmtree(tmp_path / "work" / "records")
    assert run(["aaa"], url=at(site)) == first
    assert run(["aaa"], frozenset(Status) - {Status.OK}, url=at(site)) == first
    assert hits(site, "aaa") == asked
    # Manners do not decide what was fetched; the format does.
    run(["aaa"], url=at(site), per_minute=5e5, cookies=None, retries=3)
    assert hits(site, "aaa") == asked
    run(["aaa"], url=at(site), max_height=360)
    assert hits(site, "aaa") > asked


def test_a_video_torn_since_it_was_published_is_fetched_anew(
    run: Run, serve: Callable[..., SampleServer], tmp_path: Path, whole_video: Path
) -> None:
    site = serve("aaa")
    first = run(["aaa"], url=at(site))
    shutil.rmtree(tmp_path / "work" / "records")
    torn = tmp_path / "work" / first["aaa"]["path"]
    torn.write_bytes(b"")
    assert run(["aaa"], url=at(site)) == first
    assert torn.read_bytes() == whole_video.read_bytes()


FAULTS = {
    "404": ("removed", "HTTP Error 404"),
    "410": ("removed", "HTTP Error 410"),
    "403": ("private", "HTTP Error 403"),
    "429": ("throttled", "HTTP Error 429"),
    "503": ("throttled", "HTTP Error 503"),
    "html": ("not_a_video", "an HTML page"),
    "page": ("not_a_video", "Unsupported URL"),
    "cut": ("truncated", "more expected"),
    "empty": ("not_a_video", "Did not get any data blocks"),
    "slow": ("ok", ""),
}


def test_every_fault_has_its_status_and_the_tool_s_words(
    run: Run, serve: Callable[..., SampleServer], tmp_path: Path
) -> None:
    site = serve(**{f"video_{kind}": kind for kind in FAULTS})
    rows = run([f"video_{kind}" for kind in sorted(FAULTS)], url=at(site))
    for kind, (status, words) in FAULTS.items():
        row = rows[f"video_{kind}"]
        assert (kind, row["status"]) == (kind, status)
        assert words in row["detail"]
        assert str(tmp_path) not in row["detail"]
        assert (row["path"] is None) == (row["sha256"] is None) == (status != "ok")
        assert row["url"].endswith(f"/watch/video_{kind}")


def test_a_site_that_asks_to_slow_down_is_tried_again(
    run: Run, serve: Callable[..., SampleServer]
) -> None:
    site = serve(aaa="429:1", bbb="503:2")
    rows = run(["aaa", "bbb"], url=at(site), retries=3)
    assert {row["status"] for row in rows.values()} == {"ok"}


def test_a_damaged_body_is_not_kept_for_the_next_try(
    run: Run, serve: Callable[..., SampleServer], whole_video: Path
) -> None:
    site = serve("aaa")
    data = whole_video.read_bytes()
    (site.videos / "aaa.mp4").write_bytes(data[: len(data) // 2])
    assert run(["aaa"], url=at(site))["aaa"]["status"] == "truncated"
    (site.videos / "aaa.mp4").write_bytes(data)
    rows = run(["aaa"], frozenset({Status.TRUNCATED}), url=at(site))
    assert rows["aaa"]["status"] == "ok"


def test_a_broken_connection_is_resumed_by_the_next_run(
    run: Run, serve: Callable[..., SampleServer], whole_video: Path, tmp_path: Path
) -> None:
    site = serve(aaa="cut:4")  # the look at the page, and yt-dlp's three tries
    assert run(["aaa"], url=at(site))["aaa"]["status"] == "truncated"
    (part,) = (tmp_path / "work" / "partial").rglob("*.part")
    kept = part.stat().st_size
    assert 0 < kept < whole_video.stat().st_size
    assert site.total().partial == 0
    rows = run(["aaa"], frozenset({Status.TRUNCATED}), url=at(site))
    assert rows["aaa"]["status"] == "ok"
    assert site.total().partial == 1
    assert (tmp_path / "work" / rows["aaa"]["path"]).read_bytes() == whole_video.read_bytes()


def test_a_broken_connection_is_resumed_within_a_run(
    run: Run, serve: Callable[..., SampleServer]
) -> None:
    site = serve(aaa="cut:4")
    assert run(["aaa"], url=at(site), retries=1)["aaa"]["status"] == "ok"
    assert site.total().partial == 1


def test_the_first_bot_check_stops_the_asking_and_the_next_run_goes_on(
    run: Run, serve: Callable[..., SampleServer]
) -> None:
    site = serve("bbb", "ccc", "ddd", aaa="bot_check:1")
    videos: list[str | Row] = ["aaa", "bbb", "ccc", "ddd"]
    rows = run(videos, url=at(site))
    assert [row["status"] for row in rows.values()] == ["bot_check", *["deferred"] * 3]
    assert "not a bot" in rows["aaa"]["detail"]
    assert rows["bbb"]["detail"] == "the bot-check breaker is open"
    assert site.total().requests == 1
    rows = run(videos, url=at(site))
    assert [row["status"] for row in rows.values()] == ["bot_check", "ok", "ok", "ok"]
    assert hits(site, "aaa") == 1
    rows = run(videos, frozenset({Status.BOT_CHECK}), url=at(site))
    assert {row["status"] for row in rows.values()} == {"ok"}


def test_more_bot_checks_may_be_allowed(run: Run, serve: Callable[..., SampleServer]) -> None:
    site = serve("ccc", aaa="bot_check", bbb="bot_check")
    rows = run(["aaa", "bbb", "ccc"], url=at(site), breaker=2)
    assert [row["status"] for row in rows.values()] == ["bot_check", "bot_check", "deferred"]


def test_only_the_statuses_asked_for_are_retried(
    run: Run, serve: Callable[..., SampleServer], whole_video: Path
) -> None:
    site = serve("ok1", gone="404:1", late="503:1")
    videos: list[str | Row] = ["gone", "late", "ok1"]
    assert [r["status"] for r in run(videos, url=at(site)).values()] == [
        "removed",
        "throttled",
        "ok",
    ]
    rows = run(videos, frozenset({Status.THROTTLED}), url=at(site))
    assert [row["status"] for row in rows.values()] == ["removed", "ok", "ok"]
    assert hits(site, "gone") == 1
    assert run(videos, frozenset({Status.REMOVED}), url=at(site))["gone"]["status"] == "ok"


def test_several_at_once_give_the_same_rows(
    run: Run, serve: Callable[..., SampleServer], tmp_path: Path
) -> None:
    names = [f"v{n}" for n in range(6)]
    site = serve(*names, gone="404")
    rows = run([*names, "gone"], url=at(site), concurrency=4)
    shutil.rmtree(tmp_path / "work")
    assert run([*names, "gone"], url=at(site), concurrency=1) == rows


def test_a_file_larger_than_allowed_is_not_fetched(
    run: Run, serve: Callable[..., SampleServer], tmp_path: Path
) -> None:
    site = serve("aaa")
    row = run(["aaa"], url=at(site), max_bytes=1000)["aaa"]
    assert row["status"] == "no_format"
    assert "larger than max-filesize" in row["detail"]
    assert list((tmp_path / "work").rglob("*.mp4*")) == []


def test_an_explicit_link_is_asked(run: Run, serve: Callable[..., SampleServer]) -> None:
    site = serve("real")
    row = run([{"video": "name", "url": f"{site.url}/videos/real.mp4"}])["name"]
    assert (row["status"], row["url"]) == ("ok", f"{site.url}/videos/real.mp4")


def test_what_was_taken_out_is_not_asked_for(run: Run, serve: Callable[..., SampleServer]) -> None:
    site = serve("xdigest")
    rows = run([{"person": "excluded", "video": "xdigest", "status": "excluded"}], url=at(site))
    assert rows["xdigest"]["status"] == "excluded"
    assert rows["xdigest"]["url"] is None
    assert site.total().requests == 0


# --- secrets ---------------------------------------------------------------------------------


def test_cookies_are_copied_and_never_modified(
    run: Run, serve: Callable[..., SampleServer], tmp_path: Path
) -> None:
    site = serve("aaa", gone="404")
    cookies = tmp_path / "cookies.txt"
    line = "127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\tsEcret\n"
    cookies.write_text("# Netscape HTTP Cookie File\n" + line)
    before, when = cookies.read_bytes(), cookies.stat().st_mtime_ns
    rows = run(["aaa", "gone"], url=at(site), cookies=str(cookies))
    assert [row["status"] for row in rows.values()] == ["ok", "removed"]
    assert (cookies.read_bytes(), cookies.stat().st_mtime_ns) == (before, when)
    assert list((tmp_path / "work").rglob("cookies*")) == []


def test_missing_cookies_stop_the_stage_instead_of_failing_every_video(
    run: Run, serve: Callable[..., SampleServer]
) -> None:
    with pytest.raises(UserError, match=r"download\.cookies: gone\.txt: no such file"):
        run(["aaa"], url=at(serve("aaa")), cookies="gone.txt")


@pytest.mark.parametrize("password", ["sEcret", "s@Ecret", "sEcret%21"])
def test_no_credentials_reach_the_manifest(
    run: Run,
    serve: Callable[..., SampleServer],
    password: str,
) -> None:
    site = serve("aaa")
    secret = f"me:{password}@127.0.0.1:{closed_port()}"
    rows = run(
        ["aaa", {"video": "bbb", "url": f"http://{secret}/bbb?token=sEcret&n=1"}],
        url=at(site),
        proxy=f"http://{secret}",
        mirror=f"http://{secret}",
    )
    assert {row["status"] for row in rows.values()} == {"network"}
    assert "Ecret" not in str(rows)
    assert rows["bbb"]["url"].endswith("/bbb?token=***&n=1")


# --- ready crops -----------------------------------------------------------------------------


def test_ready_crops_are_described_where_they_lie(
    run: Run, make_video: Callable[..., Path], tmp_path: Path
) -> None:
    tree = tmp_path / "metadata"
    clips: list[str | Row] = []
    for utterance in ("00001", "00002"):
        make_video(tree / "id1" / "aaa" / f"{utterance}.mp4", frames=3)
        clips.append({"video": "aaa", "utterance": utterance, "media": f"id1/aaa/{utterance}.mp4"})
    clips.append({"video": "bbb", "media": "id1/bbb/00001.mkv"})
    rows = run(clips)
    assert list(rows) == ["vox/id1/aaa", "vox/id1/bbb"]
    row = rows["vox/id1/aaa"]
    assert (row["status"], row["origin"], row["path"]) == ("ok", "local", None)
    assert row["bytes"] == sum(path.stat().st_size for path in (tree / "id1" / "aaa").iterdir())
    assert (rows["vox/id1/bbb"]["status"], rows["vox/id1/bbb"]["detail"]) == (
        "removed",
        "00001.mkv is gone",
    )
    # A crop replaced by another, or brought back, is seen without being asked.
    make_video(tree / "id1" / "aaa" / "00002.mp4", frames=9, seed=1)
    make_video(tree / "id1" / "bbb" / "00001.mkv", frames=3)
    again = run(clips)
    assert again["vox/id1/aaa"]["sha256"] != row["sha256"]
    assert again["vox/id1/bbb"]["status"] == "ok"


def test_two_sources_of_ready_crops_may_use_the_same_names(
    run: Run, make_video: Callable[..., Path], tmp_path: Path
) -> None:
    clips: list[str | Row] = []
    for seed, source in enumerate(("one", "two")):
        media = f"{source}/id1/aaa/00001.mp4"
        make_video(tmp_path / "metadata" / media, frames=3, seed=seed)
        clips.append({"source": source, "video": "aaa", "media": media})
    clips.append("aaa")  # and a site's video may
    rows = run(clips, url="http://127.0.0.1:1/{video_id}")
    assert list(rows) == ["one/id1/aaa", "two/id1/aaa", "aaa"]
    one, two, _ = rows.values()
    assert (one["source"], two["source"]) == ("one", "two")
    assert one["sha256"] != two["sha256"]
    (tmp_path / "metadata" / "two" / "id1" / "aaa" / "00001.mp4").unlink()
    rows = run(clips, url="http://127.0.0.1:1/{video_id}")
    assert [row["status"] for row in rows.values()][:2] == ["ok", "removed"]


def test_of_ready_crops_only_those_that_are_gone_are_lost(
    run: Run, make_video: Callable[..., Path], tmp_path: Path
) -> None:
    clips: list[str | Row] = []
    for n, suffix in enumerate(("mkv", "mp4", "mov", "mp4")):
        media = f"id1/aaa/{n}.{suffix}"
        make_video(tmp_path / "metadata" / media, frames=3, seed=n)
        clips.append({"video": "aaa", "utterance": str(n), "media": media})
    # What was taken out stands between the others.
    clips.insert(3, {"person": "excluded", "video": "x1", "status": "excluded"})
    whole = run(clips)["vox/id1/aaa"]
    assert (whole["status"], whole["detail"]) == ("ok", "")
    make_video(tmp_path / "metadata" / "id1" / "aaa" / "3.mp4", frames=4, seed=9)
    replaced = run(clips)["vox/id1/aaa"]
    assert replaced["sha256"] != whole["sha256"]
    (tmp_path / "metadata" / "id1" / "aaa" / "0.mkv").unlink()
    less = run(clips)["vox/id1/aaa"]
    assert (less["status"], less["detail"]) == ("ok", "0.mkv is gone")
    (tmp_path / "metadata" / "id1" / "aaa" / "3.mp4").unlink()
    assert run(clips)["vox/id1/aaa"]["detail"] == "0.mkv, 3.mp4 are gone"
    shutil.rmtree(tmp_path / "metadata" / "id1")
    gone = run(clips)["vox/id1/aaa"]
    assert gone["status"] == "removed"
    assert gone["detail"] == "0.mkv, 1.mp4, 2.mov, 3.mp4 are gone"
