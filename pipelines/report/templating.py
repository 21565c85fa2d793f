"""The templates' environment: how numbers, sizes and names are written, and pages put together."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources
from typing import TYPE_CHECKING

from pipelines.errors import UserError

if TYPE_CHECKING:
    from jinja2 import Environment


def environment(html: bool) -> Environment:
    """Templates of this package. Raises UserError where jinja2 is not installed."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise UserError("card: jinja2 is not installed: pip install 'likeness[card]'") from None
    made = Environment(
        loader=PackageLoader("pipelines.report"),
        autoescape=html,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=html,
        lstrip_blocks=html,
    )
    made.filters.update(n=number, size=size, hours=hours, count=count, decimal=decimal)
    made.filters.update(cell=cell, ticks=ticks)
    return made


def render_page(template: str, **values: object) -> bytes:
    """A page that stands alone, with the styles and the scripts inside it."""
    from markupsafe import Markup

    folder = resources.files("pipelines.report").joinpath("templates")
    style, theme, table = (
        folder.joinpath(name).read_text(encoding="utf-8")
        for name in ("style.css", "theme.js", "table.js")
    )
    # Scripts are allowed by their digests: one that came in with the data would not run.
    digests = [hashlib.sha256(text.encode()).digest() for text in (theme, table)]
    hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    html = (
        environment(html=True)
        .get_template(template)
        .render(
            values,
            style=Markup(style),
            theme_script=Markup(theme),
            table_script=Markup(table),
            script_hashes=Markup(hashes),
        )
    )
    return html.encode()


def number(value: int) -> str:
    """1,234."""
    return f"{value:,}"


def size(count: float) -> str:
    """Bytes in decimal units: 1.2 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def hours(value: float) -> str:
    """0.26 or 1,092."""
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def cell(text: object) -> str:
    """Text in a Markdown table: one line, no bar that would end the cell."""
    return " ".join(str(text).split()).replace("|", "\\|")


def count(value: float | None) -> str:
    """A whole number that may not be known."""
    return "–" if value is None else f"{value:,.0f}"


def decimal(value: float | None) -> str:
    """Three figures of a number that may not be known."""
    return "–" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def ticks(text: str) -> str:
    """HTML of a text whose `names` stand between backticks."""
    from markupsafe import Markup, escape

    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(escape(text))))
