"""Galleries as HTML: each picture is the image with its mask over it."""

from collections.abc import Mapping, Sequence

from dinoidd.classes import ClassTable
from dinoidd.report.galleries import Gallery, Pick
from dinoidd.report.markup import color, element, escape, percent
from dinoidd.report.pictures import Picture
from dinoidd.storage import shown

_NAMED = 3  # classes in a picture's description
_CAPTION = 40  # letters of a name below a picture


def gallery(content: Gallery, pictures: Mapping[int, Picture], table: ClassTable, root: str) -> str:
    """The pictures that there are; a line tells of those that the page had no room for."""
    figures = [
        _figure(pictures[pick.image_id], pick, table, root)
        for pick in content.picks
        if pick.image_id in pictures
    ]
    missing = len(content.picks) - len(figures)
    note = f'<p class="muted">{missing} more are left out: the page is full.</p>' if missing else ""
    return f'<div class="pictures">{"".join(figures)}</div>{note}'


def _figure(picture: Picture, pick: Pick, table: ClassTable, root: str) -> str:
    width, height = picture.size
    description = describe(picture, table)
    layers = ""
    if picture.image is not None:
        layers += element_img(picture.image, description, "image", picture.size)
    if picture.mask is not None:
        alt = "" if picture.image is not None else f"mask: {description}"
        layers += element_img(picture.mask, alt, "mask", picture.size)
    if picture.problem is not None:
        layers += element("span", escape(picture.problem), class_="problem")
    alone = "" if picture.image is not None else " alone"
    frame = element("div", layers, class_=f"picture{alone}", style=f"aspect-ratio:{width}/{height}")
    facts = [f"confidence {picture.confidence:.2f}"] if picture.confidence is not None else []
    if pick.share is not None:
        facts.insert(0, f"<b>{percent(pick.share)}</b>")
    name = _tail(shown(picture.uri).removeprefix(root))
    caption = element("span", escape(name), class_="name", title=shown(picture.uri))
    return f"<figure>{frame}<figcaption>{caption}{' · '.join(facts)}</figcaption></figure>"


def _tail(name: str) -> str:
    """The end of a long name, which tells more than its start."""
    return name if len(name) <= _CAPTION else "…" + name[1 - _CAPTION :]


def element_img(source: str, alt: str, class_: str, size: tuple[int, int]) -> str:
    """An `img` of a data URI."""
    return (
        f'<img class="{class_}" alt="{escape(alt)}" src="{source}" width="{size[0]}" '
        f'height="{size[1]}" decoding="async">'
    )


def describe(picture: Picture, table: ClassTable) -> str:
    """What is on a picture, in words: its largest classes."""
    order = sorted(range(len(table)), key=lambda c: -picture.shares[c])[:_NAMED]
    parts = [f"{table.names[c]} {percent(picture.shares[c])}" for c in order if picture.shares[c]]
    name = shown(picture.uri).rpartition("/")[2]
    return f"{name}: {', '.join(parts) or 'no mask'}"


def legend(table: ClassTable, class_ids: Sequence[int]) -> str:
    """The colours of these classes, each a link to the gallery of its class."""
    items = "".join(
        f'<li><a href="#class-{c}">{swatch(table.classes[c].color)}{escape(table.names[c])}</a></li>'
        for c in class_ids
    )
    return f'<ul class="legend">{items}</ul>'


def swatch(rgb: tuple[int, int, int]) -> str:
    """A small square of the class's colour; its name stands beside it."""
    return f'<span class="swatch" style="background:{color(rgb)}" aria-hidden="true"></span>'
