"""HTML from values. Every value passes through `escape`: names of files are hostile input."""

import html
import unicodedata
from collections.abc import Iterable, Sequence

_JOINERS = "\u200c\u200d"  # that some scripts are not readable without
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def escape(value: object) -> str:
    """Text for HTML, in elements and in attributes; what cannot be seen is shown as its number.

    So a line break, a change of direction or half a surrogate pair in a file's name can neither break
    the page nor mislead its reader.
    """
    text = str(value)
    if not text.isprintable():
        text = "".join(c if _visible(c) else f"\\u{{{ord(c):x}}}" for c in text)
    return html.escape(text)


def _visible(character: str) -> bool:
    return character in _JOINERS or unicodedata.category(character) not in _INVISIBLE


def element(tag: str, content: str = "", **attributes: object) -> str:
    """`<tag attributes>content</tag>`; content is HTML, attributes are text. `class_` is `class`."""
    pairs = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return f"<{tag}{pairs}>{content}</{tag}>"


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str, numbers: Sequence[int] = ()
) -> str:
    """A table of HTML cells; columns in `numbers` are set right. The first cell names its row."""
    heads = "".join(
        element("th", escape(name), scope="col", class_="number" if i in numbers else None)
        for i, name in enumerate(head)
    )
    lines = []
    for row in rows:
        first = element("th", row[0], scope="row")
        rest = "".join(
            element("td", cell, class_="number" if i in numbers else None)
            for i, cell in enumerate(row[1:], 1)
        )
        lines.append(f"<tr>{first}{rest}</tr>")
    return (
        f"<table><caption>{escape(caption)}</caption><thead><tr>{heads}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def count(value: int) -> str:
    """`12,345`."""
    return f"{value:,}"


def percent(share: float) -> str:
    """A share of 0..1 with as many digits as tell something: `41.3 %`, `<0.01 %`."""
    if 0 < share < 0.0001:
        return "<0.01 %"
    if share == 1:
        return "100 %"
    return f"{100 * share:.2f} %" if 0 < share < 0.01 else f"{100 * share:.1f} %"


def color(rgb: tuple[int, int, int]) -> str:
    """As CSS."""
    return "#{:02x}{:02x}{:02x}".format(*rgb)
