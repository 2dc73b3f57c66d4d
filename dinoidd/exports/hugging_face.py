"""A Hugging Face data set: Parquet with images beside masks, read by `datasets.load_dataset(DIR)`."""

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dinoidd.exports.format import Context, Format, Item
from dinoidd.exports.original_file import OriginalFile, try_original_file

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_COLUMNS = {
    "image_id": (pa.int64(), {"dtype": "int64", "_type": "Value"}),
    "uri": (pa.string(), {"dtype": "string", "_type": "Value"}),
    "image": (_IMAGE, {"_type": "Image"}),
    "mask": (_IMAGE, {"_type": "Image"}),
    "height": (pa.int32(), {"dtype": "int32", "_type": "Value"}),
    "width": (pa.int32(), {"dtype": "int32", "_type": "Value"}),
    "confidence": (pa.float32(), {"dtype": "float32", "_type": "Value"}),
}
_SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
_ROWS, _BYTES = 100, 32 << 20  # of a row group, which a reader holds whole
_SHARD = 500 << 20  # bytes


class HuggingFace(Format[OriginalFile | str]):
    """`data/{split}-{number}.parquet`: image (null where unreadable), mask, uri, confidence, ..."""

    columns = ("uri", "height", "width", "mask", "confidence")

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._shards: dict[str, _Shards] = {}

    def prepare(self, item: Item) -> OriginalFile | str:
        """Fetch the original, and see that the mask is whole."""
        item.decode_mask()
        return try_original_file(self.context.reader, item.row["uri"], item.size)

    def add(self, item: Item, result: OriginalFile | str) -> str:
        """A row of the split's Parquet."""
        image = None
        if isinstance(result, OriginalFile):
            name = item.name.stem.rpartition("/")[2] + result.suffix
            image = {"bytes": result.data, "path": name}
        else:
            self.note_missing(item, result)
        split = _SPLITS.get(item.name.split or "", "train")
        if split not in self._shards:
            self._shards[split] = _Shards(self.context, split)
        return self._shards[split].add(item.row | {"image": image})

    def finish(self) -> None:
        """Close the shards, remove those of an earlier, longer export; write card and classes."""
        written = [name for shards in self._shards.values() for name in shards.finish()]
        for name in self.context.folder.names("data"):
            if f"data/{name}" not in written:
                self.context.folder.remove(f"data/{name}")
        classes = {str(i): name for i, name in enumerate(self.context.table.names)}
        text = json.dumps(classes, indent=1, ensure_ascii=False)
        self.context.folder.write("id2label.json", text.encode())
        self.context.folder.write("README.md", self._card().encode())
        if self.missing_originals:
            self.notes.append(self.missing_sentence("so their rows have a mask and no image"))

    def _card(self) -> str:
        files = [
            f"      - split: {split}\n        path: data/{split}-*.parquet"
            for split in sorted(self._shards)
        ]
        front = "\n".join(["configs:", "  - config_name: default", "    data_files:", *files])
        return (
            f"---\ntask_categories:\n  - image-segmentation\n{front}\n---\n\n{self.context.about}\n\n"
            "A mask's pixel value is a class id; `id2label.json` names the classes.\n"
        )


class _Shards:
    """The Parquet files of one split, one after the other."""

    def __init__(self, context: Context, split: str) -> None:
        self._context, self._split = context, split
        features = {name: feature for name, (_, feature) in _COLUMNS.items()}
        self._schema = pa.schema(
            [(name, kind) for name, (kind, _) in _COLUMNS.items()],
            metadata={"huggingface": json.dumps({"info": {"features": features}})},
        )
        self._rows: list[dict[str, Any]] = []
        self._bytes = self._written = 0
        self._writer: pq.ParquetWriter | None = None
        self._names: list[str] = []

    def add(self, row: dict[str, Any]) -> str:
        """Keep a row; write the group when it is full. The file that the row will be in."""
        if self._writer is None:
            self._open()
        self._rows.append({name: row[name] for name in _COLUMNS})
        self._bytes += len(row["mask"]["bytes"]) + len((row["image"] or {}).get("bytes", b""))
        file = self._names[-1]
        if len(self._rows) >= _ROWS or self._bytes >= _BYTES:
            self._write_group()
            if self._written >= _SHARD:
                self._close()
        return file

    def finish(self) -> list[str]:
        """All files of the split, whole."""
        if self._writer is not None:
            self._write_group()
            self._close()
        return self._names

    def _open(self) -> None:
        self._names.append(f"data/{self._split}-{len(self._names):05d}.parquet")
        self._local = self._context.scratch / f"{self._split}.parquet"
        # Images and PNGs do not shrink any more.
        self._writer = pq.ParquetWriter(self._local, self._schema, compression="none")

    def _write_group(self) -> None:
        if self._writer is not None and self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
            self._written += self._bytes
            self._rows, self._bytes = [], 0

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._context.folder.upload(self._local, self._names[-1])
            self._writer, self._written = None, 0
