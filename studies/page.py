"""Self-contained HTML pages with Plotly figures."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from studies.files import write_text

# Okabe and Ito's colours, told apart by readers with any colour vision.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")


def write_page(template: str, context: Mapping[str, Any], path: Path) -> None:
    """Fill a template of ``studies/templates``; the page needs no other file and no network."""
    environment = Environment(loader=PackageLoader("studies"), autoescape=True, undefined=StrictUndefined)
    shared = {
        "plotly_js": Markup(get_plotlyjs()),  # noqa: S704  the library itself
        "made": _now(),
    }
    page = environment.get_template(template).render(shared | dict(context))
    write_text(path, page)


def write_plain(template: str, context: Mapping[str, Any], path: Path) -> None:
    """Fill a template of ``studies/templates`` for plain text, such as Markdown: nothing is escaped."""
    environment = Environment(
        loader=PackageLoader("studies"),
        autoescape=False,  # noqa: S701  not for a browser
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    write_text(path, environment.get_template(template).render({"made": _now()} | dict(context)))


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def figure_html(figure: go.Figure) -> Markup:
    """A figure to put into a page, which loads Plotly's library once."""
    # Plotly escapes what it embeds.
    return Markup(figure.to_html(include_plotlyjs=False, full_html=False, config={"displayModeBar": False}))  # noqa: S704


def styled(figure: go.Figure, height: int) -> go.Figure:
    """House style, with the legend above."""
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 70, "r": 20, "t": 70, "b": 60},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        font={"family": "system-ui, sans-serif", "size": 13},
    )
    return figure
