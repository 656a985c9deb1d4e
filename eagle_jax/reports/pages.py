"""What all reports share: report.md with its figures, and report.html, which needs nothing beside.

The source is one Markdown template for each report; report.html is its rendering. Nothing in it is
loaded from elsewhere: tags are shown as text, links are not made, figures are inlined.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from eagle_jax.base.atomic_files import write_atomically
from eagle_jax.base.provenance import provenance
from eagle_jax.reports import figures, markdown
from eagle_jax.reports.results import page_parser, results_files
from eagle_jax.reports.verdicts import MIN_SEEDS

_PACKAGE = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What every report has; all fields are JSON-able, so that it can be made again from JSON.

    confidence: of all intervals, e.g. 0.95; None: it has no interval.
    """

    title: str
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]
    confidence: float | None = None

    @property
    def level(self) -> str:
        return f"{self.confidence:.0%}".replace("%", " %")


def shared_fields(experiment: Any) -> dict[str, Any]:
    """Title, settings and provenance of the report on a run with these settings."""
    settings = json.loads(json.dumps(dataclasses.asdict(experiment)))
    return {"title": experiment.title, "settings": settings, "provenance": provenance()}


def write_pages(
    folder: Path, name: str, context: Mapping[str, Any], drawn: Mapping[str, Figure | None]
) -> tuple[Path, Path]:
    """Writes report.html and report.md into `folder`, returns their paths; beside them the files of
    `results`.

    name: of the package's template <name>.md. context: what it reads; its "data" is the `Report`.
    drawn: figures by the name that the template knows them by; None: this run has no such one.
    """
    drawn = {f"report_{n}.png": (n, figure) for n, figure in drawn.items() if figure is not None}
    names = {n: Markup(file_name) for file_name, (n, _) in drawn.items()}
    template = _environment().get_template("reports/report.md")
    text = template.render(**context, template=f"{name}.md", figures=names)
    text = re.sub(r"\n{3,}", "\n\n", text) + "\n"
    svgs = {file_name: figures.to_inline_svg(figure, n) for file_name, (n, figure) in drawn.items()}
    page = render_html(text, context["data"].title, svgs)
    files = {"report.html": page.encode(), "report.md": text.encode()}
    files |= results_files(name, dataclasses.asdict(context["data"]), text)
    files |= {file_name: figures.to_png(figure) for file_name, (_, figure) in drawn.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for file_name, content in files.items():
        write_atomically(folder / file_name, lambda file, content=content: file.write(content))
    return folder / "report.html", folder / "report.md"


def _environment() -> jinja2.Environment:
    """Markdown templates of the package: whatever they print goes through `to_markdown`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_PACKAGE),
        autoescape=True,  # macros and filters keep what is escaped already
        finalize=markdown.to_markdown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "bullets": markdown.bullets,
        "facts": markdown.fact_table,
        "table": markdown.table,
        "values": markdown.value_table,
    }
    environment.globals["min_seeds"] = MIN_SEEDS
    return environment


def render_html(text: str, title: str, svgs: Mapping[str, str]) -> str:
    """The page of a Markdown text; svgs: file name of a figure -> what stands in its place.

    The links to its sections stand behind the first of them, which says what was found. A paragraph that
    begins with an image is a figure, the rest of it the caption; the first cell of a line of a table is
    its heading. A table is called by the heading it stands under, and scrolls by keyboard.
    """
    parser = page_parser()
    parser.add_render_rule("image", _render_image)
    parser.add_render_rule("table_open", _render_table_open)
    parser.add_render_rule("table_close", lambda *_: "</table>\n</div>\n")
    tokens = parser.parse(text)
    links, heading, tables = {}, title, Counter()
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            heading = _plain(tokens[place + 1])
            if token.tag == "h2":
                token.attrSet("id", re.sub(r"\W+", "-", heading.lower()).strip("-"))
                links[token.attrs["id"]] = heading
        elif token.type == "table_open":
            tables[heading] += 1
            token.meta["caption"] = heading if tables[heading] == 1 else f"{heading}, table {tables[heading]}"
        elif token.type == "th_open":
            token.attrSet("scope", "col")
        elif token.type == "td_open" and tokens[place - 1].type == "tr_open":
            token.attrSet("scope", "row")
            token.tag = tokens[place + 2].tag = "th"
        elif token.type == "paragraph_open" and tokens[place + 1].children[0].type == "image":
            _to_figure(*tokens[place : place + 3])
    sections = [place for place, token in enumerate(tokens) if token.type == "heading_open" and token.tag == "h2"]
    tokens.insert(sections[1] if len(sections) > 1 else 0, Token("html_block", "", 0, content=_links(links)))
    shell = (_PACKAGE / "reports/shell.html").read_text()
    return jinja2.Template(shell, autoescape=True, trim_blocks=True).render(
        title=title,
        style=Markup((_PACKAGE / "reports/report_style.css").read_text()),
        content=Markup(parser.renderer.render(tokens, parser.options, {"svgs": svgs})),
    )


def _links(links: Mapping[str, str]) -> str:
    """To the sections, by their ids."""
    lines = (f'<a href="#{name}">{escape(heading)}</a>\n' for name, heading in links.items())
    return f'<nav aria-label="Sections">\n{"".join(lines)}</nav>\n'


def _plain(inline: Token) -> str:
    """The text of a heading, without its marks."""
    return "".join(child.content for child in inline.children)


def _render_table_open(renderer: RendererHTML, tokens: Sequence[Token], place: int, options: Any, env: Any) -> str:
    caption = escape(tokens[place].meta["caption"])
    opening = f'<div class="scroll" tabindex="0" role="region" aria-label="Table: {caption}">'
    return f"{opening}\n<table>\n<caption>{caption}</caption>\n"


def _to_figure(opening: Token, inline: Token, closing: Token) -> None:
    opening.tag = closing.tag = "figure"
    image, *caption = inline.children
    if caption:
        begin, end = (Token("figcaption", "figcaption", nesting) for nesting in (1, -1))
        inline.children = [image, begin, *caption[1:], end]  # without the end of the image's line


def _render_image(renderer: RendererHTML, tokens: Sequence[Token], place: int, options: Any, env: Any) -> str:
    """The figure with its description; of any other image the description alone."""
    image = tokens[place]
    description = escape(renderer.renderInlineAsText(image.children, options, env))
    if (svg := env["svgs"].get(image.attrs["src"])) is None:
        return description
    return f'<div class="scroll" role="img" aria-label="{description}">\n{svg}\n</div>\n'


def refuse_non_finite(where: str, value: Any) -> None:
    """Raises ValueError that names the place of a number that is not finite in JSON-able values."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            refuse_non_finite(f"{where}, {key}", inner)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for place, inner in enumerate(value):
            refuse_non_finite(f"{where}[{place}]", inner)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}: {value} is not finite")
