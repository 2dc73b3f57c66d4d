"""The Parquet contract of a segmentation run: one image, one row.

`images/*.parquet` holds one row for every row of `manifest/*.parquet`, whatever happened to the image.
"""

import json
import re

import pyarrow as pa

from dinoidd.classes import ClassTable

MANIFEST = pa.schema(
    [
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size", pa.int64()),  # bytes
        pa.field("etag", pa.string()),  # null where the store has none
    ]
)

METADATA_RUN_ID = b"dinoidd.run_id"
METADATA_FINGERPRINT = b"dinoidd.model_fingerprint"
METADATA_CLASSES = b"dinoidd.classes"

# Masks are large and incompressible, everything else is small: 64 rows are about 2 MB of 1080p masks, so
# one mask is read without the rest, and statistics still cover enough rows to skip by.
ROWS_PER_GROUP = 64

_RANGE_NAME = re.compile(r"(part|chunk)-(\d{12})-(\d{12})\.parquet")


def range_name(kind: str, start: int, stop: int) -> str:
    """The name of a file with the manifest's rows from `start` up to, not including, `stop`.

    `kind`: `part`, a finished file of `images/`, or `chunk`, a piece of one that is not finished.
    """
    return f"{kind}-{start:012d}-{stop:012d}.parquet"


def range_of(name: str, kind: str) -> tuple[int, int] | None:
    """The rows in the name of a file of that kind; None for a name that is not of `range_name`."""
    match = _RANGE_NAME.fullmatch(name)
    return (int(match[2]), int(match[3])) if match and match[1] == kind else None


def images_schema(table: ClassTable, *, run_id: str = "", fingerprint: str = "") -> pa.Schema:
    """The schema of `images/*.parquet`, with the run's identity as file metadata.

    `mask.bytes` is an 8-bit palette PNG (pixel value = class id); the metadata names it as a Hugging Face
    `Image` feature, so that `datasets` decodes it. `pixels` and `fraction` have one field a class.
    """
    fields = [
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("status", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("error_kind", pa.string()),
        pa.field("error", pa.string()),
        pa.field("note", pa.string()),
        pa.field("height", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("mask", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        pa.field("pixels", pa.struct([(name, pa.int64()) for name in table.fields])),
        pa.field("fraction", pa.struct([(name, pa.float32()) for name in table.fields])),
        pa.field("confidence", pa.float32()),
        pa.field("entropy", pa.float32()),
        pa.field("margin", pa.float32()),
    ]
    metadata = {
        METADATA_RUN_ID: run_id.encode(),
        METADATA_FINGERPRINT: fingerprint.encode(),
        METADATA_CLASSES: json.dumps(table.stored()).encode(),
        b"huggingface": json.dumps({"info": {"features": _features(table)}}).encode(),
    }
    return pa.schema(fields, metadata=metadata)


def class_table_of(schema: pa.Schema) -> ClassTable:
    """The class table written into a file of `images/`."""
    return ClassTable.from_dict(json.loads((schema.metadata or {})[METADATA_CLASSES]))


def _features(table: ClassTable) -> dict[str, object]:
    """The columns as Hugging Face `datasets` describes them (all have to be listed)."""

    def value(dtype: str) -> dict[str, str]:
        return {"dtype": dtype, "_type": "Value"}

    columns = {
        "image_id": "int64",
        "uri": "string",
        "status": "string",
        "error_kind": "string",
        "error": "string",
        "note": "string",
        "height": "int32",
        "width": "int32",
        "confidence": "float32",
        "entropy": "float32",
        "margin": "float32",
    }
    features: dict[str, object] = {name: value(dtype) for name, dtype in columns.items()}
    features["mask"] = {"_type": "Image"}
    features["pixels"] = {name: value("int64") for name in table.fields}
    features["fraction"] = {name: value("float32") for name in table.fields}
    order = [
        *("image_id", "uri", "status", "error_kind", "error", "note", "height", "width", "mask"),
        *("pixels", "fraction", "confidence", "entropy", "margin"),
    ]
    return {name: features[name] for name in order}
