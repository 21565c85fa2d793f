"""What Beam, records and manifests add to the crop kernel.

    python -m benchmarks.overhead --corpus PATH

Cuts the same clips twice, each in a process of its own: by the kernel alone in one plain loop,
and by the whole crop stage (`python -m pipelines.crop`, one in-memory worker). Prints CPU seconds,
imports and start-up included, and their ratio; exits with 1 where it is above 1.10.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
TARGET = 1.10


def write_params(folder: Path, corpus: Path) -> Path:
    """Params of a rebuild of the corpus into `folder`."""
    params = {
        "name": "overhead",
        "paths": {name: str(folder / name) for name in ("data", "work", "metrics", "cards")},
        "catalog": {
            "metadata": str(corpus / "metadata" / "voxceleb2"),
            "takedowns": str(ROOT / "takedowns.csv"),
            "sources": [{"name": "voxceleb2", "reader": "voxceleb2"}],
        },
        "download": {"mirror": str(corpus / "videos")},
        "card": {"title": "overhead", "licence": "other", "description": "A benchmark."},
    }
    path = folder / "params.yaml"
    path.write_text(json.dumps(params))
    return path


def kernel_alone(params_file: Path) -> None:
    """The clips of the crop stage, cut by the kernel and thrown away."""
    from pipelines import crop, storage
    from pipelines.download import video_name
    from pipelines.manifest import ManifestReader
    from pipelines.params import load
    from pipelines.video import crop_clips

    params = load(params_file)
    job = crop.prepare(params)
    videos = crop.Videos(params)
    catalog = ManifestReader(params.paths.manifest("catalog"), crop.CLIP_COLUMNS)
    with storage.scratch_folder(params.paths.work) as scratch:
        for item in job.items:
            clips = catalog.rows(item.start, item.stop).to_pylist()
            path = videos[video_name(clips[0])]["path"]
            specs = [crop._spec(clip) for clip in clips]
            for _ in crop_clips(path, specs, crop.settings_of(params), lambda key: scratch / key):
                pass


def cpu_seconds(*words: str) -> float:
    """CPU seconds of a Python command, its children included."""
    before = psutil.Process().cpu_times()
    subprocess.run([sys.executable, *words], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    after = psutil.Process().cpu_times()
    spent = after.children_user - before.children_user
    return float(spent + after.children_system - before.children_system)


def main() -> int:
    """Prepare, cut twice, print; 1 where the target is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--corpus", type=Path, required=True, help="folder with videos/ and metadata/voxceleb2/txt/"
    )
    parser.add_argument("--kernel-alone", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.kernel_alone:
        kernel_alone(options.kernel_alone)
        return 0
    corpus = options.corpus.resolve()
    if not all((corpus / name).is_dir() for name in ("videos", "metadata/voxceleb2/txt")):
        parser.error(f"--corpus {options.corpus}: expected videos/ and metadata/voxceleb2/txt/")
    with tempfile.TemporaryDirectory() as name:
        params = write_params(Path(name), corpus)
        for stage in ("catalog", "download"):
            cpu_seconds("-m", f"pipelines.{stage}", "--params", str(params))
        alone = (str(Path(__file__).resolve()), "--corpus", str(corpus), "--kernel-alone")
        kernel = cpu_seconds(*alone, str(params))
        stage_cpu = cpu_seconds("-m", "pipelines.crop", "--params", str(params))
    print(f"kernel alone {kernel:.1f} CPU s, crop stage {stage_cpu:.1f} CPU s")
    ratio = stage_cpu / kernel
    print(f"ratio {ratio:.3f}, target {TARGET:.2f}")
    return 0 if ratio <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
