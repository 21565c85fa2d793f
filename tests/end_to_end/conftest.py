"""The tiny corpus, the site that serves it, and one undisturbed rebuild of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rig import Rig
from tiny_setting import SETTING

from pipelines.sample import plan
from pipelines.sample.corpus import Corpus, build
from pipelines.sample.server import SampleServer

VIDEOS = 4
TINY = SETTING | {"about": "tiny network of a test", "epochs": 5}
MakeRig = Callable[..., Rig]


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The first few healthy videos of the sample corpus: ten clips of three people."""
    pytest.importorskip("skimage", reason="the sample's photographs (extra `sample`)")
    pytest.importorskip("mediapipe", reason="the extra `mediapipe`")
    every = plan.videos(0)
    healthy = [v for v in every if v.material == plan.HEALTHY and not v.fault][:VIDEOS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "videos", lambda seed: tuple(healthy))
        return build(tmp_path_factory.mktemp("corpus"), seed=0)


@pytest.fixture(scope="session")
def site(tiny_corpus: Corpus) -> Iterator[SampleServer]:
    """Gives each video over about a second, so that there is time to interrupt it."""
    slow = {video.video: "slow" for video in tiny_corpus.videos}
    with SampleServer(tiny_corpus.video_folder, slow) as server:
        yield server


@pytest.fixture(scope="session")
def make_rig(tiny_corpus: Corpus, site: SampleServer) -> MakeRig:
    """Makes rigs: `make_rig(folder, workers=1, **sections)`."""

    def make(folder: Path, workers: int = 1, **sections: Any) -> Rig:
        mode = "multi_processing" if workers > 1 else "in_memory"
        options = {"direct_running_mode": mode, "direct_num_workers": workers}
        params = {
            "name": "tiny",
            "catalog": {
                "metadata": str(tiny_corpus.metadata),
                "sources": [
                    {
                        "name": "tiny",
                        "reader": "voxceleb2",
                        "path": "txt",
                        "people": "vox2_meta.csv",
                    }
                ],
                "split": {"val": 0.5},
            },
            "download": {
                "url": site.url + "/watch/{video_id}",
                "per_minute": 6000,
                "burst": 100,
                "backoff": 0.05,
                "concurrency": 2,
            },
            "crop": {"policy": "clip"},
            "landmarks": {"backend": "mediapipe"},
            "shard": {"clips": 4, "frames": 8},
            "card": {"title": "Tiny", "licence": "cc0-1.0", "description": "For tests."},
            "beam": {"runner": "FnApiRunner", "options": options},
            "setting": "tiny",
            "settings": {"tiny": TINY},
            "ray": {"checkpoint_every": 10, "grid_every": 10},
            "adapt": {"iterations": 2},
            "evaluate": {"split": "val", "shots": [1], "holdout": 2},
        }
        # DVC wants every key that dvc.yaml names.
        params["paths"] = {"models": "models", "results": "results"} | sections.pop("paths", {})
        return Rig(folder, params | sections)

    return make


@pytest.fixture(scope="session")
def undisturbed(make_rig: MakeRig, tmp_path_factory: pytest.TempPathFactory) -> Rig:
    """The finished rebuild that every other one must equal; never changed by a test."""
    return make_rig(tmp_path_factory.mktemp("undisturbed")).run_all()
