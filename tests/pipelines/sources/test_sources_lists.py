from __future__ import annotations

import pytest

from pipelines.sources import READERS
from pipelines.sources.base import Annotation, BadRow, SourceError
from pipelines.sources.hdtf import hdtf
from pipelines.sources.talkinghead1kh import talkinghead1kh
from pipelines.sources.vox_metadata import vox_metadata

TITLES = "video_id,start,end,bbox,fps,width,height,partition,person_id\n"
CLIP = "WMh3ye5tBsE,3657,3994,624-48-1018-553,25,1280,720,train,id10005\n"
ID = "-_abcdEFG_1"


def split_rows(rows):
    rows = list(rows)
    good = [r for r in rows if isinstance(r, Annotation)]
    return good, {r.where: r.reason for r in rows if isinstance(r, BadRow)}


# vox-metadata.csv


def csv_rows(folder, text):
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "vox-metadata.csv").write_bytes(data)
    return split_rows(vox_metadata(folder / "vox-metadata.csv"))


@pytest.mark.parametrize("change", [str, lambda s: "\ufeff" + s.replace("\n", "\r\n\r\n")])
def test_csv_row(tmp_path, change):
    (row,), bad = csv_rows(tmp_path, change(TITLES + CLIP))
    assert not bad
    assert (row.person, row.video, row.utterance) == ("id10005", "WMh3ye5tBsE", "003657-003994")
    assert (row.first_frame, row.frames, row.fps, row.box_height) == (3657, 337, 25.0, 720)
    assert row.boxes.tolist() == [[624, 48, 394, 505]]
    assert row.split is None and not row.crop_ready
    assert next(iter(vox_metadata(tmp_path))).utterance == row.utterance  # a folder will do


def test_csv_columns_go_by_name_and_rows_are_sorted(tmp_path):
    text = "person_id,partition,height,fps,bbox,end,start,video_id\n" + "".join(
        f"{p},test,720,29.97,-5--3-10-20.5,9,1,{v}\n" for p, v in ["ba", "bb", "ab"]
    )
    rows, _ = csv_rows(tmp_path, text)
    assert [(r.person, r.video) for r in rows] == [("a", "b"), ("b", "a"), ("b", "b")]
    assert rows[0].boxes.tolist() == [[-5, -3, 15, 23.5]]
    assert (rows[0].fps, rows[0].split) == (29.97, "test")


def test_csv_repeats_are_kept_once_and_held_out(tmp_path):
    rows, bad = csv_rows(tmp_path, TITLES + CLIP + CLIP.replace("train", "test") + CLIP)
    assert [r.split for r in rows] == ["test"]
    assert set(bad) == {"vox-metadata.csv:2", "vox-metadata.csv:4"}
    assert all("the same clip as vox-metadata.csv:3, kept" in r for r in bad.values())


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("id10005", "../x", "unsafe identifier"),
        ("id10005", "", "unsafe identifier"),
        ("WMh3ye5tBsE", "a\0b", "unsafe identifier"),
        ("3657", "-1", "start is -1"),
        ("3657", "1.5", "start is '1.5'"),
        ("3994", "3657", "end is 3657"),
        ("3994", "9" * 5000, "end is"),
        ("624-48", "624,48", "10 values"),
        ("-553", "", "bbox"),
        ("-553", "-48", "positive"),
        ("-553", "-5.5.3", "bbox"),
        ("-553", "-" + "9" * 99, "beyond"),
        (",25,", ",0,", "fps is 0"),
        (",25,", ",inf,", "fps is 'inf'"),
        (",720,", ",0,", "height is 0"),
        ("train", "dev", "partition is 'dev'"),
        ("train", '"train', "values"),
    ],
)
def test_csv_damage(tmp_path, old, new, reason):
    good = CLIP.replace("3657", "0")
    rows, bad = csv_rows(tmp_path, TITLES + CLIP.replace(old, new, 1) + good)
    assert list(bad) == ["vox-metadata.csv:2"] and reason in bad["vox-metadata.csv:2"]
    assert len(rows) == 1


def test_csv_line_of_other_bytes(tmp_path):
    rows, bad = csv_rows(tmp_path, TITLES.encode() + b"\xff\xfe\n" + CLIP.encode())
    assert len(rows) == 1 and "not UTF-8" in bad["vox-metadata.csv:2"]


# HDTF


