"""The crop kernel against the ffmpeg command, on the same clips in the same run.

    python -m benchmarks.crop [--corpus FOLDER] [--clips 24] [--rounds 2]

The corpus holds `videos/` and VoxCeleb2's `txt/` tree; without one, a video is synthesised.
The reference is one `ffmpeg -ss START -i VIDEO -t SECONDS -vf crop,scale,fps=25` per clip with
the same boxes, the same x264 preset and crf and one thread each. Both run in child processes,
in turn; CPU seconds are what the system charged to the children. Start-up of Python with its
imports is measured by itself, as a stage pays it once per worker, and ffmpeg's once per clip.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from pipelines.video import ClipSpec, CropSettings, crop_clips
from pipelines.video.grid import GRID

Job = tuple[Path, list[ClipSpec]]


@dataclass
class Cost:
    """CPU and wall seconds of child processes."""

    cpu: float = 0.0
    wall: float = 0.0


def charge(command: list[str], cost: Cost) -> str:
    """Run a command to its end and add what it cost."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cost.wall += time.perf_counter() - start
    cost.cpu += after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout


def corpus_jobs(corpus: Path, limit: int) -> list[Job]:
    """Clips of a VoxCeleb2-like tree by video: whole videos, spread evenly, up to `limit`."""
    trees = sorted({path.parent for path in corpus.glob("metadata/voxceleb2/txt/*/*/*.txt")})
    jobs: list[Job] = []
    for tree in trees:
        found = [p for p in (corpus / "videos").iterdir() if p.stem == tree.name]
        if found:
            jobs.append((found[0], [read_txt(path) for path in sorted(tree.glob("*.txt"))]))
    total = sum(len(clips) for _, clips in jobs)
    step = max(1, total // limit)
    chosen: list[Job] = []
    for job in jobs[::step]:
        if sum(len(clips) for _, clips in chosen) < limit:
            chosen.append(job)
    return chosen


def read_txt(path: Path) -> ClipSpec:
    """One utterance file."""
    rows = [line.split() for line in path.read_text().splitlines() if line[:1].isdigit()]
    boxes = np.array([row[1:5] for row in rows], np.float32)
    return ClipSpec(f"{path.parent.name}_{path.stem}", int(rows[0][0]), len(rows), boxes=boxes)


def synthetic_jobs(folder: Path) -> list[Job]:
    """Two minutes of moving gratings at 1280x720, with a tone; eight clips."""
    path = folder / "synthetic.mp4"
    y, x = np.mgrid[0:720, 0:1280].astype(np.float32)
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as out:
        pictures = out.add_stream("libx264", rate=30, options={"preset": "veryfast"})
        pictures.width, pictures.height, pictures.pix_fmt = 1280, 720, "yuv420p"
        sound = out.add_stream("aac", rate=44100, layout="mono")
        tone = (0.3 * np.sin(np.arange(44100 * 60) / 20)).astype(np.float32)
        for at in range(0, len(tone), 1024):
            voice = av.AudioFrame.from_ndarray(tone[None, at : at + 1024], "fltp", "mono")
            voice.sample_rate, voice.pts = 44100, at
            out.mux(sound.encode(voice))
        out.mux(sound.encode(None))
        noise = rng.normal(0, 6, y.shape).astype(np.float32)
        for i in range(30 * 60):
            grey = 128 + 60 * np.sin(x / 37 + i / 9) + 40 * np.sin(y / 23 - i / 13) + noise
            frame = av.VideoFrame.from_ndarray(grey.clip(0, 255).astype(np.uint8), "gray")
            out.mux(pictures.encode(frame.reformat(format="yuv420p")))
        out.mux(pictures.encode(None))
    box = np.array([[0.4, 0.3, 0.14, 0.25]], np.float32)
    return [(path, [ClipSpec(f"c{i}", 170 * i, 150, boxes=box) for i in range(8)])]


@dataclass
class Plan:
    """One clip as the kernel cut it: slots of the 25 fps grid, box in source pixels."""

    key: str
    video: str
    first: int
    frames: int
    box: tuple[int, int, int, int]
    source: tuple[int, int]
    out: str


def ffmpeg_program() -> str | None:
    """The system's, or the one that the extra `youtube` brings; None where there is neither."""
    if found := shutil.which("ffmpeg"):
        return found
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return None


def ffmpeg_command(program: str, plan: Plan, settings: CropSettings) -> list[str]:
    """What a person would write for one clip."""
    x, y, w, h = plan.box
    width, height = plan.source
    left, top, right, bottom = max(0, -x), max(0, -y), max(0, x + w - width), max(0, y + h - height)
    steps = []
    if left or top or right or bottom:
        pad = f"pad=ceil((iw+{left + right})/2)*2:ceil((ih+{top + bottom})/2)*2:{left}:{top}"
        steps.append(pad)
    steps.append(f"crop={w}:{h}:{x + left}:{y + top}")
    steps += [f"scale={settings.size}:{settings.size}", f"fps={GRID}", "format=yuv420p"]
    command = [program, "-v", "error", "-nostdin", "-y", "-threads", "1"]
    command += ["-filter_threads", "1", "-ss", f"{plan.first / GRID:.3f}", "-i", plan.video]
    command += ["-t", f"{plan.frames / GRID:.3f}", "-vf", ",".join(steps)]
    command += ["-c:v", "libx264", "-preset", settings.preset, "-crf", str(settings.crf)]
    command += [
        "-threads",
        "1",
        "-c:a",
        "aac",
        "-aac_coder",
        "fast",
        "-ac",
        "1",
        "-ar",
        str(settings.audio_rate),
    ]
    return [*command, "-b:a", str(settings.audio_bitrate), plan.out]


def child(arguments: argparse.Namespace) -> None:
    """The kernel's side: cut the clips named in a file; tell what was cut."""
    settings = CropSettings(**json.loads(arguments.settings))
    plans = []
    folder = Path(arguments.child)
    for video, clips in jobs_of(arguments, folder):
        for result in crop_clips(video, clips, settings, lambda key: folder / f"{key}.mp4"):
            if result.path is None or result.crop_boxes is None:
                continue
            x, y, w, h = (int(v) for v in result.crop_boxes[0])
            plan = Plan(
                result.key,
                str(video),
                result.first_frame,
                result.frames,
                (x, y, w, h),
                (result.source_width, result.source_height),
                str(folder / f"{result.key}.ffmpeg.mp4"),
            )
            plans.append(asdict(plan))
    print(json.dumps(plans))


def jobs_of(arguments: argparse.Namespace, folder: Path) -> list[Job]:
    """The corpus's clips, or those of the synthesised video."""
    if arguments.corpus:
        return corpus_jobs(Path(arguments.corpus), arguments.clips)
    path = folder / "synthetic.mp4"
    if not path.exists():
        return synthetic_jobs(folder)
    box = np.array([[0.4, 0.3, 0.14, 0.25]], np.float32)
    return [(path, [ClipSpec(f"c{i}", 170 * i, 150, boxes=box) for i in range(8)])]


def luma(path: Path) -> NDArray[np.float32]:
    """Brightness of all frames, (n, height, width)."""
    with av.open(str(path)) as container:
        frames = [f.to_ndarray()[: f.height, : f.width] for f in container.decode(video=0)]
    return np.stack(frames).astype(np.float32)


def psnr(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Peak signal to noise of two clips, dB, over the frames that both have."""
    size = min(len(a), len(b))
    return 10 * math.log10(255**2 / max(1e-9, float(((a[:size] - b[:size]) ** 2).mean())))


def main() -> None:
    """Run both in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--corpus", help="folder with videos/ and metadata/voxceleb2/txt/")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--settings", default="{}", help='JSON, as {"preset": "medium"}')
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
        return
    ffmpeg = ffmpeg_program()
    if ffmpeg is None:
        parser.error("no ffmpeg program: install it, or pip install 'likeness[youtube]'")
    if arguments.corpus:
        corpus = Path(arguments.corpus)
        if not (corpus / "videos").is_dir() or not corpus_jobs(corpus, arguments.clips):
            parser.error(
                f"--corpus {corpus}: expected videos/ and, of them, metadata/voxceleb2/txt/"
            )
    settings = CropSettings(**json.loads(arguments.settings))
    ours, theirs, start = Cost(), Cost(), Cost()
    with tempfile.TemporaryDirectory() as folder:
        jobs_of(arguments, Path(folder))
        plans: list[Plan] = []
        for _ in range(arguments.rounds):
            told = charge([sys.executable, *sys.argv, "--child", folder], ours)
            plans = [Plan(**plan) for plan in json.loads(told)]
            for plan in plans:
                charge(ffmpeg_command(ffmpeg, plan, settings), theirs)
            charge([sys.executable, "-c", "import pipelines.video"], start)
        frames = sum(plan.frames for plan in plans) * arguments.rounds
        counts: list[int] = []
        sizes, alike = [0, 0], list[float]()
        quality: tuple[list[float], list[float]] = ([], [])
        fine = CropSettings(**json.loads(arguments.settings) | {"crf": 1})
        for plan in plans[:8]:
            mine, other = Path(folder) / f"{plan.key}.mp4", Path(plan.out)
            a, b = luma(mine), luma(other)
            counts.append(len(b) - len(a))
            near = replace(plan, out=f"{folder}/near.mp4")
            subprocess.run(ffmpeg_command(ffmpeg, near, fine), check=True)
            truth = luma(Path(near.out))
            quality[0].append(psnr(a, truth))
            quality[1].append(psnr(b, truth))
            alike.append(psnr(a, b))
        for plan in plans:
            sizes[0] += (Path(folder) / f"{plan.key}.mp4").stat().st_size
            sizes[1] += Path(plan.out).stat().st_size
    print(f"{len(plans)} clips, {frames // arguments.rounds} frames, {arguments.rounds} rounds")
    print(f"preset {settings.preset}, crf {settings.crf}, one thread each\n")
    print("             CPU s   frames/CPU s   wall s   KiB/clip   median PSNR to crf 1, dB")
    for name, cost, size, good in (
        ("kernel", ours, sizes[0], quality[0]),
        ("ffmpeg", theirs, sizes[1], quality[1]),
    ):
        print(
            f"{name:10}{cost.cpu:8.2f}{frames / cost.cpu:15.0f}{cost.wall:9.1f}"
            f"{size / 1024 / max(1, len(plans)):11.0f}{float(np.median(good)):12.1f}"
        )
    print(
        f"\nratio {ours.cpu / theirs.cpu:.3f}, start-up of Python included; without it "
        f"{(ours.cpu - start.cpu) / theirs.cpu:.3f} ({start.cpu / arguments.rounds:.2f} s each)"
    )
    print(f"the two alike to {min(alike):.1f} dB at least; ffmpeg's frames more or less: {counts}")


if __name__ == "__main__":
    main()
