"""params.yaml: what is wrong is said in one line each, with the key and the nearest right one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipelines.detectors import BACKENDS
from pipelines.doctor.software import BACKEND_EXTRA
from pipelines.errors import UserError
from pipelines.params import MANIFESTS, Params, Paths, load
from pipelines.params.dataset import Crop, LandmarkParams
from pipelines.params.training import Evaluate
from pipelines.quality import Limits
from pipelines.video import CropSettings

ROOT = Path(__file__).resolve().parents[2]
GOOD = """
name: tiny
catalog:
  metadata: metadata
  sources:
    - {name: vox, reader: voxceleb2}
card: {title: Tiny, licence: mit, description: For tests.}
"""


def complaint(tmp_path: Path, text: str) -> list[str]:
    """The lines that `load` complains with about a params file, without its path."""
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load(path)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(str(path)) for line in lines)
    return [line.removeprefix(str(path)).removeprefix(": ") for line in lines]


def test_the_least_that_is_needed_loads_with_defaults(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(GOOD)
    params = load(path)
    assert params.crop.size == 256
    assert params.beam.runner == "FnApiRunner"
    assert params.catalog.sources[0].reader == "voxceleb2"


@pytest.mark.parametrize("name", ["params.yaml", "params/voxceleb2.yaml"])
def test_the_repository_s_own_files_load(name: str) -> None:
    assert load(ROOT / name).name in ("sample", "voxceleb2")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD + "crops: {}", "crops: unknown key; did you mean 'crop'?"),
        (GOOD + "crop: {sise: 256}", "crop.sise: unknown key; did you mean 'size'?"),
        (GOOD + "zzzzqqqq: 1", "zzzzqqqq: unknown key"),
        (
            GOOD.replace("reader:", "readr: x, reader:"),
            "catalog.sources.0.readr: unknown key; did you mean 'reader'?",
        ),
        (
            GOOD.replace("voxceleb2", "voxceleb3"),
            "catalog.sources.0.reader: input should be 'voxceleb1', 'voxceleb2', 'vox_metadata', "
            "'hdtf', 'talkinghead1kh' or 'mp4', found 'voxceleb3'; did you mean 'voxceleb2'?",
        ),
        (
            GOOD + "landmarks: {backend: mediapip}",
            "landmarks.backend: input should be 'face_alignment' or 'mediapipe', found 'mediapip'; "
            "did you mean 'mediapipe'?",
        ),
        (GOOD + "crop: {size: '256'}", "crop.size: input should be a valid integer, found '256'"),
        (GOOD + "crop: {size: 256.5}", "crop.size: input should be a valid integer"),
        (GOOD + "crop: {size: true}", "crop.size: input should be a valid integer, found True"),
        (GOOD + "crop: {size: 255}", "crop.size: input should be a multiple of 2, found 255"),
        (GOOD + "crop: {crf: 52}", "crop.crf: input should be less than or equal to 51, found 52"),
        (GOOD + "crop: {max_failed: 1.5}", "crop.max_failed: input should be less than or equal"),
        (GOOD + "crop: {max_failed: .nan}", "crop.max_failed: input should be a finite number"),
        (GOOD + "download: {backoff: .inf}", "download.backoff: input should be a finite number"),
        (GOOD + "download: {per_minute: 0}", "download.per_minute: input should be greater than 0"),
        (GOOD + "download: {extensions: mp4}", "download.extensions: input should be a valid"),
        (GOOD + "download: {extractor_args: {youtube: web}}", "download.extractor_args.youtube: "),
        (
            GOOD + "download: {url: http://site}",
            "download: download.url needs the placeholder {video_id}",
        ),
        (GOOD + "crop: 5", "crop: input should be an object, found 5"),
        (GOOD + "crop:", "crop: input should be an object, found None"),
        (GOOD.replace("name: tiny", ""), "name: this key is required"),
        (GOOD.replace("name: tiny", "name: ../up"), "name: string should match pattern"),
        (GOOD.replace("name: tiny", "name: 5"), "name: input should be a valid string, found 5"),
        (GOOD.replace("metadata: metadata", ""), "catalog.metadata: this key is required"),
        (
            GOOD.replace("- {name: vox, reader: voxceleb2}", "[]"),
            "catalog: sources must name at least one list or tree",
        ),
        (
            GOOD.replace(
                "- {name: vox, reader: voxceleb2}",
                "[{name: a, reader: mp4}, {name: a, reader: mp4}]",
            ),
            "catalog: two sources share a name: ['a', 'a']",
        ),
        (
            GOOD.replace("  sources", "  split: {val: 0.5, test: 0.5}\n  sources"),
            "catalog.split: val + test must leave a share of people to train on",
        ),
        (
            GOOD + "ray: {workers: 2, gpus_per_worker: 0.5}",
            "ray: gpus_per_worker: 0.5 needs workers: 1",
        ),
        (
            GOOD + "crop: {margin: 6e-1}",
            "crop.margin: input should be a valid number, found '6e-1'; YAML wants a point",
        ),
        (GOOD + "ray: {gpus_per_worker: 2}", "ray.gpus_per_worker: "),
        (GOOD + "evaluate: {shots: []}", "evaluate.shots: too few valid entries, wanted 1 or more"),
        (GOOD + "adapt: {ema: 1.0}", "adapt.ema: input should be less than 1, found 1.0"),
        (
            GOOD + "settings: {s: {content: {pixels: {weight: 1}}, meta: {betas: [0.5]}}}",
            "settings.s.meta.betas.1: this entry of the list is required",
        ),
        (
            GOOD + "setting: s\nsettings: {s: {batch: 4, content: {pixels: {weight: 1}}}}\n"
            "ray: {workers: 3}",
            "settings.s.batch: 4 has no equal parts for ray.workers 3",
        ),
        (
            GOOD + "setting: s\n"
            "settings: {s: {batch: 4, content: {pixels: {weight: 1}}, meta: {accumulate: 3}}}",
            "settings.s.meta.accumulate: 3 does not divide a worker's 4 episodes",
        ),
        (
            GOOD + "settings: {s: {content: {pixels: {weight: 1}}, networks: {image_size: 100}}}",
            "settings.s.networks: image_size: 100 is no power of two",
        ),
        (
            GOOD.replace("  sources", "  filters: {min_frames: 9, max_frames: 8}\n  sources"),
            "catalog.filters: min_frames 9 is above max_frames 8",
        ),
        (GOOD + "download: {extensions: [.mp4]}", "download.extensions.0: string should match"),
        (
            GOOD + "download: {mirror: 'm/{video_id}.{extt}'}",
            "download: mirror: nothing fills in {ex",
        ),
        (
            GOOD + "download: {mirror_only: true}",
            "download: mirror_only: there is no mirror to ask",
        ),
        (GOOD + "download: {extensions: []}", "download.extensions: too few valid entries"),
        (GOOD.replace("mit", "''"), "card.licence: string should have at least 1 character"),
        (GOOD + "beam: {runner: DaskRunner}", "beam: DaskRunner silently drops branches"),
        (
            GOOD + "beam: {runner: apache_beam.runners.dask.dask_runner.DaskRunner}",
            "beam: DaskRunner silently drops branches",
        ),
        ("", "expected sections such as `catalog:`, found NoneType"),
        ("- name: tiny", "expected sections such as `catalog:`, found list"),
        ("tiny", "expected sections such as `catalog:`, found str"),
        ("a: &a [*a]", "an alias holds itself: Circular reference detected"),
    ],
)
def test_every_mistake_is_one_line_that_names_its_key(
    tmp_path: Path, text: str, words: str
) -> None:
    (line,) = complaint(tmp_path, text)
    assert line.startswith(words)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (GOOD + "crop: {size: 256\nshard: {", 9),
        (GOOD + "\tcrop: 5", 8),
        ("name: tiny\ncard: 'open", 2),
        ("name: a\nname: b", 2),
        (GOOD + "crop: {size: 256, size: 128}", 8),
        (GOOD + "beam: {options: {no: 1}}", 8),
        (GOOD + "2020-01-01: x", 8),
        (GOOD + "? [a]\n: x", 8),
        ("name: !!python/object/apply:os.system [x]", 1),
    ],
)
def test_what_is_not_yaml_is_one_line_with_its_number(
    tmp_path: Path, text: str, number: int
) -> None:
    (line,) = complaint(tmp_path, text)
    assert line.startswith(f":{number}: not valid YAML: ")


def test_several_mistakes_are_all_told(tmp_path: Path) -> None:
    sections = ["crop: {sise: 1, crf: 99, preset: fats}", "shard: {clips: 0, frame: 3}", "x: 1"]
    lines = complaint(tmp_path, GOOD + "\n".join(sections))
    assert len(lines) == 6
    assert {line.split(":")[0] for line in lines} == {
        *("crop.sise", "crop.crf", "crop.preset", "shard.clips", "shard.frame", "x")
    }


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file; give one with --params FILE"):
        load(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"binary.yaml: cannot be read: "):
        load(tmp_path / "binary.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path)


def test_settings_are_frozen(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(GOOD)
    params = load(tmp_path / "params.yaml")
    with pytest.raises(ValidationError):
        params.crop.size = 128  # type: ignore[misc]
    with pytest.raises(ValidationError):
        params.name = "other"  # type: ignore[misc]


def test_manifests_lie_in_the_data_folder() -> None:
    assert Paths(data="s3://bucket/set/").manifest("crop") == "s3://bucket/set/crops.parquet"
    assert len(set(MANIFESTS.values())) == len(MANIFESTS)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(list(Params.model_fields)), plain)
def test_no_value_of_any_section_gives_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, section: str, value: object
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(GOOD) | {section: value}, allow_unicode=True))
    try:
        params = load(path)
    except UserError as error:
        assert all(line.startswith(str(path)) for line in str(error).split("\n"))
    else:
        assert isinstance(params, Params)


def test_both_files_of_the_repository_train_alike() -> None:
    ours, theirs = (load(ROOT / name) for name in ("params.yaml", "params/voxceleb2.yaml"))
    shared = ours.settings.keys() & theirs.settings.keys()
    assert shared >= {"gpu24", "paper", "paper_ff"}
    assert {name: ours.settings[name] for name in shared} == {
        name: theirs.settings[name] for name in shared
    }


def test_what_params_configure_has_their_defaults() -> None:
    """The kernels work without params, as the benchmarks use them."""
    for made, section in ((CropSettings(), Crop()), (Limits(), LandmarkParams())):
        told = section.model_dump()
        assert {name: value for name, value in asdict(made).items() if name in told} == {
            name: told[name] for name in asdict(made) if name in told
        }


def test_every_backbone_of_landmarks_is_known_everywhere() -> None:
    assert set(BACKENDS) == set(BACKEND_EXTRA)
    for section, field in ((LandmarkParams, "backend"), (Evaluate, "detector")):
        assert set(get_args(section.model_fields[field].annotation)) == set(BACKENDS)
