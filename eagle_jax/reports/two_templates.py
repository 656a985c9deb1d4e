"""Reports that still have an HTML template beside the Markdown one; goes with the last of them."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from eagle_jax.base.atomic_files import write_atomically
from eagle_jax.reports import figures
from eagle_jax.reports.markdown import format_interval


def write_both(
    folder: Path,
    name: str,
    context: Mapping[str, Any],
    drawn: Mapping[str, Figure | None],
    filters: Mapping[str, Callable[..., Any]] | None = None,
) -> tuple[Path, Path]:
    """Renders the package's <name>.html and <name>.md into `folder`, returns the two pages' paths.

    context: what both read; its "data" has a title, settings and provenance. drawn: figures by the
    name that templates know them by; None: this run has no such one.
    """
    data, drawn = context["data"], {n: figure for n, figure in drawn.items() if figure is not None}
    environment = _environment(filters or {})
    context = {
        **context,
        "settings": list(flatten_settings(data.settings)),
        "provenance": list(flatten_settings(data.provenance)),
    }
    svgs = {n: figures.to_inline_svg(figure, n) for n, figure in drawn.items()}
    page = environment.get_template(f"{name}.html").render(**context, figures=svgs)
    names = {n: f"report_{n}.png" for n in drawn}
    text = environment.get_template(f"{name}.md").render(**context, figures=names)
    files = {"report.html": page.encode(), "report.md": re.sub(r"\n{3,}", "\n\n", text).encode()}
    files |= {names[n]: figures.to_png(figure) for n, figure in drawn.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for file_name, content in files.items():
        write_atomically(folder / file_name, lambda file, content=content: file.write(content))
    return folder / "report.html", folder / "report.md"


def _environment(filters: Mapping[str, Callable[..., Any]]) -> jinja2.Environment:
    """Templates of the package; what goes into HTML is escaped, `md` escapes for Markdown."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parents[1]),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shared = {"md": _markdown, "number": _number, "interval": format_interval}
    environment.filters |= {**shared, **filters}
    return environment


def flatten_settings(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings as (dotted name, value) rows."""
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from flatten_settings(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _number(inner) if isinstance(inner, float) else str(inner)


def _number(value: Any) -> str:
    """A few digits for a float, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _markdown(text: Any) -> str:
    """Any text as literal Markdown on one line: no tags, no emphasis, no links, no table cells."""
    escaped = re.sub(r"([\\`*_\[\]#|~!$])", r"\\\1", " ".join(str(text).split()))
    return html.escape(escaped, quote=False)
