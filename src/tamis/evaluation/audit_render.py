"""Rendering of an audit: its own templates in the look of the quality report, everything escaped."""

import re
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from markupsafe import Markup

from tamis.evaluation.plots import Scale
from tamis.evaluation.render import environment

if TYPE_CHECKING:
    from jinja2 import Template

    from tamis.evaluation.audit import AuditReport
    from tamis.evaluation.query_slices import QuerySlice
    from tamis.evaluation.slices import SliceRow

MARKS = {"bad": ("worse", "▼"), "look": ("unclear", "≈"), "good": ("better", "✓")}
_STYLE = re.compile(r"<style>\n(.*?)</style>", re.DOTALL)


def html(report: "AuditReport") -> str:
    """Render the page."""
    return _template("audit.html.j2", autoescape=True).render(report=report, style=_style())


def markdown(report: "AuditReport") -> str:
    """Render the Markdown."""
    text = _template("audit.md.j2", autoescape=False).render(report=report)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _source(name: str) -> str:
    return resources.files("tamis.evaluation").joinpath("templates", name).read_text(encoding="utf-8")


@cache
def _style() -> Markup:
    """Return the style sheet of the quality report: one look, written once."""
    match = _STYLE.search(_source("report.html.j2"))
    return Markup(match.group(1) if match else "")


@cache
def _template(name: str, *, autoescape: bool) -> "Template":
    made = environment(autoescape=autoescape)
    made.filters["figure"] = _figure
    made.globals |= {
        "by_kind": _by_kind,
        "marks": MARKS,
        "shares": lambda values: Scale.around([0.0, 1.0] if max(values, default=0.0) > 0.5 else [0.0, *values]),
    }
    return made.from_string(_source(name))


def _figure(value: float | None) -> Markup:
    """Return a number of unknown size: three decimals below a thousand, none above."""
    if value is None:
        return Markup("–")
    return Markup((f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}").replace("-", "−"))


def _by_kind(rows: "Iterable[SliceRow | QuerySlice]") -> "list[tuple[str, list[SliceRow | QuerySlice]]]":
    """Group rows by their kind, in the order in which the kinds come first."""
    found: dict[str, list[SliceRow | QuerySlice]] = {}
    for row in rows:
        found.setdefault(row.kind, []).append(row)
    return list(found.items())
