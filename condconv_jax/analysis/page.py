"""Pieces of an HTML page that needs nothing but itself: texts escaped, pictures inside."""

import base64
import html
import importlib.resources
import string
import struct
from collections.abc import Sequence
from pathlib import Path

TEMPLATE = "page.html"
BROAD = 1200  # pixels; a wider picture scrolls on a phone, where it would be too small to read


def page(title: str, subtitle: str, parts: Sequence[str]) -> str:
    """Returns the whole page.

    Args:
      title: text.
      subtitle: text.
      parts: HTML, from the functions below.
    """
    template = importlib.resources.files(__package__).joinpath(TEMPLATE).read_text("utf-8")
    return string.Template(template).substitute(
        title=html.escape(title), subtitle=html.escape(subtitle), body="\n".join(parts)
    )


def heading(text: str, level: int = 2) -> str:
    """Returns a heading of some text."""
    return f"<h{level}>{html.escape(text)}</h{level}>"


def paragraph(text: str, *, kind: str = "") -> str:
    """Returns a paragraph of some text; `kind` is its class in the style sheet."""
    attribute = f' class="{kind}"' if kind else ""
    return f"<p{attribute}>{_prose(text)}</p>"


def code(text: str) -> str:
    """Returns a block of code."""
    return f"<pre>{html.escape(text)}</pre>"


def table(rows: Sequence[Sequence[str]], *, kind: str = "", difference: bool = False) -> str:
    """Returns a table that scrolls by itself where it is wider than the page.

    Args:
      rows: texts, the first row the headers.
      kind: class in the style sheet; "words" aligns to the left.
      difference: whether the last row is one of differences.
    """
    header, *body = rows
    lines = ["<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in header) + "</tr>"]
    for index, row in enumerate(body):
        last = ' class="difference"' if difference and index == len(body) - 1 else ""
        lines.append(f"<tr{last}>" + "".join(_cell(cell) for cell in row) + "</tr>")
    attribute = f' class="{kind}"' if kind else ""
    return f'<div class="scroll"><table{attribute}>\n' + "\n".join(lines) + "\n</table></div>"


def figure(path: Path, title: str, caption: str) -> str:
    """Returns a picture with its caption.

    Args:
      path: of a PNG, which becomes part of the page.
      title: what it shows, in a few words; also for those who cannot see it.
      caption: how to read it.
    """
    data = path.read_bytes()
    width, height = struct.unpack(">II", data[16:24])  # of a PNG's header
    # Shown smaller than its pixels, so that it is sharp on dense screens too.
    size = f'width="{3 * width // 5}" height="{3 * height // 5}"'
    kind = ' class="broad"' if width > BROAD else ""
    encoded = base64.b64encode(data).decode("ascii")
    return (
        f'<figure><div class="scroll"><img{kind} {size} alt="{html.escape(title)}" '
        f'src="data:image/png;base64,{encoded}"></div>\n'
        f"<figcaption><b>{html.escape(title)}.</b> {_prose(caption)}</figcaption></figure>"
    )


def drawing(drawings: Sequence[str], title: str, caption: str) -> str:
    """Returns drawings beside each other, with their caption.

    Args:
      drawings: of `svg`.
      title: what they show, in a few words.
      caption: how to read them.
    """
    body = "\n".join(drawings)
    if len(drawings) > 1:
        body = f'<div class="drawings">{body}</div>'
    return (
        f'<figure><div class="scroll">{body}</div>\n'
        f"<figcaption><b>{html.escape(title)}.</b> {_prose(caption)}</figcaption></figure>"
    )


def _prose(text: str) -> str:
    """Escaped text, without line breaks between a number and its percent sign."""
    return html.escape(text).replace(" %", "&nbsp;%")


def _cell(text: str) -> str:
    kind = ' class="wide"' if len(text) > 40 else ""
    return f"<td{kind}>{html.escape(text)}</td>"
