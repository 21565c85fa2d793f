"""What older settings left goes, and nothing that is in use."""

from __future__ import annotations

from pathlib import Path

from rig import BEAM_STAGES, Rig, stamps


def media(rig: Rig) -> set[str]:
    """Videos, crops and landmarks in the work folder."""
    folders = ("videos", "crops", "landmarks")
    return {name for folder in folders for name in stamps(rig.work / folder)}


def test_only_what_no_stage_reads_goes(undisturbed: Rig, tmp_path: Path) -> None:
    rig = undisturbed.copy_to(tmp_path / "again")
    before = media(rig)
    rig.change("crop", margin=0.4)
    line = rig.run("prune", "--delete").one_line(2)
    assert "crop has" in line and "dvc repro card" in line
    rig.run_all("crop", "landmarks", "shard")
    made, hashes = media(rig), rig.hashes()
    half = rig.work / "partial" / ("0" * 16) / "video.mp4.part"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"of a URL that nobody asks for any more")
    assert before < made
    listed = rig.run("prune").check()
    assert "crops" in listed.out and "without --delete" in listed.out and media(rig) == made
    assert "deleted" in rig.run("prune", "--delete").check().out
    left = media(rig)
    assert not half.exists()
    assert len(list((rig.work / "plans").iterdir())) == 1, "of the settings as they are"
    assert left < made and len(left) == len(before), "as many as of the settings before"
    kept = {stage: rig.records(stage) for stage in BEAM_STAGES}
    rig.run_all()
    assert rig.hashes() == hashes
    assert {stage: rig.records(stage) for stage in BEAM_STAGES} == kept, "nothing was made anew"
    assert "is old" in rig.run("prune", "--delete").check().out


def test_a_damaged_record_and_a_stage_at_work_are_one_line(
    undisturbed: Rig, tmp_path: Path
) -> None:
    rig = undisturbed.copy_to(tmp_path / "busy")
    next((rig.work / "records" / "crop").glob("*/*.arrow")).write_bytes(b"torn")
    line = rig.run("prune", "--delete").one_line(2)
    assert "crop: damaged record" in line and "python -m pipelines.crop" in line
    (rig.work / "tmp" / "another-host-1").mkdir(parents=True)
    assert "seems to be at work" in rig.run("prune", "--delete").one_line(2)
