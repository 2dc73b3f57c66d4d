"""The page: sections, style and script in one file that needs no network."""

import base64
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import resources

from dinoidd import __version__
from dinoidd.output.reader import RunReader
from dinoidd.report.figures import Figures
from dinoidd.report.galleries import Galleries
from dinoidd.report.gallery import gallery
from dinoidd.report.markup import count, escape
from dinoidd.report.pictures import Picture
from dinoidd.report.sections import (
    class_galleries,
    class_section,
    error_section,
    facts_section,
    folder_section,
    measure_section,
    overview,
    section,
    time_section,
)
from dinoidd.storage import shown

Section = tuple[str, str, str, str]  # anchor, title, HTML, lead


def render(
    run: RunReader,
    figures: Figures,
    galleries: Galleries,
    pictures: Mapping[int, Picture],
    *,
    title: str,
    now: datetime | None = None,
) -> str:
    """The whole page."""
    parts = _sections(run, figures, galleries, pictures)
    made = (now or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M UTC")
    links = "".join(f'<a href="#{anchor}">{escape(name)}</a>' for anchor, name, _, _ in parts)
    body = "".join(section(anchor, name, html, lead) for anchor, name, html, lead in parts)
    return (
        f'<!doctype html>\n<html lang="en">{_head(title)}\n<body>\n<header><div><h1>{escape(title)}</h1>'
        f'<p class="muted">{escape(run.name)}, made {made}</p></div><div id="tools"></div>'
        f'<nav aria-label="Sections">{links}</nav></header>\n<main>{overview(run, figures)}{body}'
        f'</main>\n<footer class="muted">dinoidd {__version__}. This page needs no network.</footer>\n'
        f"<script>{_asset('page.js')}</script>\n</body></html>\n"
    )


def _sections(
    run: RunReader, figures: Figures, galleries: Galleries, pictures: Mapping[int, Picture]
) -> list[Section]:
    """Those that have something to say."""
    table, root = run.table, figures.root
    unsure = gallery(galleries.least_confident, pictures, table, root)
    fair = gallery(galleries.fair, pictures, table, root)
    by_class = class_galleries(galleries, pictures, table, root)
    ranked = f"Ranked among {_among(galleries.ranked, figures.ok)}."
    times, seconds = figures.times, figures.times.seconds if figures.times else 0
    told = (
        f"{count(times.images if times else 0)} names tell a time (UTC); bars of {_span(seconds)}."
    )
    below = f"All are below {shown(root)}" if root else ""
    sections: list[Section] = [
        ("errors", "Errors", error_section(figures), ""),
    ]
    if figures.ok:
        sections += [
            ("classes", "Classes", class_section(figures), _class_lead(figures)),
            ("certainty", "Certainty", measure_section(figures), "The dashed line is the median."),
        ]
    sections += [
        ("time", "Over time", time_section(figures), told),
        ("folders", "Folders", folder_section(figures), below),
    ]
    if figures.ok:
        sections += [
            ("unsure", "Least confident images", unsure, ranked),
            ("sample", "A fair sample", fair, "Picked at random."),
            (
                "galleries",
                "Images by class",
                by_class,
                f"{ranked} Of neighbouring frames one is shown.",
            ),
        ]
    sections.append(("run", "The run", facts_section(run), ""))
    return [entry for entry in sections if entry[2]]


def _class_lead(figures: Figures) -> str:
    absent = [c.name for c in figures.classes if not c.images]
    never = f" Never seen: {', '.join(absent)}." if absent else ""
    return f"Over {count(figures.ok)} images and {count(figures.pixels)} pixels.{never}"


def _among(ranked: int, ok: int) -> str:
    whole = f"all {count(ok)} images with a mask"
    return whole if ranked >= ok else f"a fair sample of {count(ranked)} of {whole}"


def _span(seconds: int) -> str:
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:g} {name}"
    return f"{seconds} s"


def _head(title: str) -> str:
    """A policy lets nothing run or load but what is in this file."""
    digest = hashlib.sha256(_asset("page.js").encode()).digest()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
        f"form-action 'none'; script-src 'sha256-{base64.b64encode(digest).decode()}'"
    )
    return (
        f'<head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f"<title>{escape(title)}</title>\n<style>{_asset('page.css')}</style></head>"
    )


def _asset(name: str) -> str:
    return resources.files("dinoidd.report").joinpath(name).read_text(encoding="utf-8")
