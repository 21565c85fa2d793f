"""The one vocabulary of statuses: what became of a row, what it means and what to do about it.

python -m pipelines.statuses    # writes them into README.md
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Status(StrEnum):
    """What became of one row. The wording is stable: people grep and script on it."""

    OK = "ok"
    # catalog
    BAD_ANNOTATION = "bad_annotation"
    FILTERED = "filtered"
    EXCLUDED = "excluded"
    # download
    REMOVED = "removed"
    PRIVATE = "private"
    GEO_BLOCKED = "geo_blocked"
    AGE_RESTRICTED = "age_restricted"
    BOT_CHECK = "bot_check"
    THROTTLED = "throttled"
    NETWORK = "network"
    NO_FORMAT = "no_format"
    NOT_A_VIDEO = "not_a_video"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    DEFERRED = "deferred"
    # crop
    SOURCE_MISSING = "source_missing"
    OUT_OF_RANGE = "out_of_range"
    DECODE_ERROR = "decode_error"
    TOO_SMALL = "too_small"
    SCENE_CUT = "scene_cut"
    TOO_SHORT = "too_short"
    # landmarks
    NO_FACE = "no_face"
    WRONG_FACE = "wrong_face"
    LOW_CONFIDENCE = "low_confidence"
    BLURRED = "blurred"
    EXTREME_POSE = "extreme_pose"
    FEW_FRAMES = "few_frames"
    # any stage: a fault of ours, never of the data
    INTERNAL_ERROR = "internal_error"


@dataclass(frozen=True)
class StatusInfo:
    """What a status means and what a person does about it."""

    stage: str
    transient: bool
    """A later try may succeed with nothing changed: what `--retry transient` redoes."""
    meaning: str
    remedy: str


STATUS: dict[Status, StatusInfo] = {
    Status.OK: StatusInfo("every stage", False, "Done.", "Nothing."),
    Status.BAD_ANNOTATION: StatusInfo(
        "catalog",
        False,
        "An annotation could not be read; `detail` names the file and the line.",
        "Mend the file or fetch it again, then rerun the catalog.",
    ),
    Status.FILTERED: StatusInfo(
        "catalog",
        False,
        "The clip misses a threshold of `catalog.filters` in params.yaml.",
        "Loosen the filter if the clip should stay.",
    ),
    Status.EXCLUDED: StatusInfo(
        "catalog, download",
        False,
        "Named in takedowns.csv: the person, the video or the clip was taken out.",
        "Nothing; this is on purpose. Identifiers are replaced by a digest.",
    ),
    Status.REMOVED: StatusInfo(
        "download",
        False,
        "The site says the video is gone.",
        "Nothing on the site's side; a mirror (`download.mirror`) may still hold it.",
    ),
    Status.PRIVATE: StatusInfo(
        "download",
        False,
        "The owner made the video private or for members only.",
        "Cookies of an account that may see it (`download.cookies`), or a mirror.",
    ),
    Status.GEO_BLOCKED: StatusInfo(
        "download",
        False,
        "Not available in the country of this address.",
        "A proxy elsewhere (`download.proxy`), then `--retry geo_blocked`.",
    ),
    Status.AGE_RESTRICTED: StatusInfo(
        "download",
        False,
        "The site wants a signed-in adult.",
        "Cookies of a signed-in account (`download.cookies`), then `--retry age_restricted`.",
    ),
    Status.BOT_CHECK: StatusInfo(
        "download",
        True,
        "The site asked for proof of not being a bot; the run stopped asking.",
        "Fresh cookies, a lower `download.per_minute` or another address, then "
        "`--retry transient`.",
    ),
    Status.THROTTLED: StatusInfo(
        "download",
        True,
        "The site answered 429 or 503 through every back-off.",
        "Lower `download.per_minute`, wait, then `--retry transient`.",
    ),
    Status.NETWORK: StatusInfo(
        "download",
        True,
        "The connection failed: name look-up, refused, reset, timed out, or a 5xx answer; or the "
        "page that came was none that yt-dlp reads.",
        "Check the network and proxy, then `--retry transient`; update yt-dlp first where `detail` "
        "tells of something that could not be extracted.",
    ),
    Status.NO_FORMAT: StatusInfo(
        "download",
        False,
        "No format of the video satisfies `download.format` and `download.max_height`, or "
        "the address holds no video that yt-dlp knows how to read.",
        "Loosen the format, or update yt-dlp and its JavaScript runtime, then `--retry no_format`.",
    ),
    Status.NOT_A_VIDEO: StatusInfo(
        "download, crop",
        False,
        "The body is not a video: an HTML page, a picture, an empty file or audio alone.",
        "Open the link in a browser; often a login or consent page. A ready crop: replace it.",
    ),
    Status.TRUNCATED: StatusInfo(
        "download, crop",
        True,
        "The file ends before the length that its header or the server promised.",
        "`--retry truncated`; if it comes back, the site's copy is cut. A ready crop: replace it.",
    ),
    Status.CORRUPT: StatusInfo(
        "download, crop",
        False,
        "The container opens but its frames do not decode, or its sound and picture could not be "
        "joined.",
        "`--retry corrupt` fetches it again; else another mirror. A ready crop: replace it.",
    ),
    Status.DEFERRED: StatusInfo(
        "download",
        True,
        "Not asked for: the bot-check breaker stopped the run first.",
        "Run the stage again; deferred videos are always taken up.",
    ),
    Status.SOURCE_MISSING: StatusInfo(
        "crop",
        False,
        "The video of this clip was not downloaded; `detail` repeats its status.",
        "See that status, or run the download again; the clip follows once the video is there.",
    ),
    Status.OUT_OF_RANGE: StatusInfo(
        "crop",
        False,
        "The annotated frames lie beyond the end of the video.",
        "The upload was cut or replaced since the annotation; nothing to do.",
    ),
    Status.DECODE_ERROR: StatusInfo(
        "crop",
        False,
        "The decoder failed inside the clip.",
        "The video is damaged at that point; another mirror may hold a better copy.",
    ),
    Status.TOO_SMALL: StatusInfo(
        "crop",
        False,
        "The face is smaller than `crop.min_face` pixels in the source.",
        "Raise `download.max_height` or lower `crop.min_face`.",
    ),
    Status.SCENE_CUT: StatusInfo(
        "crop",
        False,
        "The picture cuts to another scene inside the clip.",
        "Raise `crop.scene_threshold` if the verdict is wrong; 0 turns the check off.",
    ),
    Status.TOO_SHORT: StatusInfo(
        "crop",
        False,
        "The clip has fewer than `crop.min_frames` frames at 25 fps.",
        "Lower `crop.min_frames` if such clips are wanted.",
    ),
    Status.NO_FACE: StatusInfo(
        "landmarks",
        False,
        "No frame of the clip shows a face to the detector.",
        "Look at the clip; the other backend may see it (`landmarks.backend`).",
    ),
    Status.WRONG_FACE: StatusInfo(
        "landmarks",
        False,
        "The face found does not overlap the annotated one.",
        "Look at the clip: two people, or an annotation of another upload.",
    ),
    Status.LOW_CONFIDENCE: StatusInfo(
        "landmarks",
        False,
        "The landmarks' mean confidence is below `landmarks.min_confidence`.",
        "Lower the threshold if the landmarks look right.",
    ),
    Status.BLURRED: StatusInfo(
        "landmarks",
        False,
        "The face's median sharpness is below `landmarks.min_sharpness`.",
        "Lower the threshold, or raise `download.max_height` for better sources.",
    ),
    Status.EXTREME_POSE: StatusInfo(
        "landmarks",
        False,
        "The median head pose is beyond `landmarks.max_yaw`, `max_pitch` or `max_roll`.",
        "Raise the limit if profiles are wanted.",
    ),
    Status.FEW_FRAMES: StatusInfo(
        "landmarks",
        False,
        "Too small a share of the frames has landmarks (`landmarks.min_detected`).",
        "Lower the threshold; often the face leaves the picture.",
    ),
    Status.INTERNAL_ERROR: StatusInfo(
        "every stage",
        True,
        "A fault in Likeness itself; `detail` holds the exception.",
        "Please report it; `--retry internal_error` tries again.",
    ),
}

TRANSIENT = frozenset(s for s, info in STATUS.items() if info.transient)
FAILURES = frozenset(s for s in Status if s not in (Status.OK, Status.FILTERED, Status.EXCLUDED))


def parse_statuses(words: Iterable[str]) -> frozenset[Status]:
    """Turn `transient`, `failed` or status names into a set of statuses.

    Raises ValueError with the known names for anything else.
    """
    chosen: set[Status] = set()
    for word in words:
        if word == "transient":
            chosen |= TRANSIENT
        elif word == "failed":
            chosen |= FAILURES
        elif word in set(Status) and word != Status.OK:
            chosen.add(Status(word))
        else:
            names = ", ".join(s for s in Status if s != Status.OK)
            raise ValueError(f"unknown status {word!r}; use transient, failed or any of: {names}")
    return frozenset(chosen)


README = Path(__file__).parents[1] / "README.md"


def readme_table() -> str:
    """The README's table of statuses, in Markdown."""
    lines = ["| status | stage | transient | what it means | what to do |", "|---|---|---|---|---|"]
    for status, info in STATUS.items():
        if status != Status.OK:
            transient = "yes" if info.transient else ""
            lines.append(
                f"| `{status}` | {info.stage} | {transient} | {info.meaning} | {info.remedy} |"
            )
    return "\n".join(lines)


def _update(readme: Path) -> None:
    """Write the table between the README's two marks."""
    head, start, rest = readme.read_text().partition("<!-- statuses:")
    mark, _, rest = rest.partition("-->\n")
    _, end, tail = rest.partition("<!-- end -->")
    readme.write_text(f"{head}{start}{mark}-->\n{readme_table()}\n{end}{tail}")


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m pipelines.statuses`."""
    argparse.ArgumentParser(
        prog="python -m pipelines.statuses",
        description="Write the table of statuses of README.md from this module.",
    ).parse_args(argv)
    _update(README)
    sys.stdout.write(f"wrote {README.name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
