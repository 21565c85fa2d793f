"""`python -m pipelines`: what each stage would do, before and after it ran."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import __main__ as overview
from pipelines import engine, shard, shard_plan, storage
from pipelines.params import Params

pytestmark = pytest.mark.usefixtures("without_beam")


def test_before_anything_ran_every_stage_says_what_it_waits_for(
    make_params: Callable[..., Params],
    params_file: Callable[[Params], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    params = make_params()
    assert overview.main(["--params", params_file(params)]) == 0
    out = capsys.readouterr().out
    assert "reads vox" in out
    assert overview.outlook(params, "download").startswith("waits: ")
    for stage in overview.BEAM_STAGES:
        assert overview.outlook(params, stage).endswith("run the stage that writes it first")
        assert stage in out
    for command in (*overview.TRAINING, *overview.TOOLS):
        assert f" {command} " in out


def test_all_stages_and_further_commands_are_there() -> None:
    root = Path(overview.__file__).parents[1]
    stages = re.findall(r"cmd: python -m (\S+)", (root / "dvc.yaml").read_text())
    beam = [f"pipelines.{stage}" for stage in overview.BEAM_STAGES]
    assert stages == ["pipelines.catalog", *beam, "pipelines.card", *overview.TRAINING]
    for name in (*overview.TRAINING, *overview.TOOLS):
        place = root.joinpath(*name.split("."))
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file()


def test_the_outlook_follows_what_was_done(
    finished: Callable[..., Params],
    params_file: Callable[[Params], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    params = finished()
    assert overview.outlook(params, "download") == "3 of 3 items to do, 3 videos"
    assert overview.outlook(params, "shard") == "3 of 3 items to do, 4 clips"
    engine.run(shard.prepare(params))
    assert overview.outlook(params, "shard") == "nothing: all 3 items are done"
    Path(params.paths.data, "shards", "val", "vox-val-00000.tar").unlink()
    assert overview.outlook(params, "shard") == "1 of 3 items to do, 2 clips"
    engine.run(shard.prepare(params))
    storage.remove(params.paths.manifest("shard"))
    there = "nothing: all 3 items are done; writes its manifest"
    assert overview.outlook(params, "shard") == there
    assert overview.main(["--params", params_file(params)]) == 0
    assert "writes again from vox" in capsys.readouterr().out


def test_a_stage_that_cannot_start_says_why(finished: Callable[..., Params]) -> None:
    params = finished()
    shutil.copyfile(params.paths.manifest("crop"), params.paths.manifest("landmarks"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_plan, "LANDMARK_FACTS", [])
        assert overview.outlook(params, "shard").startswith("cannot start: shard: the manifests do")


def test_looking_changes_nothing(
    finished: Callable[..., Params], tree_bytes: Callable[[str], dict[str, bytes]]
) -> None:
    params = finished()

    def seen() -> dict[str, bytes]:
        found = tree_bytes(params.paths.data) | tree_bytes(params.paths.work)
        return {name: data for name, data in found.items() if not name.startswith("plans/")}

    before = seen()
    for stage in overview.BEAM_STAGES:
        overview.outlook(params, stage)
    assert seen() == before


def test_missing_settings_are_exit_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert overview.main(["--params", str(tmp_path / "[/none].yaml")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_names_in_brackets_are_no_markup(
    make_params: Callable[..., Params], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "[" / "none].yaml"
    path.parent.mkdir()
    path.write_text(make_params().model_dump_json(exclude_none=True))
    assert overview.main(["--params", str(path)]) == 0
    assert "[/none].yaml" in capsys.readouterr().out.replace("\n", "")
