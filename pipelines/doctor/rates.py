"""What a unit of work costs, each number with the measurement it comes from.

CPU seconds are of the 2-core x86-64 virtual machine of benchmarks/README.md, `TERAFLOP` of the
later one there; other machines differ, ratios less so. "Real run" is an earlier pass of that in
docs/real-run.md, on a quieter machine: 68 videos, 152 clips, 17,530 frames of 0.323 megapixels on
average; its per-item times were split into the terms below by least squares and scaled to its CPU
seconds.
"""

from __future__ import annotations

# --- CPU seconds

PROCESS = 1.5
"""Start of a process with Beam: the whole catalog stage of the real run took 1.7."""
CATALOG_CLIP = 193e-6
"""benchmarks/README.md, catalog, 10,000 clips of 200 frames: 193 us a clip."""
PROBE_VIDEO, PROBE_SECOND = 0.01, 0.002
"""Real run from a mirror folder: 6.6 CPU s for 68 videos of 764 s, start-up included."""
SITE_VIDEO = 0.2
"""Real run: 19.9 CPU s through yt-dlp against 6.6 from the folder. A loopback site: YouTube's
own pages and scripts cost more, but the wait for `per_minute` costs far more."""
CROP_VIDEO, CROP_FRAME, CROP_MEGAPIXEL = 0.1, 2.2e-3, 4.3e-3
"""Real run, crop: 67.8 to 72.3 CPU s. The last is for each megapixel of each source frame."""
LANDMARK_VIDEO = 0.12
LANDMARK_FRAME = {"mediapipe": 4.9e-3, "face_alignment": 1.487}
"""Real run: 89.2 to 94.6 CPU s for 17,530 frames, busy; benchmarks/README.md has 3.9 ms on a
free core, and 1,487 ms for face_alignment on a CPU."""
LANDMARK_FRAME_GPU = 0.01
"""face_alignment on a GPU. NOT MEASURED: no GPU could be had with its weights."""
SHARD_FRAME, SHARD_PICTURE = 0.65e-3, 0.95e-3
"""Real run, shard: 18.1 to 20.3 CPU s for 17,487 frames and 4,768 pictures."""
CARD = 6.0
"""Card and report of the real run, nearly all of it start-up."""
META_START = 35.0
"""Ray, its processes and TensorBoard, whatever is trained: measured on the demo."""
TERAFLOP = 12.5
"""benchmarks/README.md, meta step: median 13.07 CPU s a sample of 1.041 TFLOP, one thread, fp32."""
META_TERAFLOPS = 0.79
"""A sample's work at 256 px, K = 8 and the paper's channels, without the content networks: what the
flop counter of `benchmarks/step.py` sees, less these."""
CONTENT_TERAFLOPS = {"vgg19": 0.142, "random": 0.142, "vggface": 0.113, "squeezenet": 0.002}
"""Of each content network at 256 px, two pictures forward and one back, by the same counter."""

# --- bytes

CATALOG_BYTES = 700
"""A row of catalog.parquet in the real run: 103,734 bytes for 152."""
MANIFEST_BYTES = 1_600
"""A clip's rows in the other manifests: 229,585 bytes for 152."""
BITS_PER_PIXEL = 0.081
"""The real run's 68 videos: 65.0 MB for 764 s. High resolutions need fewer: an upper figure."""
CROP_SECOND = 31_300
"""Real run: 21.95 MB for 701 s of 256 px clips, sound included; grows with the area."""
LANDMARK_BYTES = 615
"""A frame: 10.79 MB for 17,530 in the work folder."""
RECORD_BYTES = 13_000
"""All records of a clip: 1.96 MB for 152."""
PICTURE_BYTES = 15_400
"""A JPEG of quality 92 at 256 px in the real run: 73.4 MB for 4,768; grows with the area."""
POINTS_BYTES = 545
"""A frame's landmarks in the tars: 9.53 MB for 17,487."""
MEMBER_BYTES = 770
"""A tar member's header and padding."""
PROCESS_MIB = 440
"""Peak of a worker: 432 MiB in the real run, with MediaPipe."""

# --- what annotations do not tell

VIDEO_SECONDS = 300.0
"""Mean length of a video: the 3,442 videos of the published vox-metadata.csv have their last
annotated frame at 229 s on average; clips scattered evenly put the end at 297 s."""
CLIP_SECONDS = 8.0
"""Mean length of a clip in the same table: 8.2 s; VoxCeleb2's authors state 7.8 s."""
ASPECT = 16 / 9

PARAMETERS, AVERAGED, EMBEDDING = 72.6e6, 53.0e6, 512
"""Weights of the paper's networks with attention, those of E and G alone, and a row of W."""