def hdtf_rows(folder, times="", url="", crop="", lines="", name="WDA"):
    files = {
        "annotion_time": times or "AnnLee0.mp4 00:05-00:07\n",
        "video_url": url or f"\ufeffAnnLee0 https://www.youtube.com/watch?v={ID}\n",
        "crop_wh": crop or "AnnLee0_0.mp4 608 726 3 720 \n\n",
        "resolution": lines or "AnnLee0.mp4 1080\n",
    }
    for kind, text in files.items():
        (folder / f"{name}_{kind}.txt").write_bytes(text.encode())
    return split_rows(hdtf(folder))


def test_hdtf_row(tmp_path):
    (row,), bad = hdtf_rows(tmp_path)
    assert not bad
    assert (row.person, row.video, row.utterance, row.url) == ("AnnLee", ID, "AnnLee0_0", None)
    assert (row.first_frame, row.frames, row.fps) == (125, 50, 25.0)
    assert row.boxes.tolist() == [[608, 3, 726, 720]]  # upstream's order is x, width, y, height
    assert (row.box_height, row.crop_ready) == (1080, True)


def test_hdtf_several_spans_and_hours(tmp_path):
    (first, last), bad = hdtf_rows(
        tmp_path,
        times="AnnLee0.mp4 00:00-00:01 rubbish 1:00:00-61:00 \r\n",
        crop="AnnLee0_0.mp4 0 9 0 9\nAnnLee0_1.mp4 0 9 0 9\nAnnLee0_2.mp4 0 9 0 9\n",
    )
    assert (first.utterance, last.utterance) == ("AnnLee0_0", "AnnLee0_2")
    assert (last.first_frame, last.frames) == (90000, 1500)
    assert list(bad) == ["WDA_annotion_time.txt:1"]


def test_hdtf_radio_numbers_are_people(tmp_path):
    text = {"times": "Radio10.mp4 0:05-0:07", "crop": "Radio10_0.mp4 0 9 0 9"}
    text |= {"url": f"Radio10 https://youtu.be/{ID}", "lines": "Radio10.mp4 720"}
    (row,), _ = hdtf_rows(tmp_path, **text, name="RD")
    assert row.person == "Radio10"


@pytest.mark.parametrize(
    "url",
    [
        f"https://www.youtube.com/watch?v={ID}&t=6s",
        f"http://m.youtube.com/watch?t=6s&v={ID}",
        f"https://youtu.be/{ID}?t=6",
        f"https://youtube.com/embed/{ID}",
        f"https://www.youtube.com/shorts/{ID}",
    ],
)
def test_hdtf_youtube_addresses(tmp_path, url):
    (row,), _ = hdtf_rows(tmp_path, url=f"AnnLee0 {url}")
    assert (row.video, row.url) == (ID, None)


def test_hdtf_other_addresses(tmp_path):
    (row,), _ = hdtf_rows(tmp_path, url="AnnLee0 https://example.org/a.mp4")
    assert (row.video, row.url) == ("AnnLee0", "https://example.org/a.mp4")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"times": "AnnLee0.mp4"}, "no time span"),
        ({"times": "AnnLee0.mp4 00:07-00:05"}, "ends before"),
        ({"times": "AnnLee0.mp4 00:07-00:75"}, "59 seconds"),
        ({"times": "AnnLee0.mp4 ٠٠:٠٥-٠٠:٠٧"}, "not a time span"),
        ({"times": "Ann/Lee0.mp4 00:05-00:07"}, "unsafe identifier"),
        ({"crop": "Other_0.mp4 1 2 3 4"}, "WDA_crop_wh.txt has no readable line for AnnLee0_0"),
        ({"crop": "AnnLee0_0.mp4 1 2 3"}, "3 values instead of 4"),
        ({"crop": "AnnLee0_0.mp4 1 0 3 4"}, "positive"),
        ({"crop": "AnnLee0_0.mp4 1 x 3 4"}, "'x', not a whole number"),
        ({"crop": "AnnLee0_0.mp4 1 2 3 4\nAnnLee0_0.mp4 1 2 3 5"}, "contradicts itself"),
        ({"url": "Other https://youtu.be/x"}, "WDA_video_url.txt has no readable line"),
        ({"url": "AnnLee0 file:///etc/passwd"}, "no web address"),
        ({"url": "AnnLee0 https://www.youtube.com/playlist?list=x"}, "no video"),
        ({"lines": "AnnLee0.mp4 0"}, "resolution of AnnLee0 is 0"),
        ({"lines": "Other.mp4 720"}, "WDA_resolution.txt has no readable line"),
    ],
)
def test_hdtf_damage(tmp_path, change, reason):
    rows, bad = hdtf_rows(tmp_path, **change)
    assert not rows and list(bad) == ["WDA_annotion_time.txt:1"]
    assert reason in bad["WDA_annotion_time.txt:1"]


