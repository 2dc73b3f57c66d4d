"""A small, valid OUTPUT folder with its input images, for the tests of what reads one."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dinoidd.classes import ClassInfo, ClassTable
from dinoidd.data.manifest import write_manifest
from dinoidd.output.mask import count_pixels, encode_mask
from dinoidd.output.schema import ROWS_PER_GROUP, images_schema
from dinoidd.storage import ObjectInfo, Store

TABLE = ClassTable(
    name="toy",
    classes=(
        ClassInfo(name="road", color=(128, 64, 128)),
        ClassInfo(name="traffic light", color=(250, 150, 10)),
        ClassInfo(name="sky", color=(70, 130, 180)),
        ClassInfo(name="rail track", color=(230, 150, 140)),  # never on a mask
    ),
)
ERRORS = {3: ("missing", "there is no such file"), 70: ("truncated", "the file ends early")}
Row = dict[str, Any]


@dataclass
class SyntheticOutput:
    """`images` rows in files of `per_file`; `errors` gives image ids a kind and a sentence."""

    folder: Path  # OUTPUT is folder/out, the images are in folder/in
    images: int = 100
    per_file: int = 64
    height: int = 24
    width: int = 32
    errors: dict[int, tuple[str, str]] = field(default_factory=lambda: dict(ERRORS))
    noise: bool = False  # masks that do not compress
    finished: bool = True
    fingerprint: str = "f" * 64

    def __post_init__(self) -> None:
        (self.folder / "in").mkdir(parents=True)
        self.write_manifest()
        for start in range(0, self.images, self.per_file):
            self.write_part(start, [self.row(i) for i in range(start, self.stop_of(start))])
        self.write_run_info()
        if self.finished:
            (self.out / "_SUCCESS").touch()

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def part(self, start: int) -> Path:
        return self.out / "images" / f"part-{start:012d}-{self.stop_of(start):012d}.parquet"

    def stop_of(self, start: int) -> int:
        return min(start + self.per_file, self.images)

    def uri(self, image_id: int) -> str:
        return str(self.folder / "in" / f"{image_id:04d}.png")

    def mask(self, image_id: int) -> np.ndarray:
        """Sky above road, the horizon lower with every image, and a traffic light: uint8 HxW."""
        mask_HW = np.zeros((self.height, self.width), np.uint8)
        mask_HW[: 4 + image_id % 12] = 2
        mask_HW[2:8, image_id % 20 : image_id % 20 + 3] = 1
        if self.noise:
            mask_HW = np.random.default_rng(image_id).integers(0, 3, mask_HW.shape, np.uint8)
        return mask_HW

    def row(self, image_id: int) -> Row:
        """The row of `images/` as the run would write it."""
        row: Row = {"image_id": image_id, "uri": self.uri(image_id), "status": "ok"}
        if image_id in self.errors:
            kind, message = self.errors[image_id]
            return row | {"status": "error", "error_kind": kind, "error": message}
        mask_HW = self.mask(image_id)
        counts = count_pixels(mask_HW, len(TABLE))
        return row | {
            "height": self.height,
            "width": self.width,
            "mask": {"bytes": encode_mask(mask_HW, TABLE), "path": None},
            "pixels": dict(zip(TABLE.fields, counts, strict=True)),
            "fraction": {n: c / mask_HW.size for n, c in zip(TABLE.fields, counts, strict=True)},
            "confidence": 0.5 + image_id % 50 / 100,
            "entropy": 0.25,
            "margin": 0.5,
        }

    def write_part(self, start: int, rows: list[Row], table: ClassTable = TABLE) -> None:
        """A file of `images/`, named by its range whatever the rows are."""
        schema = images_schema(table, run_id="run-1", fingerprint=self.fingerprint)
        path = self.part(start)
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=ROWS_PER_GROUP)

    def edit(self, image_id: int, change: Callable[[Row], Any]) -> None:
        """Write the file of that image again, with its row changed."""
        start = image_id // self.per_file * self.per_file
        rows = pq.read_table(self.part(start)).to_pylist()
        change(rows[image_id - start])
        self.write_part(start, rows)

    def write_manifest(self) -> None:
        images = (ObjectInfo(uri=self.uri(i), size=None) for i in range(self.images))
        folder = Store.open(str(self.out / "manifest"))
        write_manifest(folder, images, input_uri=str(self.folder / "in"), counts={})

    def write_run_info(self, **changes: Any) -> None:
        errors = [kind for i, (kind, _) in self.errors.items() if i < self.images]
        counts = {
            "images": self.images,
            "ok": self.images - len(errors),
            "errors": {kind: errors.count(kind) for kind in errors},
        }
        (self.out / "run.json").write_text(json.dumps({"counts": counts | changes}))

    def write_inputs(self) -> None:
        """The images that the manifest names; those of error rows are left out."""
        for image_id in set(range(self.images)) - set(self.errors):
            shade_HW1 = (self.mask(image_id)[..., None] * 60).astype(np.uint8)
            Image.fromarray(shade_HW1.repeat(3, axis=2)).save(self.uri(image_id))

    def upload(self, client: Any, bucket: str, prefix: str) -> str:
        """Copy OUTPUT into a bucket with a boto3 client; its new URI."""
        for path in (p for p in self.out.rglob("*") if p.is_file()):
            client.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(self.out)}")
        return f"s3://{bucket}/{prefix}"
