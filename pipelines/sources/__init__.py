"""One reader a dataset: from what its publisher hands out to annotated clips.

`READERS` names them as params.yaml does. Each module's docstring states the layout, the units,
and where the data is published under which terms.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.errors import UserError
from pipelines.sources.base import Reader
from pipelines.sources.hdtf import hdtf
from pipelines.sources.mp4 import mp4
from pipelines.sources.talkinghead1kh import talkinghead1kh
from pipelines.sources.vox_metadata import vox_metadata
from pipelines.sources.voxceleb import voxceleb1, voxceleb2

READERS: dict[str, Reader] = {
    "voxceleb2": voxceleb2,
    "voxceleb1": voxceleb1,
    "vox_metadata": vox_metadata,
    "hdtf": hdtf,
    "talkinghead1kh": talkinghead1kh,
    "mp4": mp4,
}


def metadata_folder(path: str) -> Path:
    """`catalog.metadata`. Raises UserError where it is not there: no source is to blame then."""
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(
            f"catalog.metadata: {path}: no such folder; fetch the published lists or mend the path"
        )
    return folder
