"""`curves.png`: the run so far on one page."""

import io
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dinoidd.classes import ClassTable
from dinoidd.storage import Store
from dinoidd.training.config import TrainConfig

NAME = "curves.png"
# Okabe and Ito's: told apart with any colour vision, and by line style besides.
_BLUE, _ORANGE, _GREEN, _PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
_GREY = "#636c76"
_MARKED = 30  # epochs that have markers


def make_curves(rows: list[dict[str, Any]], table: ClassTable, title: str) -> Figure:
    """Losses, mIoU, learning rate, and the best epoch's IoU of every class.

    Args:
        rows: of `metrics.jsonl`, at least one.
    """
    figure = Figure(figsize=(14, 9), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(3, 2, width_ratios=(3, 2), height_ratios=(3, 3, 1.5))
    figure.suptitle(title, x=0.01, ha="left", fontsize=14)
    loss, iou, rate = (figure.add_subplot(grid[i, 0]) for i in range(3))
    epochs = [row["epoch"] for row in rows]
    for axes in (loss, iou, rate):
        locator = MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10])
        axes.xaxis.set_major_locator(locator)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    rate.set_xlabel("epoch")
    best = next((row for row in rows if row["epoch"] == rows[-1]["best_epoch"]), rows[-1])
    _lines(loss, rows, {"train_loss": ("training", _BLUE), "val_loss": ("validation", _ORANGE)})
    loss.set_ylabel("loss")
    _shares(iou, rows, best)
    _lines(rate, rows, {"learning_rate": ("learning rate", _PURPLE)})
    rate.set_ylabel("learning rate")
    rate.yaxis.set_major_locator(MaxNLocator(4))
    rate.yaxis.set_major_formatter(lambda value, _: f"{value:g}")  # no factor above the axis
    _bars(figure.add_subplot(grid[:, 1]), best, table)
    return figure


def write_curves(
    rows: list[dict[str, Any]], config: TrainConfig, table: ClassTable, output: Store
) -> None:
    """Draw a run's rows into its output."""
    page = io.BytesIO()
    make_curves(rows, table, run_title(config)).savefig(page, format="png")
    output.write_bytes(NAME, page.getvalue())


def run_title(config: TrainConfig) -> str:
    """`classifier of vit7b16 on idd`."""
    base = config.preset or str(config.checkpoint).rpartition("/")[2]
    return f"{config.trained} of {base} on {config.data.rstrip('/').rpartition('/')[2]}"


def _lines(axes: Axes, rows: list[dict[str, Any]], lines: dict[str, tuple[str, str]]) -> None:
    epochs = [row["epoch"] for row in rows]
    for number, (name, (label, color)) in enumerate(lines.items()):
        style = ("o-", "s--")[number % 2]
        if len(rows) > _MARKED:  # markers would hide the dashes between them
            style = style[1:]
        axes.plot(epochs, _values(rows, name), style, color=color, label=label, markersize=4)
    if len(lines) > 1:
        axes.legend(frameon=False)


def _shares(axes: Axes, rows: list[dict[str, Any]], best: dict[str, Any]) -> None:
    shares = [
        {**row, **{n: _values([row], n)[0] * 100 for n in ("miou", "pixel_accuracy")}}
        for row in rows
    ]
    reached = best["miou"]
    told = "" if reached is None else f", best {100 * reached:.2f} % (epoch {best['epoch']})"
    lines = {"miou": (f"mean IoU{told}", _GREEN), "pixel_accuracy": ("pixel accuracy", _GREY)}
    _lines(axes, shares, lines)
    axes.set_ylabel("validation, per cent")
    axes.set_ylim(bottom=0)
    if reached is not None:
        axes.plot(best["epoch"], 100 * reached, marker="*", markersize=14, color=_GREEN)


def _bars(axes: Axes, best: dict[str, Any], table: ClassTable) -> None:
    """A bar a class in its own colour, with an edge, since some are pale; absent ones say so."""
    present = {c.name: best["iou"].get(c.name) for c in table.classes}
    order = sorted(table.classes, key=lambda c: -1 if present[c.name] is None else present[c.name])
    values = [present[c.name] for c in order]
    lengths = [100 * value if value is not None else 0.0 for value in values]
    colors = [tuple(part / 255 for part in c.color) for c in order]
    axes.barh(range(len(order)), lengths, color=colors, edgecolor=_GREY, linewidth=0.6, height=0.75)
    axes.set_yticks(range(len(order)), [c.name for c in order])
    for place, (length, value) in enumerate(zip(lengths, values, strict=True)):
        text = "absent" if value is None else f"{length:.1f}"
        axes.text(length + 1, place, text, va="center", fontsize=9, color=_GREY)
    axes.set_xlim(0, 108)
    axes.set_ylim(-0.7, len(order) - 0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"IoU by class, per cent (epoch {best['epoch']})", fontsize=11, loc="left")


def _values(rows: list[dict[str, Any]], name: str) -> list[float]:
    return [np.nan if row[name] is None else float(row[name]) for row in rows]
