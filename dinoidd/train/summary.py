"""What a training came to."""

from typing import Any

from dinoidd.train.cache import CacheRecord
from dinoidd.train.plan import Plan


def summarise(
    plan: Plan, cache: CacheRecord | None, epochs: list[dict[str, Any]], extraction: float
) -> dict[str, Any]:
    """Figures of a finished run.

    Args:
        epochs: rows of metrics.jsonl.
        extraction: seconds that this session spent on the cache.
    """
    last = epochs[-1]
    best = next((row for row in epochs if row["epoch"] == last["best_epoch"]), last)
    seconds = sum(row["seconds"] for row in epochs)
    unusable = {} if cache is None else cache.skipped
    summary = {
        "best_miou": last["best_miou"],
        "best_epoch": last["best_epoch"],
        "epochs": last["epoch"],
        "stopped_early": last["epoch"] < plan.config.epochs,
        "train_loss": best["train_loss"],
        "val_loss": best["val_loss"],
        "pixel_accuracy": best["pixel_accuracy"],
        "training_images": len(plan.samples.train) - len(unusable.get("train", ())),
        "validation_images": len(plan.samples.val) - len(unusable.get("val", ())),
        "seconds": seconds,
        "images_per_second": len(epochs) / sum(1 / row["images_per_second"] for row in epochs),
        "iou": best["iou"],
        "absent": best["absent"],
        "best": plan.output.uri_of("best.safetensors"),
        "last": plan.output.uri_of("last.safetensors"),
    }
    if cache is not None:
        summary |= {
            "cache": plan.cache.uri,
            "cache_bytes": cache.bytes,
            "extraction_seconds": extraction,
            "unusable": unusable,
        }
    return summary
