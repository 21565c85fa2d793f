"""Croissant 1.1 metadata: machine-readable words on what the files are and how to read them.

Paths are those of the published dataset, where croissant.json lies beside index.parquet and
shards/. Every file carries its sha256, straight from the index.
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from pipelines.params import Params
from pipelines.report.facts import Dataset, Tar
from pipelines.schemas import INDEX

Node = dict[str, Any]

CONTEXT: Node = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}

COLUMNS = {
    "key": "Name of the clip and of its members in the tar: person_video_utterance. "
    "No other clip of the same source has it.",
    "source": "Which published list the clip is from.",
    "person": "The publisher's identifier of the person.",
    "video": "The publisher's identifier of the video.",
    "utterance": "The publisher's number of the clip within the video.",
    "split": "train, val or test.",
    "shard": "Name of the tar, without folder and ending.",
    "shard_sha256": "Digest of the tar.",
    "shard_bytes": "Length of the tar.",
    "frames": "Frames of the clip at 25 fps: rows of its landmarks.",
    "frame_numbers": "Which of those frames are stored as JPEG.",
    "frame_offsets": "Where each JPEG's bytes begin in the tar.",
    "frame_sizes": "How many bytes each JPEG has.",
    "landmarks_offset": "Where the bytes of KEY.landmarks.npy begin in the tar.",
    "landmarks_size": "How many they are.",
    "json_offset": "Where the bytes of KEY.json begin in the tar.",
    "json_size": "How many they are.",
}
assert list(COLUMNS) == INDEX.names, "describe every column of the index"

TYPES = {pa.string(): "sc:Text", pa.int32(): "cr:Int32", pa.int64(): "cr:Int64"}
SPLIT_URLS = {
    "train": "cr:TrainingSplit",
    "val": "cr:ValidationSplit",
    "test": "cr:TestSplit",
}
MEMBERS = {
    "pictures": ("*.jpg", "image/jpeg", "Evenly spaced frames of every clip."),
    "landmarks": (
        "*.landmarks.npy",
        "application/x-npy",
        "68 landmarks of every frame at 25 fps: frames x 68 x 2 float32, pixels of the crop.",
    ),
    "facts": (
        "*.json",
        "application/json",
        "Identifiers, place in the source, crop box, quality and provenance of every clip.",
    ),
}
BASE_NAME = r"^(?:.*/)?([^/]+?)\.(?:\d+\.jpg|landmarks\.npy|json)$"


def croissant(params: Params, dataset: Dataset, licence: str) -> bytes:
    """The text of croissant.json."""
    card = params.card
    node: Node = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": params.name,
        "alternateName": card.title,
        "description": card.description,
        "license": licence,
        "url": card.homepage or f"urn:sha256:{dataset.digest}",
        "citeAs": card.citation or f"{card.title}, index sha256 {dataset.digest}",
        # The content is its own version: the first digits of the index's digest.
        "version": f"1.0.0+{dataset.digest[:12]}",
        "keywords": ["talking heads", "faces", "facial landmarks", "video", "WebDataset"],
        "isLiveDataset": False,
        "distribution": _distribution(dataset),
        "recordSet": _record_sets(dataset),
    }
    return (json.dumps(node, indent=1, ensure_ascii=False) + "\n").encode()


def _distribution(dataset: Dataset) -> list[Node]:
    index = {
        "@type": "cr:FileObject",
        "@id": "index.parquet",
        "name": "index.parquet",
        "description": "One row per clip: its tar and where its members lie in it.",
        "contentUrl": "index.parquet",
        "contentSize": f"{dataset.index_bytes} B",
        "encodingFormat": "application/x-parquet",
        "sha256": dataset.digest,
    }
    nodes = [index, *(_tar(tar) for tar in dataset.tars)]
    for split in dataset.splits:
        inside = [{"@id": tar.path} for tar in dataset.tars if tar.split == split]
        for what, (pattern, media_type, words) in MEMBERS.items():
            nodes.append(
                {
                    "@type": "cr:FileSet",
                    "@id": f"{split}-{what}",
                    "name": f"{split}-{what}",
                    "description": f"{words} Split {split}.",
                    "containedIn": inside,
                    "encodingFormat": media_type,
                    "includes": pattern,
                }
            )
    return nodes


def _tar(tar: Tar) -> Node:
    return {
        "@type": "cr:FileObject",
        "@id": tar.path,
        "name": f"{tar.name}.tar",
        "description": f"WebDataset shard of the split {tar.split}.",
        "contentUrl": tar.path,
        "contentSize": f"{tar.bytes} B",
        "encodingFormat": "application/x-tar",
        "sha256": tar.sha256,
    }


def _record_sets(dataset: Dataset) -> list[Node]:
    splits = {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "name": "splits",
        "description": f"The splits. {dataset.split_words}",
        "dataType": "cr:Split",
        "key": {"@id": "splits/name"},
        "field": [
            _field("splits/name", "Name of the split.", "sc:Text"),
            _field("splits/url", "What the split is for.", "sc:URL"),
        ],
        "data": [{"splits/name": name, "splits/url": SPLIT_URLS[name]} for name in dataset.splits],
    }
    clips: Node = {
        "@type": "cr:RecordSet",
        "@id": "clips",
        "name": "clips",
        "description": "One record per clip: the index, for random access into the plain tars.",
        "key": [{"@id": "clips/source"}, {"@id": "clips/key"}],
        "field": [_column(column, _words(column.name, dataset)) for column in INDEX],
    }
    if not dataset.splits:
        return [clips]
    sets = [splits, clips]
    for split in dataset.splits:
        sets.append(_members(split, "pictures", "image", "sc:ImageObject"))
        sets.append(_members(split, "facts", "json", "sc:Text"))
    return sets


def _words(column: str, dataset: Dataset) -> str:
    return f"{COLUMNS[column]} {dataset.split_words}" if column == "split" else COLUMNS[column]


def _column(column: pa.Field, words: str) -> Node:
    is_list = pa.types.is_list(column.type)
    kind = column.type.value_type if is_list else column.type
    node = _field(f"clips/{column.name}", words, TYPES[kind])
    node["source"] = {
        "fileObject": {"@id": "index.parquet"},
        "extract": {"column": column.name},
    }
    if is_list:
        node |= {"isArray": True, "arrayShape": "-1"}
    return node


def _members(split: str, what: str, name: str, kind: str) -> Node:
    """A record per file of one kind, told by the name of its clip."""
    files, prefix = f"{split}-{what}", f"{split}/{what}"
    key = _field(f"{prefix}/key", "Name of the clip.", "sc:Text")
    key["source"] = {
        "fileSet": {"@id": files},
        "extract": {"fileProperty": "fullpath"},
        "transform": {"regex": BASE_NAME},
    }
    content = _field(f"{prefix}/{name}", MEMBERS[what][2], kind)
    content["source"] = {"fileSet": {"@id": files}, "extract": {"fileProperty": "content"}}
    return {
        "@type": "cr:RecordSet",
        "@id": prefix,
        "name": prefix,
        "description": f"{MEMBERS[what][2]} Split {split}.",
        "field": [key, content],
    }


def _field(identifier: str, description: str, kind: str) -> Node:
    return {
        "@type": "cr:Field",
        "@id": identifier,
        "name": identifier.rpartition("/")[2],
        "description": description,
        "dataType": kind,
    }
