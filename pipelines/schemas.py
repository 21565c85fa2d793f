"""The pyarrow schema of every manifest.

A manifest is a Parquet file with one row per input row of its stage, `ok` or with a typed
status and the tool's own words in `detail`. Downstream stages read only the `ok` rows, so
the row counts form a funnel from the catalog to the shards:

    catalog (a row per annotated clip) -> downloads (a row per video of it)
    catalog `ok` -> crops -> `ok` -> landmarks -> `ok` -> index (a row per clip in a shard)
"""

from __future__ import annotations

import re

import pyarrow as pa

PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]+")
"""What a clip's identifiers, its key and a shard's name are made of: they name files and members,
and a manifest may come from somebody else."""

LARGEST_CROP = 2048
"""Pixels a side that `crop.size` may ask for. A JPEG of some kilobytes may claim gigabytes."""

BOX = pa.list_(pa.float32(), 4)
"""x, y, width, height."""

_CLIP_ID = [
    pa.field("key", pa.string(), False),
    pa.field("source", pa.string(), False),
    pa.field("person", pa.string(), False),
    pa.field("video", pa.string(), False),
    pa.field("utterance", pa.string(), False),
]
# Where the clip goes. Only the catalog and the index know it, so that another split or another
# number of shards redoes no crop and no landmark.
_PLACE = [pa.field("split", pa.string(), False), pa.field("shard", pa.string(), False)]
IDENTITY = [field.name for field in _CLIP_ID]
_VERDICT = [pa.field("status", pa.string(), False), pa.field("detail", pa.string(), False)]

CATALOG = pa.schema(
    [
        *_CLIP_ID,
        *_PLACE,
        # Annotated frames [first_frame, first_frame + frames) at `fps`; fps null: frames of
        # the video as it is, counted from the first keyframe at or after `segment_start`
        # seconds. frames null: the whole file.
        pa.field("first_frame", pa.int32()),
        pa.field("frames", pa.int32()),
        pa.field("fps", pa.float64()),
        pa.field("segment_start", pa.float64()),
        # One box, or one per frame; null: the whole picture. Fractions of the picture where
        # box_height is null, else pixels of a picture that many lines high.
        pa.field("boxes", pa.list_(BOX)),
        pa.field("box_height", pa.int32()),
        # `crop_ready`: the box is the final crop (HDTF, TalkingHead-1KH): no margin is added.
        pa.field("crop_ready", pa.bool_(), False),
        pa.field("url", pa.string()),
        pa.field("media", pa.string()),
        pa.field("offset", pa.int32()),
        pa.field("fv_conf", pa.float32()),
        pa.field("asd_conf", pa.float32()),
        *_VERDICT,
    ]
)

DOWNLOADS = pa.schema(
    [
        pa.field("source", pa.string(), False),
        pa.field("video", pa.string(), False),  # of ready crops: source/person/video
        *_VERDICT,
        pa.field("origin", pa.string()),  # site, mirror or local
        pa.field("url", pa.string()),  # where it was asked for; secrets redacted
        pa.field(
            "path", pa.string()
        ),  # below paths.work when it begins with videos/, else a mirror's
        pa.field("sha256", pa.string()),
        pa.field("bytes", pa.int64()),
        pa.field("codec", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("fps", pa.float64()),
        pa.field("seconds", pa.float64()),
        pa.field("has_audio", pa.bool_()),
    ]
)

CROPS = pa.schema(
    [
        *_CLIP_ID,
        *_VERDICT,
        pa.field("path", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("bytes", pa.int64()),
        pa.field("first_frame", pa.int32()),  # on the 25 fps grid of the source
        pa.field("frames", pa.int32()),
        pa.field("size", pa.int32()),
        pa.field("has_audio", pa.bool_()),
        pa.field("policy", pa.string()),
        # Pixels of the upright source picture: one box for the policy `clip`, one per output
        # frame for `track`. source_x = x + crop_x * width / size.
        pa.field("crop_boxes", pa.list_(BOX)),
        # The annotated face in pixels of the crop, one per output frame (or one for all).
        pa.field("face_boxes", pa.list_(BOX)),
        pa.field("padding", pa.float32()),  # share of the crop outside the picture, 0..1
        # Of the annotated face, pixels of the source: the median of its shorter side; null where
        # none is annotated, or the crop is ready.
        pa.field("face_size", pa.float32()),
        pa.field("scene_score", pa.float32()),
        pa.field("scene_at", pa.float32()),  # seconds of the source, where the picture changes most
        pa.field("source_width", pa.int32()),
        pa.field("source_height", pa.int32()),
        pa.field("source_fps", pa.float64()),
        pa.field("source_sha256", pa.string()),
    ]
)

LANDMARKS = pa.schema(
    [
        *_CLIP_ID,
        *_VERDICT,
        pa.field("path", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("backend", pa.string()),
        pa.field("frames", pa.int32()),
        pa.field("detected", pa.int32()),  # frames with a face
        pa.field("confidence", pa.float32()),  # mean over detected frames, 0..1
        pa.field("sharpness", pa.float32()),  # median variance of the Laplacian over the face
        pa.field("face_size", pa.float32()),  # median side of the landmarks' box, crop pixels
        pa.field("yaw", pa.float32()),  # medians, degrees
        pa.field("pitch", pa.float32()),
        pa.field("roll", pa.float32()),
        pa.field("overlap", pa.float32()),  # mean share of the landmarks inside the annotated box
        pa.field("crop_path", pa.string()),
        pa.field("crop_sha256", pa.string()),
    ]
)

INDEX = pa.schema(
    [
        *_CLIP_ID,
        *_PLACE,
        pa.field("shard_sha256", pa.string(), False),
        pa.field("shard_bytes", pa.int64(), False),
        pa.field("frames", pa.int32(), False),  # landmark rows
        pa.field("frame_numbers", pa.list_(pa.int32()), False),  # which frames are stored
        pa.field("frame_offsets", pa.list_(pa.int64()), False),  # of the JPEG bytes in the tar
        pa.field("frame_sizes", pa.list_(pa.int32()), False),
        pa.field("landmarks_offset", pa.int64(), False),  # of KEY.landmarks.npy
        pa.field("landmarks_size", pa.int32(), False),
        pa.field("json_offset", pa.int64(), False),
        pa.field("json_size", pa.int32(), False),
    ]
)
