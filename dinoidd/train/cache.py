"""What a cache is: which images of what, seen by which network, in which files."""

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from dinoidd.classes import ClassTable
from dinoidd.errors import OutputError
from dinoidd.segment.run_record import differences
from dinoidd.storage import Store
from dinoidd.train.plan import Plan, told_of_files
from dinoidd.train.rows import KINDS, Rows

NAME = "cache.json"
SUCCESS = "_SUCCESS"
FORMAT = 1  # to be raised with any change of points, costs or resizing: of what stands in the files
HEAD = "head.safetensors"  # the base's classifier, which the training begins with


@dataclass(frozen=True, kw_only=True)
class CacheRecord:
    """`cache.json`. A cache is used only where all of its identity is equal."""

    identity: dict[str, Any]
    classes: dict[str, Any]
    precision: str
    rows: dict[str, Rows]  # by kind
    bytes: int = 0  # of its files; 0 until it is finished
    skipped: dict[str, dict[str, str]] = field(default_factory=dict)  # reasons by kind and key
    format: int = 1  # FORMAT of the version that began it; the first did not write it down

    @property
    def table(self) -> ClassTable:
        return ClassTable.from_dict(self.classes)

    def with_result(self, size: int, skipped: dict[str, dict[str, str]]) -> "CacheRecord":
        return replace(self, bytes=size, skipped=skipped)


def cache_identity(plan: Plan) -> dict[str, Any]:
    """Everything that decides what stands in a cache, as it comes back from JSON."""
    config = plan.config
    augmentation = config.augmentation
    identity = plan.identity() | {
        "precision": config.precision,
        "seed": config.seed,  # of the sampled points, and of what augmentation draws
        "augmentation": asdict(augmentation) if augmentation.enabled else None,
        "views": config.views_per_image,
        "deep supervision": config.deep_supervision,
        "loss": config.loss.kind,
        "points": config.loss.points,
    }
    if config.loss.kind == "set":
        identity["oversample"] = config.loss.oversample
        identity["uncertain share"] = config.loss.uncertain_share
    return json.loads(json.dumps(identity))


def read_cache_record(folder: Store) -> CacheRecord | None:
    """The record of a cache; None where none was begun.

    Raises:
        OutputError: it is none that this version can read.
    """
    if not folder.exists(NAME):
        return None
    try:
        values = json.loads(folder.read_bytes(NAME))
        rows = {kind: Rows(**values["rows"][kind]) for kind in KINDS}
        return CacheRecord(**{**values, "rows": rows})
    except (ValueError, TypeError, KeyError) as error:
        raise OutputError(
            f"{folder.uri_of(NAME)} is no record of a cache that this version can read ({error}): "
            "remove that folder, or name another one with cache"
        ) from error


def write_cache_record(folder: Store, record: CacheRecord) -> None:
    folder.write_bytes(NAME, json.dumps(asdict(record), indent=1).encode())


def check_same_cache(record: CacheRecord, identity: dict[str, Any], folder: Store) -> None:
    """Refuse a cache of something else, or of a version that computed it otherwise.

    Raises:
        OutputError: names each thing that differs.
    """
    if record.format != FORMAT:
        raise OutputError(
            f"the cache {folder.uri} has format {record.format}, and this version computes format "
            f"{FORMAT}: remove it, or name another folder with cache"
        )
    if different := differences(record.identity, identity):
        seed = record.identity["seed"] != identity["seed"]
        why = " (the seed draws sampled points and views)" if seed else ""
        raise OutputError(
            f"the cache {folder.uri} is of something else: {'; '.join(different)}. "
            f"{told_of_files(different)}Train as it was made{why}, name another folder with cache, or "
            "remove it"
        )
