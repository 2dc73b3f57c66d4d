"""The tally of rows that are written already."""

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from dinoidd.segment.tally import Tally


def recount(rows: pa.Table) -> Tally:
    """Images, errors and pixels of rows of `images/`; no mask is looked at."""
    ok = pc.equal(rows["status"].cast(pa.string()), "ok")
    good = rows.filter(ok)
    kinds = rows["error_kind"].filter(pc.invert(ok)).value_counts().to_pylist()
    tally = Tally(images=len(rows), ok=len(good))
    tally.errors = Counter({kind["values"]: kind["counts"] for kind in kinds})
    if len(good):
        pixels = good.select(["pixels"]).flatten()  # a column a class
        for name, counts in zip(pixels.column_names, pixels.columns, strict=True):
            field = name.removeprefix("pixels.")
            tally.pixels[field] = pc.sum(counts).as_py()
            if images := pc.sum(pc.greater(counts, 0)).as_py():
                tally.images_with[field] = images
    return tally
