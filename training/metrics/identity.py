"""CSIM: the cosine similarity of two faces in the features of a face recognition network.

Named `CSIM` only with InsightFace's ArcFace (Deng et al. 2019, arXiv 1801.07698; w600k_r50.onnx
of its buffalo_l package); with other weights it is `CSIM-<network>`.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipelines.errors import UserError
from training.metrics.alignment import similarity
from training.perceptual import BackboneUnavailable, Weights, default_cache, fetch

Name = Literal["arcface", "mobilefacenet"]
Pixels = npt.NDArray[np.uint8]
Points = npt.NDArray[np.floating]
Embeddings = npt.NDArray[np.float32]

ARCFACE_SHA256 = "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43"
"""Of w600k_r50.onnx."""

SIDE = 112
TEMPLATE = np.array(
    [
        *([38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366]),
        *([41.5493, 92.3655], [70.7299, 92.2041]),
    ]
)
"""Where ArcFace expects the eyes, the tip of the nose and the mouth's corners, (5, 2) pixels."""


class Identity:
    """A face recognition network in ONNX, on the CPU."""

    def __init__(self, name: Name, weights: Weights, threads: int = 0) -> None:
        """Raises BackboneUnavailable for weights that cannot be had, UserError without onnxruntime.

        threads: 0 lets the library choose.
        """
        try:
            import onnxruntime
        except ImportError:
            raise UserError(
                "evaluate.identity needs onnxruntime: pip install 'likeness[train]'"
            ) from None
        path = fetch(name, weights, default_cache())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
            (self._input,) = (i for i in self._session.get_inputs())
            if [*self._input.shape[1:]] != [3, SIDE, SIDE]:
                raise ValueError(f"its input is {self._input.shape}")
        except Exception as error:  # onnxruntime has a class for each status
            reason = str(error).splitlines()[0]
            raise BackboneUnavailable(
                f"{name}: {path} is no such network ({reason}); an ONNX file is read, with one "
                f"input of n x 3 x {SIDE} x {SIDE}"
            ) from error
        self._arcface = name == "arcface"
        genuine = self._arcface and weights.sha256 and ARCFACE_SHA256.startswith(weights.sha256)
        self.metric = "CSIM" if genuine else f"CSIM-{name}"

    def embed(self, pictures: Pixels, points: Points, batch: int = 32) -> Embeddings:
        """Unit vectors (n, d) of the faces in (n, H, W, 3) whose landmarks are (n, 68, 2)."""
        faces = [align(picture, p) for picture, p in zip(pictures, points, strict=True)]
        x = np.stack(faces).transpose(0, 3, 1, 2).astype(np.float32)
        if self._arcface:  # mobilefacenet takes 0..255 and does this itself
            x = (x - 127.5) / 127.5
        parts = [
            self._session.run(None, {self._input.name: x[at : at + batch]})[0]
            for at in range(0, len(x), batch)
        ]
        found = np.concatenate(parts)
        unit: Embeddings = found / np.linalg.norm(found, axis=1, keepdims=True)
        return unit


def five_points(points: Points) -> npt.NDArray[np.float64]:
    """Eyes, tip of the nose, corners of the mouth, of (..., 68, 2): (..., 5, 2)."""
    eyes = [points[..., first : first + 6, :].mean(-2) for first in (36, 42)]
    return np.stack((*eyes, *(points[..., i, :] for i in (30, 48, 54))), axis=-2).astype(np.float64)


def align(picture: Pixels, points: Points) -> Pixels:
    """A face (H, W, 3) with landmarks (68, 2) as ArcFace sees it, (112, 112, 3); black outside."""
    forth = similarity(five_points(points), TEMPLATE)
    turn = np.linalg.inv(forth[:, :2])  # Pillow asks where each output pixel is from
    # Landmarks count from pixel centres, Pillow from corners.
    shift = 0.5 - turn @ (forth[:, 2] + 0.5)
    back = np.column_stack([turn, shift])
    image = Image.fromarray(picture).transform(
        (SIDE, SIDE), Image.Transform.AFFINE, tuple(back.ravel()), Image.Resampling.BICUBIC
    )
    return np.asarray(image)
