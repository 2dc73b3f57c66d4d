"""One self-contained HTML page about a segmentation run."""

from dinoidd.report.build import ReportOptions, build_report

__all__ = ["ReportOptions", "build_report"]
