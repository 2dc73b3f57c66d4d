"""A run's masks as other tools want them: PNG folders, COCO, Cityscapes, Hugging Face, FiftyOne."""

from dinoidd.exports.job import FORMATS, Exported, export

__all__ = ["FORMATS", "Exported", "export"]
