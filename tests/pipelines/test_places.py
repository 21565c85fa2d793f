"""A file where a folder is meant, and the other way round: told by key when params are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines import catalog
from pipelines.errors import UserError
from pipelines.params import Params, Paths, load

NO_FOLDER = "is a file, not a folder; name a folder, or move that away"
NO_FILE = "is a folder, not a file; name the file, or move that away"
MakeParams = Callable[..., Params]
Loaded = Callable[..., list[str]]


@pytest.fixture
def wrong(tmp_path: Path, make_params: MakeParams, params_file: Callable[[Params], str]) -> Loaded:
    """Load settings; returns what is complained of, without the names of the folder and the file.

    `file` and `folder` lie in the folder.
    """
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()

    def load_them(**sections: Any) -> list[str]:
        text = json.dumps(sections).replace("@", f"{tmp_path}/")
        path = params_file(make_params(**json.loads(text)))
        try:
            load(path)
        except UserError as error:
            lines = str(error).splitlines()
            assert all(line.startswith(f"{path}: ") for line in lines)
            return [line.removeprefix(f"{path}: ").replace(f"{tmp_path}/", "@") for line in lines]
        return []

    return load_them


@pytest.mark.parametrize("name", Paths.model_fields)
def test_a_file_where_a_folder_is_meant(wrong: Loaded, name: str) -> None:
    key = f"paths.{name}"
    assert wrong(paths={name: "@file"}) == [f"{key}: @file {NO_FOLDER}"]
    assert wrong(paths={name: "file://@file"}) == [f"{key}: @file {NO_FOLDER}"]
    assert wrong(paths={name: "@file/in/it"}) == [f"{key}: @file/in/it: @file {NO_FOLDER}"]
    for good in ("@folder", "@folder/of/days/to/come", "s3://bucket/file", "memory://file"):
        assert wrong(paths={name: good}) == []


def test_a_link_to_a_disk_that_is_not_mounted(wrong: Loaded, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    (line,) = wrong(paths={"work": "@link/work"})
    assert line.startswith("paths.work: @link/work: @link is a link to nothing, not a folder; ")
    inputs = {"catalog": {"metadata": "@link"}, "download": {"mirror": "@link"}}
    assert wrong(**inputs) == [], "a machine that trains reads neither"
    (tmp_path / "disk").mkdir()
    assert wrong(paths={"work": "@link/work"}) == []


@pytest.mark.parametrize(
    "mirror", ["@file", "@file/{video_id}.mp4", "file://@file/{video_id}-{ext}"]
)
def test_a_mirror_that_is_a_file(wrong: Loaded, mirror: str) -> None:
    assert wrong(download={"mirror": mirror}) == [f"download.mirror: @file {NO_FOLDER}"]
    good = mirror.replace("file/", "folder/") if "{" in mirror else "http://x/file"
    assert wrong(download={"mirror": good}) == []
    assert wrong(download={"mirror": "{env:MIRROR}/x"}) == []


def test_sources(wrong: Loaded) -> None:
    tree = {"name": "a", "reader": "mp4", "path": "file"}
    key = "catalog.sources.a"
    assert wrong(catalog={"metadata": "@", "sources": [tree]}) == [f"{key}.path: @file {NO_FOLDER}"]
    table = {"name": "a", "reader": "vox_metadata", "path": "file", "people": "folder"}
    found = wrong(catalog={"metadata": "@", "sources": [table]})
    assert found == [f"{key}.people: @folder {NO_FILE}"]
    assert wrong(catalog={"metadata": "@file"}) == [f"catalog.metadata: @file {NO_FOLDER}"]
    assert wrong(catalog={"metadata": "@nowhere", "sources": [tree]}) == []


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"catalog": {"takedowns": "@folder"}}, "catalog.takedowns"),
        ({"download": {"cookies": "@folder"}}, "download.cookies"),
        ({"evaluate": {"frames": "@folder"}}, "evaluate.frames"),
        ({"evaluate": {"lpips": {"alex": {"url": "@folder"}}}}, "evaluate.lpips.alex.url"),
        (
            {"evaluate": {"identity": {"arcface": {"url": "@folder"}}}},
            "evaluate.identity.arcface.url",
        ),
        (
            {"evaluate": {"lpips": {"alex": {"url": "", "heads": {"url": "@folder"}}}}},
            "evaluate.lpips.alex.heads.url",
        ),
        ({"animate": {"certificate": "@file", "key": "@folder"}}, "animate.key"),
        (
            {
                "settings": {"paper": {"content": {"vggface": {"weight": 1, "url": "@folder"}}}},
            },
            "settings.paper.content.vggface.url",
        ),
    ],
)
def test_a_folder_where_a_file_is_meant(wrong: Loaded, sections: Any, key: str) -> None:
    assert wrong(**sections) == [f"{key}: @folder {NO_FILE}"]


def test_all_of_them_are_told_at_once_and_by_every_stage(
    tmp_path: Path,
    make_params: MakeParams,
    params_file: Callable[[Params], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch()
    place = str(tmp_path / "file")
    path = params_file(make_params(paths={"data": place, "work": place}))
    assert catalog.main(["--params", path]) == 2
    said = capsys.readouterr().err
    assert f"paths.data: {place} {NO_FOLDER}\n" in said and f"paths.work: {place}" in said
