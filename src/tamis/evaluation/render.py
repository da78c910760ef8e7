"""Rendering of a Report: Jinja templates, everything escaped, control and direction marks made visible."""

import re
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from tamis.evaluation.controls import RANDOM
from tamis.evaluation.judgement import interval, p_value, sentence, signed
from tamis.evaluation.plots import Scale, bars
from tamis.evaluation.significance import Comparison

if TYPE_CHECKING:
    from jinja2 import Environment, Template

    from tamis.evaluation.report import Report

# Controls, soft hyphen, zero-width and direction marks, separators, surrogates, tags. Not the joiners
# U+200C and U+200D: Persian, Indic scripts and emoji need them. A fixed list: the same in every Python.
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\uffff"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)
_MARKDOWN = re.compile(r"[\\`*_\[\]|~<>&]|^[#+=\-]|(?<=^\d)[.)]")
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def visible(text: str) -> str:
    r"""Show control characters as \xNN, hidden and direction marks as \uNNNN."""
    return _HIDDEN.sub(lambda m: _escape(ord(m.group())), text)


def _escape(point: int) -> str:
    if point < 0x100:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def escape_markdown(text: str) -> str:
    """Return text that Markdown shows as it is: no markup, no tag, no link, no table cell ends in it."""
    return _MARKDOWN.sub(lambda m: _ENTITIES.get(m.group(), "\\" + m.group()), visible(text))


def megabytes(num_bytes: int) -> str:
    """Bytes in decimal units, three digits."""
    value, unit = float(num_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def _fixed(value: float, digits: int = 3) -> Markup:
    return Markup(f"{value:.{digits}f}".replace("-", "−"))


def environment(*, autoescape: bool) -> "Environment":
    """Return what templates are made with: filters and globals of all pages, and no text that becomes markup.

    Args:
      autoescape: True for HTML; False for Markdown, whose strings are escaped as `escape_markdown` does.
    """
    from jinja2 import Environment, StrictUndefined

    def finalize(value: object) -> object:
        if isinstance(value, Markup) or not isinstance(value, str):
            return value
        return visible(value) if autoescape else escape_markdown(value)

    made = Environment(
        autoescape=autoescape, finalize=finalize, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {
        "signed": lambda v: Markup(signed(v)),
        "number": lambda v: Markup(f"{v:,}"),
        "fixed": _fixed,
        "percent": lambda v: Markup(f"{100 * v:.1f} %"),
        "bytes": lambda v: Markup(megabytes(v)),
        "p": lambda v: Markup(escape(p_value(v))),
    }
    made.globals |= {
        "interval": lambda low, high: Markup(interval(low, high)),
        "sentence": sentence,
        "status": status,
        "bars": bars,
        "scale": Scale.around,
        "spanning": lambda rows: Scale.around([0.0, *(c.low for c in rows), *(c.high for c in rows)]),
        "random": RANDOM,
    }
    return made


def status(comparison: Comparison) -> tuple[str, str]:
    """Return (word, mark) for a comparison: better, worse, or nothing shown."""
    if not comparison.significant:
        return "unclear", "≈"
    return ("better", "▲") if comparison.delta > 0 else ("worse", "▼")


def html(report: "Report") -> str:
    """Render the page."""
    return _template("report.html.j2", autoescape=True).render(report=report)


def markdown(report: "Report") -> str:
    """Render the Markdown."""
    text = _template("report.md.j2", autoescape=False).render(report=report)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


@cache
def _template(name: str, *, autoescape: bool) -> "Template":
    source = resources.files("tamis.evaluation").joinpath("templates", name).read_text(encoding="utf-8")
    return environment(autoescape=autoescape).from_string(source)
