from __future__ import annotations

import os
import sys

import pytest

from pipelines.sources.base import Annotation, BadRow, SourceError
from pipelines.sources.mp4 import mp4


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")


def names(rows):
    return [f"{r.person}/{r.video}/{r.utterance}" for r in rows if isinstance(r, Annotation)]


def bad(rows):
    return {r.where: r.reason for r in rows if isinstance(r, BadRow)}


def test_a_ready_crop(tmp_path):
    touch(tmp_path, "id1/v/00001.mp4")
    (row,) = mp4(tmp_path)
    assert row.media == str(tmp_path / "id1/v/00001.mp4")
    assert (row.first_frame, row.frames, row.boxes, row.crop_ready) == (0, None, None, True)


def test_order_is_person_video_utterance_across_dev_and_test(tmp_path):
    touch(tmp_path, "dev/mp4/b/v/2.mp4", "test/mp4/b/v/1.mp4", "dev/mp4/b/u/9.mp4")
    touch(tmp_path, "test/mp4/a/v/1.mp4", "dev/mp4/c/-_/1.mp4", "dev/mp4/b/v/10.mp4")
    rows = list(mp4(tmp_path))
    assert names(rows) == ["a/v/1", "b/u/9", "b/v/1", "b/v/10", "b/v/2", "c/-_/1"]
    assert [r.split for r in rows] == ["test", None, "test", None, None, None]


@pytest.mark.parametrize("top", [".", "mp4", "dev", "dev/mp4", "test", "test/mp4"])
def test_roots(tmp_path, top):
    touch(tmp_path, f"{top}/id1/v/1.mp4")
    (row,) = mp4(tmp_path)
    assert (row.person, row.split) == ("id1", "test" if top.startswith("test") else None)


def test_other_files_are_passed_over(tmp_path):
    touch(tmp_path, "README", "p/v/1.mp4", "p/v/1.json", "p/v/._1.mp4", "p/.x/1.mp4", "p/notes")
    touch(tmp_path, "__MACOSX/p/v/1.mp4", "p/v/deeper/2.txt")
    (tmp_path / "p/empty").mkdir()
    rows = list(mp4(tmp_path))
    assert names(rows) == ["p/v/1"] and len(rows) == 1


def test_wrong_depth(tmp_path):
    touch(tmp_path, "stray.mp4", "p/stray.mp4", "p/v/1.mp4", "p/v/deep/er/1.mp4")
    rows = list(mp4(tmp_path))
    assert names(rows) == ["p/v/1"]
    assert set(bad(rows)) == {"stray.mp4", "p/stray.mp4", "p/v/deep/er/1.mp4"}
    assert all("depth" in reason for reason in bad(rows).values())


@pytest.mark.parametrize("name", ["a b", "A.J._Buckley", "é", "x" * 101, "a\nb", "..x"])
def test_unsafe_identifiers(tmp_path, name):
    if len(name) > 100:
        touch(tmp_path, f"p/{name}/1.mp4", "p/v/1.mp4")
    else:
        touch(tmp_path, f"{name}/v/1.mp4", f"p/{name}/1.mp4", f"p/v/{name}.mp4", "p/v/1.mp4")
    rows = list(mp4(tmp_path))
    assert names(rows) == ["p/v/1"] or name == "..x"
    assert all("unsafe identifier" in reason for reason in bad(rows).values())
    assert all("\n" not in where for where in bad(rows))
    assert len(rows) - len(bad(rows)) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes")
def test_undecodable_names_stay_out_of_the_report(tmp_path):
    touch(tmp_path, os.fsdecode(b"p\xff/v/1.mp4"))
    (row,) = mp4(tmp_path)
    assert "unsafe identifier" in row.reason and row.person == "" and row.video == "v"
    (row.where + row.reason).encode()


def test_the_same_clip_twice(tmp_path):
    touch(tmp_path, "dev/p/v/1.mp4", "test/p/v/1.mp4", "dev/p/v/2.mp4", "dev/p/v/2.mov")
    rows = list(mp4(tmp_path))
    assert names(rows) == ["p/v/1", "p/v/2"]
    assert bad(rows)["dev/p/v/2.mp4"] == "the same clip as dev/p/v/2.mov"
    held_out = next(r for r in rows if r.utterance == "1" and isinstance(r, Annotation))
    assert held_out.split == "test"


def test_links(tmp_path):
    touch(tmp_path, "store/v/1.mp4", "data/p/v/1.mp4")
    data = tmp_path / "data"
    (data / "q").symlink_to(tmp_path / "store")
    (data / "r").symlink_to(tmp_path / "unmounted")
    (data / "loop").symlink_to(data)
    (data / "p/up").symlink_to(data / "p")
    (data / "p/self").symlink_to(data / "p/self")
    (data / "p/v/up").symlink_to(data)
    (data / "p/v/2.mp4").symlink_to(data / "nothing")
    (data / "p/v/3.mp4").mkdir()
    os.mkfifo(data / "p/v/4.mp4")
    rows = list(mp4(data))
    assert names(rows) == ["p/v/1", "q/v/1"]
    assert set(bad(rows)) == {
        "r", "loop", "p/up", "p/self", "p/v/2.mp4", "p/v/3.mp4", "p/v/4.mp4"
    }  # fmt: skip


def test_a_closed_folder(tmp_path, monkeypatch):
    touch(tmp_path, "p/v/1.mp4", "p/w/1.mp4", "q/v/1.mp4")
    scandir = os.scandir

    def refuse(folder):
        if str(folder).endswith(closed):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    closed = "/p/v"
    rows = list(mp4(tmp_path))
    assert names(rows) == ["p/w/1", "q/v/1"]
    assert bad(rows) == {"p/v": "cannot be read: Permission denied"}
    closed = str(tmp_path)
    with pytest.raises(SourceError, match="Permission denied"):
        list(mp4(tmp_path))


def test_no_video_at_all(tmp_path):
    touch(tmp_path, "p/v/1.txt")
    with pytest.raises(SourceError, match="holds no <person>/<video>/<utterance>"):
        list(mp4(tmp_path))