def test_hdtf_incomplete_folder(tmp_path):
    hdtf_rows(tmp_path)
    (tmp_path / "WDA_crop_wh.txt").unlink()
    with pytest.raises(SourceError, match=r"WDA_crop_wh.txt.*fetch the whole"):
        list(hdtf(tmp_path))


# TalkingHead-1KH


def tubes_rows(folder, text, name="train_video_tubes.txt"):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return split_rows(talkinghead1kh(folder / name))


def test_tubes_row_of_a_chunk(tmp_path):
    (row,), bad = tubes_rows(tmp_path, f"{ID}_0075, 1080, 1920, 10, 728, 671, 47, 1471, 847")
    assert not bad
    assert (row.person, row.video) == (ID, ID)
    assert row.utterance == "0075_S10_E728_L671_T47_R1471_B847"
    assert (row.first_frame, row.frames, row.fps, row.segment_start) == (10, 719, None, 4500.0)
    assert row.boxes.tolist() == [[671, 47, 800, 800]]
    assert (row.box_height, row.crop_ready, row.split) == (1080, True, None)


def test_tubes_row_of_vfhq(tmp_path):
    (row,), _ = tubes_rows(tmp_path, f"{ID}_S4386_E4534,1080,1920,4386,4534,499,0,1684,1067")
    assert (row.video, row.first_frame, row.frames) == (ID, 4386, 149)
    assert row.segment_start == 0.0


def test_tubes_of_a_folder(tmp_path):
    line = f"{ID}_0001, 720, 1280, 0, 9, 0, 0, 10, 10\n"
    tubes_rows(tmp_path, line)
    tubes_rows(tmp_path, line, "small_video_tubes.txt")
    tubes_rows(tmp_path, line.replace("0001", "0000"), "val_video_tubes.txt")
    (tmp_path / "val_video_ids.txt").write_text(ID)
    rows, bad = split_rows(talkinghead1kh(tmp_path))
    assert [(r.utterance[:4], r.split) for r in rows] == [("0000", "val"), ("0001", None)]
    assert not bad  # small repeats train, by design


def test_ids_name_no_clips(tmp_path):
    (tmp_path / "val_video_ids.txt").write_text(ID)
    for path in (tmp_path, tmp_path / "val_video_ids.txt"):
        with pytest.raises(SourceError, match="which name no clips"):
            list(talkinghead1kh(path))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (f"{ID}_0001, 720, 1280, 0, 9, 0, 0, 10", "8 values"),
        (f"{ID[1:]}_0001, 720, 1280, 0, 9, 0, 0, 10, 10", "neither"),
        (f"{ID}_1, 720, 1280, 0, 9, 0, 0, 10, 10", "neither"),
        (f"{ID[:5]}/{ID[:5]}_0001, 720, 1280, 0, 9, 0, 0, 10, 10", "neither"),
        (f"{ID}_S1_E9, 720, 1280, 0, 9, 0, 0, 10, 10", "contradicts"),
        (f"{ID}_0001, 0, 1280, 0, 9, 0, 0, 10, 10", "H or W"),
        (f"{ID}_0001, 720, 1280, 9, 8, 0, 0, 10, 10", "end is 8"),
        (f"{ID}_0001, 720, 1280, -9, 8, 0, 0, 10, 10", "start is -9"),
        (f"{ID}_0001, 720, 1280, 0, 8, 10, 0, 10, 10", "positive"),
        (f"{ID}_0001, 720, 1280, 0, 8, 1e3, 0, 10, 10", "not a whole number"),
        (b"\xff\xff", "not UTF-8"),
    ],
)
def test_tubes_damage(tmp_path, line, reason):
    line = line if isinstance(line, bytes) else line.encode()
    good = f"{ID}_0001, 720, 1280, 0, 9, 0, 0, 10, 10".encode()
    rows, bad = tubes_rows(tmp_path, good + b"\n\n" + line + b"\n")
    assert len(rows) == 1
    assert list(bad) == ["train_video_tubes.txt:3"]
    assert reason in bad["train_video_tubes.txt:3"]


# all of them


@pytest.mark.parametrize("name", READERS)
def test_missing_path_is_a_source_error(tmp_path, name):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "nowhere", tmp_path / "empty", tmp_path / "nul\0"):
        with pytest.raises(SourceError) as caught:
            list(READERS[name](path))
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
