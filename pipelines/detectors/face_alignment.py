"""68 landmarks from the Face Alignment Network (2D-FAN-4), on CPU or CUDA.

Bulat and Tzimiropoulos 2017 (arXiv 1703.07332); package face-alignment 1.5. Its network is
called directly: the package passes one frame at a time, which leaves a GPU idle, and spends
more on torch operations of two elements than on the rest of the crop. Crops and heat maps are
handled by the same formulas, so the points are the package's own, to the pixel.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from face_alignment import FaceAlignment as Library
from face_alignment import LandmarksType, api
from face_alignment.detection.sfd import sfd_detector

from pipelines.detectors.base import (
    POINTS,
    DetectorUnavailable,
    Landmarks,
    check_device,
    cut,
)

FAN_URL: str = api.models_urls["2DFAN-4"]
SFD_URL: str = sfd_detector.models_urls["s3fd"]

_INPUT = 256  # side of the network's input
_CELLS = 64  # side of its heat maps
_REFERENCE = 195.0  # mean of width and height, x2, of a face box that the network sees at scale 1
_SIDE = 200.0  # pixels of the picture that the input shows at scale 1
_RAISE = 0.12  # the input's centre lies this share of the box height above the box's centre


class FaceAlignment:
    """2D-FAN-4 as a `Detector`.

    The confidence is the mean over the points of their heat maps' peaks, clipped to 0..1: the
    network was trained towards peaks of 1, and blur or occlusion flattens them. The points lie
    on whole pixels, as the package gives them. Without annotated boxes the S3FD detector
    (Zhang et al. 2017, arXiv 1708.05237) finds the faces, and the largest is taken.

    A batch holds frames of one clip. Another batch size may change the last bits of the heat
    maps, as may other hardware: keep both fixed where bytes are compared.
    """

    name = "face_alignment"

    def __init__(self, device: str = "cpu", batch_size: int = 16) -> None:
        """Load the network's weights from the torch hub cache, or fetch them (95 MB).

        Raises DetectorUnavailable where they are in neither place, are damaged, or where there
        is no such GPU here, and UserError for what names no device.
        """
        check_device(self.name, device)
        if device != "cpu" and not torch.cuda.is_available():
            raise DetectorUnavailable(
                f"landmarks.device is {device!r}, but torch sees no GPU: set it to cpu, or install "
                "a CUDA build of torch on a machine with an NVIDIA GPU"
            )
        self._device = device
        self._batch_size = batch_size
        self._finder: Any = None
        self._net = _with_weights(
            FAN_URL,
            lambda: (
                Library(
                    LandmarksType.TWO_D,
                    device=device,
                    flip_input=False,  # twice the work for a fraction of a pixel
                    face_detector="folder",  # builds no detector
                    compile=False,  # slower on a CPU, and its cache is not reproducible
                ).face_alignment_net
            ),
        )
        # The package turns this on, and then the fastest kernel of the moment decides the bits.
        torch.backends.cudnn.benchmark = False

    def __call__(
        self, frames: npt.NDArray[np.uint8], face_boxes: npt.NDArray[np.float32] | None
    ) -> Landmarks:
        """Find the landmarks of one clip; see `Detector`."""
        n = len(frames)
        points = np.full((n, POINTS, 2), np.nan, np.float32)
        confidence = np.zeros(n, np.float32)
        boxes = self._find(frames) if face_boxes is None else np.broadcast_to(face_boxes, (n, 4))
        seen = np.flatnonzero((boxes[:, 2:] > 0).all(axis=1))  # a NaN is not greater
        for start in range(0, len(seen), self._batch_size):
            rows = seen[start : start + self._batch_size]
            points[rows], confidence[rows] = self._align(frames[rows], boxes[rows])
        return Landmarks(points, confidence)

    def _align(
        self, frames: npt.NDArray[np.uint8], boxes: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """One forward pass: (n, h, w, 3) frames and their boxes to points and confidences."""
        boxes_64 = boxes.astype(np.float64)
        size = boxes_64[:, 2:]
        sides = _SIDE * size.sum(axis=1) / _REFERENCE  # (n,)
        centres = boxes_64[:, :2] + size / 2
        centres[:, 1] -= _RAISE * size[:, 1]

        crops = np.empty((len(frames), _INPUT, _INPUT, 3), np.uint8)
        for i, frame in enumerate(frames):
            # The package counts pixels from 1 and cuts towards zero.
            low = np.trunc(centres[i] + (1 / _INPUT - 0.5) * sides[i]).astype(int)
            high = np.trunc(centres[i] + 0.5 * sides[i]).astype(int)
            patch = cut(frame, *low, *np.maximum(high, low + 1))
            cv2.resize(patch, (_INPUT, _INPUT), dst=crops[i], interpolation=cv2.INTER_LINEAR)
        with torch.inference_mode():
            batch = torch.from_numpy(crops).to(self._device).permute(0, 3, 1, 2).contiguous()
            cells, peaks = _decode(self._net(batch.float().div_(255))[-1])
        scaled = cells.cpu().numpy().astype(np.float64) / _CELLS - 0.5
        points = np.trunc(scaled * sides[:, None, None] + centres[:, None])
        confidence = peaks.mean(dim=1).clamp(0, 1).cpu().numpy()
        return points.astype(np.float32), confidence

    def _find(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """The largest face of every frame, (n, 4) x, y, w, h; NaN where there is none."""
        if self._finder is None:
            self._finder = _with_weights(
                SFD_URL, lambda: sfd_detector.SFDDetector(device=self._device)
            )
        boxes = np.full((len(frames), 4), np.nan, np.float32)
        for i, frame in enumerate(frames):
            found = [np.asarray(face[:4]) for face in self._finder.detect_from_image(frame)]
            if found:
                left, top, right, bottom = max(
                    found, key=lambda f: float((f[2] - f[0]) * (f[3] - f[1]))
                )
                boxes[i] = left, top, right - left, bottom - top
        torch.backends.cudnn.benchmark = False  # S3FD turns it on as well
        return boxes


def _decode(heat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Heat maps (n, 68, 64, 64) to points (n, 68, 2) in cells and peaks (n, 68).

    A point sits in the middle of the highest cell, moved a quarter of a cell towards the
    higher neighbour on either axis unless it lies at the rim.
    """
    peaks, at = heat.float().flatten(2).max(dim=2)
    x, y = at % _CELLS, at // _CELLS
    inner = (x > 0) & (x < _CELLS - 1) & (y > 0) & (y < _CELLS - 1)
    flat = heat.flatten(2)
    centre = torch.where(inner, at, _CELLS + 1)[..., None]  # any inner cell will do at the rim

    def slope(step: int) -> torch.Tensor:
        ahead, behind = flat.gather(2, centre + step), flat.gather(2, centre - step)
        return torch.sign(ahead - behind).squeeze(2) * inner

    cells = torch.stack([x + 0.25 * slope(1), y + 0.25 * slope(_CELLS)], dim=-1) + 0.5
    return cells, peaks


def _with_weights(url: str, build: Any) -> Any:
    """Build a network whose weights come from the torch hub cache or, once, from `url`."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    cached = path.exists()
    try:
        return build()
    except Exception as exc:  # unpickling a damaged file can raise anything
        if not cached and not path.exists():
            raise DetectorUnavailable(
                f"the weights {path.name} are not in {path.parent} and could not be fetched from "
                f"{url} ({exc}). Offline: fetch that address elsewhere, put the file into that "
                "folder (TORCH_HOME moves it), or set landmarks.backend to mediapipe, which "
                "needs no download"
            ) from exc
        raise DetectorUnavailable(
            f"the weights {path} cannot be read ({type(exc).__name__}): delete the file and run "
            f"again, or fetch {url} anew"
        ) from exc
