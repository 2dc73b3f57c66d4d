"""The sections of the page, as HTML."""

from collections.abc import Mapping

from dinoidd.classes import ClassTable
from dinoidd.output.reader import RunReader
from dinoidd.report.charts import histogram, mix_bar, over_time, share_bar
from dinoidd.report.facts import run_facts, settings_json, speed, warnings
from dinoidd.report.figures import Figures
from dinoidd.report.galleries import Galleries
from dinoidd.report.gallery import gallery, legend, swatch
from dinoidd.report.markup import color, count, element, escape, percent, table
from dinoidd.report.pictures import Picture
from dinoidd.storage import shown

_MEANINGS = {
    "confidence": "mean over the image of the highest class probability",
    "entropy": "mean over the image of the normalised entropy",
    "margin": "mean over the image of the two highest probabilities' difference",
}


def section(anchor: str, title: str, body: str, lead: str = "") -> str:
    """A part of the page with its heading; `lead` is a sentence below it."""
    lead = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    heading = f'<h2 id="{anchor}-h">{escape(title)}</h2>'
    return f'<section id="{anchor}" aria-labelledby="{anchor}-h">{heading}{lead}{body}</section>'


def overview(run: RunReader, figures: Figures) -> str:
    """The figures that come first, and warnings before them."""
    errors = figures.images - figures.ok
    measures = {m.name: m for m in figures.measures}
    present = sum(c.images > 0 for c in figures.classes)
    tiles = [
        ("Images", count(figures.images), "in the finished run" if run.finished else "so far"),
        ("With a mask", count(figures.ok), percent(figures.ok / figures.images)),
        ("Errors", count(errors), percent(errors / figures.images)),
        ("Classes seen", f"{present} of {len(figures.classes)}", escape(run.table.name)),
    ]
    if "confidence" in measures:
        low, middle, _ = measures["confidence"].quantiles
        tiles.append(("Confidence, median", f"{middle:.3f}", f"5 % are below {low:.3f}"))
    if (rate := speed(run)) is not None:
        tiles.append(("Images per second", f"{rate:,.1f}", "after start-up"))
    if figures.sizes:
        width, height, images = figures.sizes[0]
        share = percent(images / figures.ok)
        tiles.append(("Image size", f"{width}x{height}", f"{share} of the images"))
    cells = "".join(
        f"<div><dt>{name}</dt><dd><b>{value}</b><small>{detail}</small></dd></div>"
        for name, value, detail in tiles
    )
    alerts = "".join(f'<p class="warning">{escape(text)}</p>' for text in warnings(run))
    return f'{alerts}<dl class="tiles">{cells}</dl>'


def error_section(figures: Figures) -> str:
    """Kinds of errors with examples, and what was converted; '' where all is well."""
    parts = []
    if figures.errors:
        rows = [
            (
                f'<code class="kind">{escape(kind.kind)}</code>',
                count(kind.images),
                percent(kind.images / figures.images),
                "<ul>"
                + "".join(
                    f"<li><code>{escape(shown(uri).removeprefix(figures.root))}</code> "
                    f"<span class='muted'>{escape(sentence)}</span></li>"
                    for uri, sentence in kind.examples
                )
                + "</ul>",
            )
            for kind in figures.errors
        ]
        head = ("Kind", "Images", "Share", "The first of them")
        parts.append(table(head, rows, caption="Errors by kind", numbers=(1, 2)))
    if figures.notes:
        notes = [
            (escape(note), count(images), percent(images / figures.images))
            for note, images in figures.notes
        ]
        columns = ("Converted before segmentation", "Images", "Share")
        parts.append(table(columns, notes, caption="Notes", numbers=(1, 2)))
    return "".join(parts) or "<p>No errors, and nothing had to be converted.</p>"


def class_section(figures: Figures) -> str:
    """The classes seen: share of pixels, share of images, the largest share of one image.

    A full bar is 100 % in both columns.
    """
    whole, ok = figures.pixels or 1, figures.ok or 1
    rows = []
    for index, info in enumerate(figures.classes):
        if not info.images:  # the sentence above the table names it
            continue
        name = swatch(info.color) + escape(info.name)
        pixels, images = info.pixels / whole, info.images / ok
        rows.append(
            (
                f'<a href="#class-{index}">{name}</a>',
                share_bar(pixels, color(info.color)) + percent(pixels),
                share_bar(images) + percent(images),
                percent(info.largest),
            )
        )
    head = ("Class", "Share of pixels", "Share of images", "Most of one image")
    return f'<div class="sortable">{table(head, rows, caption="Classes", numbers=(1, 2, 3))}</div>'


def measure_section(figures: Figures) -> str:
    """Histograms of confidence, entropy and margin."""
    parts = []
    for measure in figures.measures:
        low, middle, high = measure.quantiles
        facts = f"mean {measure.mean:.3f} · 5 % {low:.3f} · median {middle:.3f} · 95 % {high:.3f}"
        parts.append(
            f"<figure><figcaption><b>{measure.name.capitalize()}</b> "
            f'<span class="muted">{_MEANINGS[measure.name]}</span></figcaption>'
            f'{histogram(measure)}<p class="muted">{facts}</p></figure>'
        )
    return f'<div class="charts">{"".join(parts)}</div>'


def folder_section(figures: Figures) -> str:
    """A line a folder: images, errors, confidence, mix of classes."""
    if figures.folders is None:
        return ""
    rows = [
        (
            f"<code>{escape(piece.label)}</code>",
            count(piece.images),
            count(piece.errors),
            "" if piece.confidence is None else f"{piece.confidence:.3f}",
            mix_bar(piece, figures.classes),
        )
        for piece in figures.folders.slices
    ]
    head = ("Folder", "Images", "Errors", "Confidence", "Share of pixels by class")
    listing = table(head, rows, caption="Folders", numbers=(1, 2, 3))
    more = figures.folders.total - len(rows)
    note = f'<p class="muted">{count(more)} smaller folders are not shown.</p>' if more else ""
    return f'<div class="sortable folders">{listing}</div>{note}'


def time_section(figures: Figures) -> str:
    """The run over time, as the names of files tell it."""
    if figures.times is None:
        return ""
    return f'<div class="wide">{over_time(figures.times, figures.classes)}</div>'


def class_galleries(
    galleries: Galleries, pictures: Mapping[int, Picture], classes: ClassTable, root: str
) -> str:
    """`images with the most ...` for every class that is seen."""
    parts = []
    for content in galleries.of_classes:
        info = classes.classes[content.class_id or 0]
        heading = f"{swatch(info.color)}Images with the most {escape(info.name)}"
        parts.append(
            element(
                "article",
                f"<h3>{heading}</h3>{gallery(content, pictures, classes, root)}",
                id=f"class-{content.class_id}",
            )
        )
    return legend(classes, [g.class_id or 0 for g in galleries.of_classes]) + "".join(parts)


def facts_section(run: RunReader) -> str:
    """What ran, with which settings."""
    pairs = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in run_facts(run)
    )
    config = settings_json(run)
    lines = "\n".join(escape(line) for line in config.splitlines()) if config else ""
    details = (
        f"<details><summary>All settings</summary><pre>{lines}</pre></details>" if config else ""
    )
    return f'<dl class="facts">{pairs}</dl>{details}'
