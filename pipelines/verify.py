"""Verify: hold manifests and tars against each other and stop at the first lie.

Checks that every manifest accounts for the rows of the one before it, that every tar has the
length and sha256 that the index and its .sha256 record, so that one changed byte is told, in a
picture too, that its members are the indexed ones at the indexed offsets, in order, no two of one
name, with no clock and no owner, that every picture, landmark array and json opens and agrees with
the index, and that no tar or clip is there that the index does not know. --quick opens no member.

The pages of manifests have checksums, so that a changed bit of a row is told in any column. It does
not look at the work folder, cards and models.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from tokenize import TokenError
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from pipelines import progress, storage
from pipelines.command import EXIT_OK, EXIT_STOPPED, arguments, guarded
from pipelines.manifest import ManifestReader
from pipelines.params import MANIFESTS, Params, load
from pipelines.schemas import IDENTITY, INDEX, LARGEST_CROP
from pipelines.shard import checksum, tar_url
from pipelines.statuses import Status
from pipelines.work_folder import files_below

Row = dict[str, Any]
_UNREADABLE = (ValueError, TypeError, KeyError, EOFError, RecursionError, TokenError)
"""What json and numpy raise over a member that is not what it should be."""


class Lie(Exception):
    """Something is not what a manifest says; the message names it."""


def verify(params: Params, full: bool = True) -> Counter[str]:
    """Check everything; returns what was checked. Raises Lie at the first difference."""
    checked: Counter[str] = Counter()
    _verify_pages(params)
    _verify_counts(params)
    checked["rows"] = sum(_rows(params, stage) for stage in MANIFESTS)
    index = ManifestReader(params.paths.manifest("shard"), INDEX.names)
    known: set[str] = set()
    total = _rows(params, "shard")
    with progress.simple("verify", "clips", total) as tick:
        for _, rows in index.groups(["shard"]):
            clips = rows.to_pylist()
            name = clips[0]["shard"]
            if name in known:
                raise Lie(f"index.parquet: the rows of {name} are not together")
            known.add(name)
            _verify_tar(params, name, clips, full)
            checked["shards"] += 1
            checked["clips"] += len(clips)
            checked["frames"] += sum(len(clip["frame_numbers"]) for clip in clips)
            tick(len(clips))
    _verify_no_strays(params, known)
    return checked


def _verify_pages(params: Params) -> None:
    """Read all columns of every manifest: Arrow holds each page against its checksum."""
    for stage in MANIFESTS:
        for _ in ManifestReader(params.paths.manifest(stage)).batches():
            pass


def _rows(params: Params, stage: str) -> int:
    return len(ManifestReader(params.paths.manifest(stage), ["source"]))


def _keys(params: Params, stage: str, only_ok: bool, *facts: str) -> Iterator[tuple[Any, ...]]:
    """Source and key of each row, and what else of it the next stage repeats."""
    columns = ["source", "key", *facts] + (["status"] if only_ok else [])
    for batch in ManifestReader(params.paths.manifest(stage), columns).batches():
        for row in batch.to_pylist():
            if not only_ok or row["status"] == Status.OK:
                yield row["source"], row["key"], *(row[name] for name in facts)


def _verify_counts(params: Params) -> None:
    """Each stage has exactly one row per ok row of the stage before, in the same order."""
    for before, said, after, repeated in (
        ("catalog", (), "crop", ()),
        ("crop", ("sha256", "frames"), "landmarks", ("crop_sha256", "frames")),
    ):
        expected, found = _keys(params, before, True, *said), _keys(params, after, False, *repeated)
        while True:
            want, got = next(expected, None), next(found, None)
            if want != got:
                raise Lie(f"{before} -> {after}: expected a row for {want}, found {got}")
            if want is None:
                break
    passed = sorted(_keys(params, "landmarks", True, "frames"))
    indexed = sorted(_keys(params, "shard", False, "frames"))
    if passed != indexed:
        odd = sorted(set(passed).symmetric_difference(indexed))[:3]
        raise Lie(f"landmarks -> index: {len(passed)} ok, {len(indexed)} indexed; first: {odd}")
    _verify_places(params)
    _verify_videos(params)


def _verify_places(params: Params) -> None:
    """Every indexed clip is in the split and shard that the catalog gave its person and video."""
    columns = ["source", "key", "split", "shard"]

    def places(stage: str) -> set[tuple[str, ...]]:
        batches = ManifestReader(params.paths.manifest(stage), columns).batches()
        return {tuple(row.values()) for batch in batches for row in batch.to_pylist()}

    if odd := sorted(places("shard") - places("catalog"))[:3]:
        raise Lie(f"catalog -> index: the catalog puts these clips elsewhere: {odd}")


def _verify_videos(params: Params) -> None:
    from pipelines.download import COLUMNS, older_name, video_name

    videos = ManifestReader(params.paths.manifest("download"), ["video"])
    known = [row["video"] for batch in videos.batches() for row in batch.to_pylist()]
    if len(known) != len(set(known)):
        raise Lie("downloads.parquet: a video has two rows")
    wanted, older = set(), set()
    for batch in ManifestReader(params.paths.manifest("catalog"), COLUMNS).batches():
        for row in batch.to_pylist():
            if row["status"] in (Status.OK, Status.EXCLUDED):
                wanted.add(video_name(row))
                older.add(older_name(row))
    if set(known) not in (wanted, older):
        odd = sorted(wanted.symmetric_difference(known))[:3]
        raise Lie(f"catalog -> downloads: {len(wanted)} videos wanted, {len(known)} rows: {odd}")


def _verify_tar(params: Params, name: str, clips: list[Row], full: bool) -> None:
    url = tar_url(params, name)
    try:
        data = storage.read_bytes(url)
    except FileNotFoundError:
        raise Lie(f"{url}: indexed, but not there") from None
    if len(data) != clips[0]["shard_bytes"]:
        raise Lie(f"{url}: {len(data)} bytes, the index says {clips[0]['shard_bytes']}")
    if storage.digest_bytes(data) != clips[0]["shard_sha256"]:
        raise Lie(f"{url}: its sha256 is not the recorded one; delete it and run the shard stage")
    sidecar = f"{url}.sha256"
    if not storage.exists(sidecar):
        raise Lie(f"{sidecar}: is not there; run the shard stage")
    if storage.read_bytes(sidecar) != checksum(clips[0]):
        raise Lie(f"{sidecar}: is not the checksum of its tar; run the shard stage")
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            members = tar.getmembers()
    except tarfile.TarError as error:
        raise Lie(f"{url}: not a whole tar: {error}") from None
    names = Counter(member.name for member in members)
    if twice := next((name for name, times in names.items() if times > 1), None):
        raise Lie(f"{url}: two members are called {twice}")
    expected = [member for clip in clips for member in _members(clip)]
    found = [(member.name, member.offset_data, member.size) for member in members]
    if expected != found:
        odd = next(pair for pair in zip_longest(expected, found) if pair[0] != pair[1])
        raise Lie(f"{url}: the index says {odd[0]}, the tar holds {odd[1]}")
    for member in members:
        if member.mtime or member.uid or member.gid or member.uname or member.gname:
            raise Lie(f"{url}: {member.name} carries a clock or an owner")
        if not member.isreg() or member.mode != 0o644:
            raise Lie(f"{url}: {member.name} is no plain file of mode 644")
    if full:
        for clip in clips:
            _verify_clip(url, clip, data)


def _members(clip: Row) -> Iterator[tuple[str, int, int]]:
    key = clip["key"]
    spans = zip(clip["frame_offsets"], clip["frame_sizes"], strict=True)
    for at, (offset, size) in enumerate(spans):
        yield f"{key}.{at:03d}.jpg", offset, size
    yield f"{key}.landmarks.npy", clip["landmarks_offset"], clip["landmarks_size"]
    yield f"{key}.json", clip["json_offset"], clip["json_size"]


def _verify_clip(url: str, clip: Row, tar: bytes) -> None:
    key = clip["key"]

    def part(name: str) -> io.BytesIO:
        offset, size = clip[f"{name}_offset"], clip[f"{name}_size"]
        return io.BytesIO(tar[offset : offset + size])

    try:
        facts = json.load(part("json"))
        side = facts["crop"]["size"]
        points = np.load(part("landmarks"), allow_pickle=False)
    except (*_UNREADABLE, MemoryError) as error:
        raise Lie(f"{url}: {key}: a member does not open: {error}") from None
    for name in (*IDENTITY, "split", "frames", "frame_numbers"):
        if facts.get(name) != clip[name]:
            raise Lie(f"{url}: {key}.json says {name} = {facts.get(name)!r}, not {clip[name]!r}")
    if points.shape != (clip["frames"], 68, 2) or points.dtype != np.float32:
        raise Lie(f"{url}: {key}.landmarks.npy is {points.dtype} {points.shape}")
    for at, (offset, size) in enumerate(
        zip(clip["frame_offsets"], clip["frame_sizes"], strict=True)
    ):
        try:
            with Image.open(io.BytesIO(tar[offset : offset + size]), formats=["JPEG"]) as picture:
                if picture.size != (side, side) or side > LARGEST_CROP:
                    shape = f"{picture.size}, not {side} x {side}"
                    raise Lie(f"{url}: {key}.{at:03d}.jpg is {shape}")
                picture.load()
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise Lie(f"{url}: {key}.{at:03d}.jpg does not open: {error}") from None


def _verify_no_strays(params: Params, known: set[str]) -> None:
    inside = {tar_url(params, name).rpartition("/shards/")[2] for name in known}
    inside |= {f"{name}.sha256" for name in inside}
    for url in files_below(storage.join(params.paths.data, "shards")):
        if url.rpartition("/shards/")[2] not in inside:
            raise Lie(f"{url}: no index row speaks of it")


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m pipelines.verify`."""
    parser = arguments(__doc__ or "")
    parser.add_argument(
        "--quick", action="store_true", help="skip opening every picture, array and json"
    )
    options = parser.parse_args(argv)

    def command() -> int:
        try:
            checked = verify(load(options.params), full=not options.quick)
        except Lie as lie:
            progress.complain(f"verify: {lie}")
            return EXIT_STOPPED
        except (pa.ArrowException, UnicodeDecodeError) as error:
            words = " ".join(str(error).split())
            progress.complain(f"verify: a manifest does not open: {words}")
            return EXIT_STOPPED
        words = ", ".join(f"{n:,} {what}" for what, n in checked.items())
        progress.say(f"verify: all true ({words})")
        return EXIT_OK

    return guarded(command)


if __name__ == "__main__":
    sys.exit(main())
