"""Verify believes nothing: every way in which a manifest or a tar could lie is found."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines import engine, manifest, shard, storage, verify
from pipelines.manifest import ManifestReader, ManifestWriter
from pipelines.params import Params
from pipelines.verify import Lie

Row = dict[str, Any]
Change = Callable[[list[Row]], object]
pytestmark = pytest.mark.usefixtures("without_beam")


def first_tar(params: Params) -> Path:
    return sorted(Path(params.paths.data, "shards").rglob("*.tar"))[0]


def change(params: Params, stage: str, how: Change) -> None:
    """Rewrite a manifest with its rows changed."""
    url = params.paths.manifest(stage)
    schema = ManifestReader(url)._file.schema_arrow
    rows = manifest.read(url).to_pylist()
    how(rows)
    with ManifestWriter(url, schema) as writer:
        writer.write(pa.Table.from_pylist(rows, schema=schema))


def forge(params: Params, data: bytes) -> None:
    """Replace the first tar, and make checksum and index agree with it."""
    path = first_tar(params)
    path.write_bytes(data)
    sha256 = storage.digest_bytes(data)
    path.with_suffix(".tar.sha256").write_text(f"{sha256}  {path.name}\n")

    def agree(rows: list[Row]) -> None:
        for row in rows:
            if row["shard"] == path.stem:
                row |= {"shard_sha256": sha256, "shard_bytes": len(data)}

    change(params, "shard", agree)


def repacked(path: Path, how: Callable[[tarfile.TarInfo], object] = lambda _: None) -> bytes:
    """The same members in a new tar, headers changed."""
    sink = io.BytesIO()
    with tarfile.open(path) as old, tarfile.open(fileobj=sink, mode="w") as new:
        for member in old.getmembers():
            body = old.extractfile(member)
            how(member)
            new.addfile(member, body)
    return sink.getvalue()


def test_the_truth_passes_and_is_counted(told: Params) -> None:
    counted = verify.verify(told)
    index = manifest.read(told.paths.manifest("shard")).to_pylist()
    assert counted["clips"] == len(index)
    assert counted["shards"] == len({row["shard"] for row in index})
    assert counted["frames"] == sum(len(row["frame_numbers"]) for row in index)
    assert verify.verify(told, full=False) == counted
    forge(told, first_tar(told).read_bytes())
    assert verify.verify(told) == counted


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_flipped_bit_of_a_tar_is_found(told: Params, data: st.DataObject) -> None:
    path = first_tar(told)
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    flip = 1 << data.draw(st.integers(0, 7))
    path.write_bytes(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
    try:
        with pytest.raises(Lie, match="its sha256 is not the recorded one"):
            verify.verify(told, full=False)
    finally:
        path.write_bytes(whole)


def test_ready_crops_of_an_older_version_are_no_lie(told: Params) -> None:
    """They were told by person and video; another name is still one."""

    def ready(rows: list[Row]) -> None:
        for row in rows:
            row["media"] = f"{row['key']}.mp4"

    def named(form: str) -> Change:
        return lambda rows: [r.update(video=form.format(r["video"][-1])) for r in rows]

    change(told, "catalog", ready)
    for form in ("vox/id{0}/v{0}", "id{0}/v{0}"):
        change(told, "download", named(form))
        verify.verify(told)
    change(told, "download", named("v{0}"))
    with pytest.raises(Lie, match="catalog -> downloads: 3 videos wanted, 3 rows"):
        verify.verify(told)


def copied(tar: Path, to: Path) -> None:
    to.parent.mkdir(parents=True)
    shutil.copy(tar, to)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-512]), r"\d+ bytes, the index says \d+"),
        (lambda p: p.write_bytes(p.read_bytes() + bytes(512)), r"\d+ bytes, the index says"),
        (lambda p: p.write_bytes(b""), "0 bytes, the index says"),
        (lambda p: p.unlink(), "indexed, but not there"),
        (lambda p: p.with_name("x-train-00001.tar").write_bytes(b""), "no index row speaks of it"),
        (lambda p: p.with_name("notes.txt").touch(), "no index row speaks of it"),
        (lambda p: (p.parents[1] / "stray.tar").touch(), "no index row speaks of it"),
        (lambda p: p.with_name(".tmp-a-1-b.tar").touch(), "no index row speaks of it"),
        (lambda p: copied(p, p.parents[1] / "extra" / p.name), "no index row speaks of it"),
        (lambda p: copied(p, p.parent / "more" / "train" / p.name), "no index row speaks of it"),
        (
            lambda p: p.with_suffix(".tar.sha256").write_text("0" * 64),
            "is not the checksum of its tar",
        ),
        (lambda p: p.with_suffix(".tar.sha256").unlink(), "sha256: is not there; run the shard"),
    ],
)
def test_files_that_are_not_what_was_written(
    told: Params, spoil: Callable[[Path], object], words: str
) -> None:
    spoil(first_tar(told))
    with pytest.raises(Lie, match=words):
        verify.verify(told)


@pytest.mark.parametrize(
    ("stage", "how", "words"),
    [
        ("shard", lambda rows: rows.pop(), "landmarks -> index: 4 ok, 3 indexed"),
        ("shard", lambda rows: rows.append(rows[0]), "landmarks -> index"),
        ("shard", lambda rows: rows[0].update(key="other"), "landmarks -> index"),
        ("landmarks", lambda rows: rows.pop(), "crop -> landmarks: expected a row for"),
        ("landmarks", lambda rows: rows.append(rows[-1]), "crop -> landmarks: expected a row for"),
        ("landmarks", lambda rows: rows[0].update(status="blurred"), "landmarks -> index"),
        (
            "landmarks",
            lambda rows: rows[0].update(crop_sha256="other"),
            "crop -> landmarks: .*other",
        ),
        ("crop", lambda rows: rows[0].update(sha256="cut anew"), "crop -> landmarks: .*cut anew"),
        ("crop", lambda rows: rows.pop(0), "catalog -> crop: expected a row for"),
        ("crop", lambda rows: rows.reverse(), "catalog -> crop: expected a row for"),
        ("catalog", lambda rows: rows.pop(), None),  # a filtered row: nobody's but its own
        ("catalog", lambda rows: rows.pop(0), "catalog -> crop"),
        ("download", lambda rows: rows.pop(), "catalog -> downloads: 3 videos wanted, 2 rows"),
        ("download", lambda rows: rows.append(rows[0]), "a video has two rows"),
        (
            "catalog",
            lambda rows: [row.update(split="test") for row in rows],
            "the catalog puts these clips elsewhere",
        ),
        (
            "shard",
            lambda rows: rows[0]["frame_offsets"].__setitem__(0, 1024),
            "the index says .*000.jpg', 1024, .* the tar holds",
        ),
        ("shard", lambda rows: rows[0].update(json_size=5), "the index says .*json', .*, 5"),
        ("shard", lambda rows: rows[0].update(landmarks_offset=0), "the index says .*npy"),
        ("shard", lambda rows: rows[0].update(shard_bytes=5), "the index says 5"),
        ("shard", lambda rows: rows[0].update(frames=99), "landmarks -> index: .* 99\\)"),
        ("shard", lambda rows: rows[0].update(person="other"), "says person = "),
        ("shard", lambda rows: rows[0]["frame_numbers"].__setitem__(0, 1), "says frame_numbers"),
    ],
)
def test_manifests_that_do_not_say_what_is(
    told: Params, stage: str, how: Change, words: str | None
) -> None:
    change(told, stage, how)
    if words is None:
        verify.verify(told)
        return
    with pytest.raises(Lie, match=words):
        verify.verify(told)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (lambda m: setattr(m, "mtime", 1), "carries a clock or an owner"),
        (lambda m: setattr(m, "uid", 1000), "carries a clock or an owner"),
        (lambda m: setattr(m, "gid", 1000), "carries a clock or an owner"),
        (lambda m: setattr(m, "uname", "me"), "carries a clock or an owner"),
        (lambda m: setattr(m, "gname", "us"), "carries a clock or an owner"),
        (lambda m: setattr(m, "mode", 0o755), "no plain file of mode 644"),
        (lambda m: setattr(m, "name", "x" + m.name), "the index says .*, the tar holds"),
    ],
)
def test_tars_whose_headers_tell_what_they_should_not(
    told: Params, how: Callable[[tarfile.TarInfo], object], words: str
) -> None:
    forge(told, repacked(first_tar(told), how))
    with pytest.raises(Lie, match=words):
        verify.verify(told)


def test_a_member_too_many_or_too_few_is_found_though_the_checksum_agrees(told: Params) -> None:
    whole = first_tar(told).read_bytes()
    sink = io.BytesIO(whole)
    with tarfile.open(fileobj=sink, mode="a") as tar:
        tar.addfile(tarfile.TarInfo("extra.txt"))
    forge(told, sink.getvalue())
    with pytest.raises(Lie, match=r"the index says None, the tar holds \('extra.txt'"):
        verify.verify(told)
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        last = tar.getmembers()[-1].offset
    forge(told, whole[:last] + bytes(1024))
    with pytest.raises(Lie, match="the tar holds None"):
        verify.verify(told)
    forge(told, b"rubbish" * 1000)
    with pytest.raises(Lie, match="not a whole tar"):
        verify.verify(told)


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        (".000.jpg", "000.jpg does not open"),
        (".landmarks.npy", "a member does not open"),
        (".json", "a member does not open"),
    ],
)
def test_a_member_that_does_not_open_is_found_unless_in_a_hurry(
    told: Params, ending: str, words: str
) -> None:
    data = bytearray(first_tar(told).read_bytes())
    with tarfile.open(first_tar(told)) as tar:
        member = next(m for m in tar if m.name.endswith(ending))
    data[member.offset_data : member.offset_data + member.size] = b"\xfe" * member.size
    forge(told, bytes(data))
    verify.verify(told, full=False)
    with pytest.raises(Lie, match=words):
        verify.verify(told)


def test_rows_of_a_shard_that_are_not_together(told: Params) -> None:
    change(told, "shard", lambda rows: rows.insert(0, rows.pop()))
    with pytest.raises(Lie, match="vox-val-00000"):
        verify.verify(told)


# --- the command -------------------------------------------------------------------------------


@pytest.fixture
def command(
    told: Params, params_file: Callable[[Params], str], exit_codes: list[int]
) -> Callable[..., int]:
    return lambda *words: verify.main(["--params", params_file(told), *words])


def test_the_command_says_what_was_checked(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command() == 0
    assert capsys.readouterr().out.startswith("verify: all true (")
    assert command("--quick") == 0


def test_a_lie_is_one_line_and_exit_1(
    command: Callable[..., int], told: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    first_tar(told).unlink()
    assert command() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(".tar: indexed, but not there")


def test_a_missing_manifest_is_exit_2_and_a_damaged_one_is_one_line(
    command: Callable[..., int], told: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(told.paths.manifest("landmarks"))
    whole = path.read_bytes()
    path.unlink()
    assert command() == 2
    for damaged in (b"", whole[: len(whole) // 2], whole[:50] + bytes(200) + whole[250:]):
        path.write_bytes(damaged)
        assert command() in (1, 2)
    assert all(line.startswith("likeness: ") for line in capsys.readouterr().err.splitlines())


def test_two_clips_of_one_name_in_a_tar_are_told(finished: Callable[..., Params]) -> None:
    told = finished([4])
    engine.run(shard.prepare(told))
    path = first_tar(told)
    first, second = manifest.read(told.paths.manifest("shard"))["key"].to_pylist()[:2]

    def rename(rows: list[Row]) -> None:
        for row in rows:
            row["key"] = row["key"].replace(second, first)

    for stage in ("catalog", "crop", "landmarks", "shard"):
        change(told, stage, rename)

    def renamed(member: tarfile.TarInfo) -> None:
        member.name = member.name.replace(second, first)

    forge(told, repacked(path, renamed))
    with pytest.raises(Lie, match=f"two members are called {first}"):
        verify.verify(told)


def test_another_picture_passes_where_checksum_and_index_were_written_anew(told: Params) -> None:
    """As SECURITY.md says: a sha256 tells that a tar is whole, not who made it."""
    data = bytearray(first_tar(told).read_bytes())
    with tarfile.open(first_tar(told)) as tar:
        one, other = [m for m in tar if m.name.endswith(".jpg")][:2]
    least = min(one.size, other.size)  # the rest of a longer one lies behind its end
    assert one.size >= other.size
    body = data[other.offset_data : other.offset_data + least]
    data[one.offset_data : one.offset_data + one.size] = body + bytes(one.size - least)
    first_tar(told).write_bytes(data)
    with pytest.raises(Lie, match="its sha256 is not the recorded one"):
        verify.verify(told)
    forge(told, bytes(data))
    verify.verify(told)


def test_a_manifest_of_rubbish_is_one_line(
    command: Callable[..., int], told: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    url = told.paths.manifest("shard")
    table = manifest.read(url)
    bytes_of = pa.array([b"\xe9d1"] * len(table)).cast(pa.string(), safe=False)
    at = table.schema.get_field_index("person")
    for other, words in (
        (
            table.rename_columns(["vidfo" if n == "video" else n for n in table.schema.names]),
            "video",
        ),
        (table.set_column(at, "person", bytes_of), "does not open"),
    ):
        with ManifestWriter(url, other.schema) as writer:
            writer.write(other)
        assert command() in (1, 2)
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1
