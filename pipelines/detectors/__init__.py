"""Landmark backends, one a file. Importing this package loads none of their libraries."""

from __future__ import annotations

import os
from importlib import import_module

from pipelines.detectors.base import Detector, DetectorUnavailable, Landmarks, check_device

__all__ = ["BACKENDS", "Detector", "DetectorUnavailable", "Landmarks", "check_device", "load"]

BACKENDS = {
    "mediapipe": ("MediaPipe", "pip install 'likeness[mediapipe]'"),
    "face_alignment": ("FaceAlignment", "pip install 'likeness[face-alignment]'"),
}
"""Module of this package -> its class, and what installs the library behind it."""


def load(backend: str, device: str = "cpu", batch_size: int = 16) -> Detector:
    """Build a landmark detector: seconds of work, so once per worker.

    device: `cpu`, `cuda` or `cuda:N`; MediaPipe knows only the CPU. batch_size: frames of one
    clip per forward pass; MediaPipe takes them one by one.

    Raises DetectorUnavailable where the library, the weights or the GPU are missing, UserError
    for what names no device of the backend, and ValueError for a backend that does not exist.
    """
    if backend not in BACKENDS:
        raise ValueError(f"unknown landmark backend {backend!r}; known: {', '.join(BACKENDS)}")
    class_name, remedy = BACKENDS[backend]
    # Before torch is loaded: several workers share a machine, and threads that spin where they
    # wait for each other starve them.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        module = import_module(f"pipelines.detectors.{backend}")
        detector: Detector = getattr(module, class_name)(device=device, batch_size=batch_size)
    except ImportError as exc:
        raise DetectorUnavailable(
            f"the landmark backend {backend} cannot be imported ({exc}): {remedy}"
        ) from exc
    return detector
