"""COCO: panoptic (JSON and PNGs) and stuff (JSON with run-length encoded masks).

A class on an image is one segment: single objects are not told apart. Categories are class ids plus 1,
because 0 means "no segment" in panoptic PNGs. An image's `file_name` leads to the original below
`info.images_root`; a panoptic annotation's is that of its PNG, whose name is made safe.
"""

from typing import Any

import numpy as np
from PIL import Image

from dinoidd.exports.coco_rle import encode_classes
from dinoidd.exports.format import Context, Format, Item
from dinoidd.exports.json_file import JsonFile
from dinoidd.exports.label_image import encode_png
from dinoidd.storage import shown

Segment = tuple[int, str, int, list[int]]  # category, counts, area, box
_LISTS = ("images", "annotations")


class Coco(Format[list[Segment]]):
    """`annotations/panoptic.json` with `panoptic/*.png`, and `annotations/stuff.json`."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._panoptic = JsonFile(context.scratch / "panoptic.json", self._head(True), _LISTS)
        self._stuff = JsonFile(context.scratch / "stuff.json", self._head(False), _LISTS)
        self._annotations = 0

    def prepare(self, item: Item) -> list[Segment]:
        """Write the panoptic PNG; encode the segments."""
        file, mask_HW = self._file(item), item.decode_mask()
        if not self.context.folder.has(file):
            self.context.folder.write(file, panoptic_png(mask_HW))
        return [(c + 1, counts, area, box) for c, counts, area, box in encode_classes(mask_HW)]

    def add(self, item: Item, result: list[Segment]) -> str:
        """The image and its segments, to both JSON files."""
        (width, height), image_id = item.size, item.row["image_id"]
        uri = shown(item.row["uri"])
        below = uri.removeprefix(shown(self.context.root))  # as it is: tools open images_root/this
        if below.startswith("/") or ".." in below.split("/"):  # but nothing outside of that
            below = item.name.stem
        image = {"id": image_id, "file_name": below, "height": height, "width": width, "uri": uri}
        for file in (self._panoptic, self._stuff):
            file.append("images", image)
        segments = [
            {"id": c, "category_id": c, "area": area, "bbox": box, "iscrowd": 0}
            for c, _, area, box in result
        ]
        name = self._file(item).removeprefix("panoptic/")
        panoptic = {"image_id": image_id, "file_name": name, "segments_info": segments}
        self._panoptic.append("annotations", panoptic)
        for segment, (_, counts, _, _) in zip(segments, result, strict=True):
            self._annotations += 1
            rle = {"size": [height, width], "counts": counts}
            entry = {"id": self._annotations, "image_id": image_id, "segmentation": rle}
            self._stuff.append("annotations", segment | entry)
        return self._file(item)

    def finish(self) -> None:
        """Put the JSON files together."""
        for file in (self._panoptic, self._stuff):
            self.context.folder.upload(file.finish(), f"annotations/{file.path.name}")

    def _file(self, item: Item) -> str:
        return f"panoptic/{item.name.stem}.png"

    def _head(self, panoptic: bool) -> dict[str, Any]:
        more = {"isthing": 0} if panoptic else {}
        categories = [
            {"id": i + 1, "name": c.name, "supercategory": c.name, "color": list(c.color)} | more
            for i, c in enumerate(self.context.table.classes)
        ]
        info = {"description": self.context.about, "images_root": shown(self.context.root)}
        return {"info": info, "licenses": [], "categories": categories}


def panoptic_png(mask_HW: np.ndarray) -> bytes:
    """RGB, red + 256 green + 65536 blue = id of the segment: class id + 1."""
    red = Image.fromarray(mask_HW + np.uint8(1))
    nothing = Image.new("L", red.size)
    return encode_png(Image.merge("RGB", (red, nothing, nothing)))
