"""dinoidd: DINOv3 segmentation of street images, from a bucket to Parquet, on Ray."""

__version__ = "0.1.0"
