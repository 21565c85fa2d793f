"""The video kernel: probe, decode, cut and encode. Pure functions over paths; no Beam."""

from pipelines.video.crop_clips import crop_clips
from pipelines.video.types import ClipResult, ClipSpec, CropSettings

__all__ = ["ClipResult", "ClipSpec", "CropSettings", "crop_clips"]
