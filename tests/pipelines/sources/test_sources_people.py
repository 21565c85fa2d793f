from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources.base import SourceError
from pipelines.sources.people import read_people

VOX1 = (
    "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\n"
    "id10001\tA.J._Buckley\tm\tIreland\tdev\n"
    "id10270\tEartha_Kitt\tf\tNew Zealand\ttest\n"
)
VOX2 = (
    "VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set \nid00012 ,n000012 ,m ,dev \nid00017 ,n17 ,f ,test \n"
)


def read(folder, text):
    path = folder / "meta.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_people(path)


@pytest.mark.parametrize(
    "change",
    [
        str,
        lambda s: "\ufeff" + s,
        lambda s: s.replace("\n", "\r\n"),
        lambda s: s.replace("\t", ","),
        lambda s: s.replace("\t", " ,"),
        lambda s: s.partition("\n")[2],
        lambda s: s.replace("\t", '"\t"').replace("\n", '"\n"')[:-1].join('""')[:-1],
    ],
)
def test_voxceleb1(tmp_path, change):
    people, bad = read(tmp_path, change(VOX1))
    assert not bad
    assert people == {
        "id10001": "train",
        "id10270": "test",
    }


@pytest.mark.parametrize(
    "change",
    [str, lambda s: "\ufeff" + s, lambda s: s.replace(" ", ""), lambda s: s.partition("\n")[2]],
)
def test_voxceleb2(tmp_path, change):
    people, bad = read(tmp_path, change(VOX2))
    assert not bad
    assert people == {"id00012": "train", "id00017": "test"}


def test_columns_go_by_their_titles(tmp_path):
    people, bad = read(tmp_path, "Set,Gender,VoxCeleb1 ID,Remark\ntest,unknown,id1,?\n")
    assert people == {"id1": "test"} and not bad


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("id1,n,m", "3 values"),
        ("id10001,n,m,x,dev", "listed twice"),
        ("../x,n,m,x,dev", "unsafe identifier"),
        ("id1,n,m,x,tset", "set is 'tset'"),
        (b"id1,\xff,m,x,dev", "not UTF-8"),
    ],
)
def test_damage(tmp_path, row, reason):
    row = row if isinstance(row, bytes) else row.encode()
    people, (bad,) = read(tmp_path, VOX1.replace("\t", ",").encode() + b"\n" + row)
    assert set(people) == {"id10001", "id10270"}
    assert bad.where == "meta.csv:5" and reason in bad.reason


def test_missing_file(tmp_path):
    with pytest.raises(SourceError, match="nowhere"):
        read_people(tmp_path / "nowhere.csv")


@given(st.binary(max_size=200) | st.text(st.sampled_from("id1,\t\"mf dev\n\r\0'"), max_size=80))
def test_any_bytes(tmp_path_factory, data):
    data = data if isinstance(data, bytes) else data.encode()
    people, bad = read(tmp_path_factory.getbasetemp(), data)
    lines = [line for line in data.removeprefix(b"\xef\xbb\xbf").splitlines() if line.strip()]
    assert len(people) + len(bad) in (len(lines), len(lines) - 1)
