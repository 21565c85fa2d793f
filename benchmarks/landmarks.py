"""CPU cost of the landmark backends, beside their bare networks on the same frames.

    python -m benchmarks.landmarks [--clips DIR] [--backend mediapipe] [--rounds 5]

MediaPipe: decode of the clip, detection, quality measures and the .npz, against nothing but
`FaceMesh.process` on frames already in memory; at most 4 ms of CPU a frame of 256x256.
face_alignment: the detector against a bare forward pass of its network on as many inputs
(random weights: they cost the same); at most 1.10 times as much. The two sides take turns, so
that a busy machine slows both; medians over the rounds. Exits 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from pipelines import clips, detectors, quality

MEDIAPIPE_MS = 4.0
FACE_ALIGNMENT_RATIO = 1.10


def synthesise(folder: Path, frames: int = 100) -> None:
    """Write one 256x256 clip: a photograph that drifts and turns a little."""
    import av
    import cv2
    from skimage.data import astronaut

    photograph = astronaut()
    with av.open(str(folder / "astronaut.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "18", "threads": "1"})
        stream.width = stream.height = 256
        stream.pix_fmt = "yuv420p"
        for k in range(frames):
            turn = cv2.getRotationMatrix2D((223, 110), 5 * np.sin(k / 10), 1.4)
            turn[:, 2] += np.array([128 - 223 + 6 * np.sin(k / 7), 128 - 110 + 4 * np.cos(k / 9)])
            picture = cv2.warpAffine(photograph, turn, (256, 256), flags=cv2.INTER_AREA)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process, all its threads together."""
    start = time.process_time()
    work()
    return time.process_time() - start


def report(name: str, ours: list[float], bare: list[float], frames: int) -> tuple[float, float]:
    """Print medians in ms a frame; returns ours and the median of the paired ratios."""
    ms = 1000 * median(ours) / frames
    ratio = median(a / b for a, b in zip(ours, bare, strict=True))
    print(
        f"{name}: {ms:.2f} ms of CPU a frame, bare network {1000 * median(bare) / frames:.2f} ms, "
        f"ratio {ratio:.3f} ({frames} frames, {len(ours)} rounds)"
    )
    return ms, ratio


def mediapipe(paths: list[Path], rounds: int) -> bool:
    """The whole MediaPipe path against bare FaceMesh."""
    import mediapipe as mp

    detector = detectors.load("mediapipe")
    bare = mp.solutions.face_mesh.FaceMesh(max_num_faces=1)
    decoded = [clips.read_frames(path) for path in paths]
    frames = sum(map(len, decoded))
    box = np.array([[56, 40, 144, 176]], np.float32)

    def whole_path() -> None:
        with tempfile.TemporaryDirectory() as out:
            for path in paths:
                pictures = clips.read_frames(path)
                found = detector(pictures, None)
                measures = quality.measure(pictures, found, box)
                arrays = measures.arrays() | {"points": found.points}
                (Path(out) / f"{path.stem}.npz").write_bytes(clips.pack_arrays(arrays))

    def parts() -> None:
        spent = {"decode": cpu_seconds(lambda: [clips.read_frames(path) for path in paths])}
        found: list[detectors.Landmarks] = []
        spent["detect"] = cpu_seconds(lambda: found.extend([detector(d, None) for d in decoded]))
        pairs = list(zip(decoded, found, strict=True))
        spent["measure"] = cpu_seconds(lambda: [quality.measure(d, f, box) for d, f in pairs])
        seen = sum(int((f.confidence > 0).sum()) for f in found)
        print("  " + ", ".join(f"{k} {1000 * v / frames:.2f} ms" for k, v in spent.items()))
        print(f"  a face in {seen} of {frames}")

    def process_all() -> None:
        for pictures in decoded:
            for picture in pictures:
                bare.process(picture)

    whole_path()  # warm up
    process_all()
    sides = [(cpu_seconds(whole_path), cpu_seconds(process_all)) for _ in range(rounds)]
    ms, _ = report("mediapipe", [s[0] for s in sides], [s[1] for s in sides], frames)
    parts()
    return ms <= MEDIAPIPE_MS


def face_alignment(pictures: npt.NDArray[np.uint8], rounds: int, batch_size: int) -> bool:
    """The FAN detector against its network alone."""
    import torch
    from face_alignment.models import FAN

    with tempfile.TemporaryDirectory() as home:
        os.environ["TORCH_HOME"] = home
        cache = Path(home) / "hub" / "checkpoints"
        cache.mkdir(parents=True)
        network = FAN(4).eval()
        torch.save(network.state_dict(), cache / "2DFAN4-11f355bf06.pth.tar")
        detector = detectors.load("face_alignment", batch_size=batch_size)
    box = np.array([[56, 40, 144, 176]], np.float32)
    inputs = torch.rand(len(pictures), 3, 256, 256)

    def forward() -> None:
        with torch.inference_mode():
            for start in range(0, len(inputs), batch_size):
                network(inputs[start : start + batch_size])

    def detect() -> None:
        detector(pictures, box)

    detect()
    forward()
    sides = [(cpu_seconds(detect), cpu_seconds(forward)) for _ in range(rounds)]
    _, ratio = report("face_alignment", [s[0] for s in sides], [s[1] for s in sides], len(pictures))
    return ratio <= FACE_ALIGNMENT_RATIO


def main() -> int:
    """Run the benchmark; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=Path, help="a folder of .mp4 crops; default: synthesised")
    parser.add_argument("--limit", type=int, default=40, help="at most so many clips")
    parser.add_argument("--backend", choices=list(detectors.BACKENDS), help="default: both")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--faces", type=int, default=8, help="frames for face_alignment")
    parser.add_argument("--batch-size", type=int, default=4)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning, module="google.protobuf")
    good = True
    with tempfile.TemporaryDirectory() as folder:
        if args.clips is None:
            synthesise(Path(folder))
        paths = sorted((args.clips or Path(folder)).glob("**/*.mp4"))[: args.limit]
        if not paths:
            parser.error(f"--clips {args.clips}: no .mp4 there (or --limit below 1)")
        if args.backend in (None, "mediapipe"):
            good &= mediapipe(paths, args.rounds)
        if args.backend in (None, "face_alignment"):
            pictures = clips.read_frames(paths[0], range(args.faces))
            good &= face_alignment(pictures, args.rounds, args.batch_size)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
