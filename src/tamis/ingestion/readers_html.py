"""HTML reader: title, text by blocks, headings as ``#`` lines, links; linear on any input.

Source: tamis design, after the tokenisation rules of the HTML standard (section 13.2.5). The scanner is
our own because html.parser of older Python versions is quadratic on unclosed tags (CVE-2025-6069).
"""

import html
import re
from collections.abc import Iterator
from typing import NamedTuple

from tamis.ingestion.readers_text import stem
from tamis.ingestion.records import Record, clip, encode_metadata

MAX_LINKS = 1000
_NAME = re.compile(r"[a-zA-Z][^\s/>]*+")
_ATTRIBUTE = re.compile(r"[\s/]*+([^\s/>=][^\s/>=]*+)(?:\s*+=\s*+(?:\"([^\"]*+)\"|'([^']*+)'|([^\s>\"'][^\s>]*+)))?+")
_BLANKS = re.compile(r"[\s/]*+")
_RAW_END = {
    n: re.compile(rf"</{n}(?=[\s/>])", re.IGNORECASE) for n in ("script", "style", "title", "textarea", "noscript")
}
_SPACE = re.compile(r"\s+")
_HEADINGS = {f"h{n}": n for n in range(1, 7)}
_UNSEEN = frozenset(
    {"script", "style", "noscript", "template", "svg", "math", "head", "iframe", "object", "select", "button"}
)
_FURNITURE = frozenset({"nav", "footer", "aside", "form"})
_MAIN = frozenset({"main", "article"})
_LINES = frozenset({"address", "body", "br", "caption", "dd", "dt", "html", "li", "summary", "tbody", "td", "tfoot"})
_PARAGRAPHS = frozenset({"p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "table", "pre", "blockquote", "section"})
_BLOCKS = _LINES | _PARAGRAPHS | {"article", "aside", "details", "dialog", "div", "dl", "fieldset", "figcaption"}
_BLOCKS |= {"figure", "footer", "form", "header", "hr", "main", "nav", "th", "thead", "tr"}
_SPACED = _PARAGRAPHS | {"article", "div", "dl", "figure"}


class Token(NamedTuple):
    """One piece: kind "text", "start", "end"; ``value`` is the text or the tag's lower-case name."""

    kind: str
    value: str
    href: str = ""


def tokens(source: str) -> Iterator[Token]:
    """Cut HTML into text and tags; comments, declarations and the content of scripts are left out. O(characters)."""
    position, end = 0, len(source)
    while position < end:
        opening = source.find("<", position)
        if opening < 0:
            yield Token("text", source[position:])
            return
        if opening > position:
            yield Token("text", source[position:opening])
        following = source[opening + 1 : opening + 2]
        if following.isascii() and following.isalpha():
            name, href, position = _start_tag(source, opening)
            if position < 0:
                return  # the standard drops a tag that the file's end cuts
            yield Token("start", name, href)
            if name in _RAW_END:
                found = _RAW_END[name].search(source, position)
                stop = found.start() if found else end
                yield Token("text", source[position:stop])
                position = stop
        elif following == "/":
            close = source.find(">", opening)
            name_match = _NAME.match(source, opening + 2)
            if name_match:
                yield Token("end", name_match.group().lower())
            position = end if close < 0 else close + 1
        elif following in ("!", "?"):
            mark = "-->" if source.startswith("<!--", opening) else ">"
            close = source.find(mark, opening + 2)
            position = end if close < 0 else close + len(mark)
        else:
            yield Token("text", "<")
            position = opening + 1


def _start_tag(source: str, opening: int) -> tuple[str, str, int]:
    """Return (name, href, position after the tag); position -1 when the tag is never closed."""
    match = _NAME.match(source, opening + 1)
    name = match.group().lower() if match else ""
    position = opening + 1 + len(name)
    href = ""
    while True:
        attribute = _ATTRIBUTE.match(source, position)
        if attribute:
            position = attribute.end()
            if attribute.group(1).lower() == "href" and not href:
                href = next((g for g in attribute.groups()[1:] if g), "")
            continue
        blank = _BLANKS.match(source, position)
        position = blank.end() if blank else position
        if position >= len(source):
            return name, href, -1
        if source[position] == ">":
            return name, href, position + 1
        position += 1  # a stray mark such as "="


def unescape(text: str) -> str:
    """Resolve character references; a number of thousands of digits stays as it is written."""
    if "&" not in text:
        return text
    try:
        return html.unescape(text)
    except ValueError:
        return text


class _Page:
    """Collects lines, title and links while tokens go by."""

    def __init__(self, *, keep_furniture: bool) -> None:
        self._dropped = _UNSEEN if keep_furniture else _UNSEEN | _FURNITURE
        self._skipping: list[str] = []
        self._depth_main = self._depth_pre = 0
        self._lines: list[str] = []
        self._parts: list[str] = []
        self._prefix = ""
        self._link: tuple[str, int] | None = None
        self.title, self.first_heading = "", ""
        self.links: list[dict[str, str]] = []
        self.num_links_cut = 0
        self._in_title = False

    def feed(self, token: Token) -> None:
        """Take the next token."""
        kind, value, href = token
        if kind == "text":
            if self._in_title:
                self.title = self.title or _SPACE.sub(" ", unescape(value)).strip()
            elif not self._skipping:
                self._parts.append(unescape(value))
        elif value == "title":
            self._in_title = kind == "start" and not self.title
        elif value in self._dropped or (value == "header" and not self._depth_main and self._dropped >= _FURNITURE):
            self._skip(kind, value)
        elif not self._skipping or value == "body":
            self._skipping = [] if value == "body" else self._skipping
            self._tag(kind, value, href)

    def _skip(self, kind: str, name: str) -> None:
        if kind == "start":
            self._end_line()
            self._skipping.append(name)
        elif name in self._skipping[-64:]:
            while self._skipping.pop() != name:
                pass

    def _tag(self, kind: str, name: str, href: str) -> None:
        if name in _MAIN:
            self._depth_main = max(0, self._depth_main + (1 if kind == "start" else -1))
        if name == "a":
            self._anchor(kind, href)
        elif name in ("td", "th") and kind == "start":
            self._parts.append(" | " if self._parts else "")
        elif name in _BLOCKS and name not in ("td", "th"):
            self._block(kind, name)

    def _block(self, kind: str, name: str) -> None:
        self._end_line()
        if name in _SPACED and not self._depth_pre and self._lines and self._lines[-1]:
            self._lines.append("")
        if name == "pre" and self._depth_pre != (kind == "start"):
            self._lines.append("```")
            self._depth_pre = int(kind == "start")
            if kind == "end":
                self._lines.append("")
        elif name in _HEADINGS and kind == "start":
            self._prefix = "#" * _HEADINGS[name] + " "
        elif name == "li" and kind == "start":
            self._prefix = "- "

    def _anchor(self, kind: str, href: str) -> None:
        if self._link is not None:
            target, start = self._link
            text = _SPACE.sub(" ", "".join(self._parts[start:])).strip()
            if len(self.links) < MAX_LINKS:
                self.links.append({"href": target, "text": clip(text)})
            else:
                self.num_links_cut += 1
            self._link = None
        if kind == "start" and href:
            self._link = (clip_href(unescape(href)), len(self._parts))

    def _end_line(self) -> None:
        if self._link is not None:  # its text ends with the line
            self._anchor("end", "")
        text = "".join(self._parts)
        self._parts = []
        if self._depth_pre:
            if text.strip():
                self._lines += text.strip("\n").split("\n")
            return
        text = _SPACE.sub(" ", text).strip()
        if not text:
            return
        if self._prefix.startswith("#") and not self.first_heading and self._prefix == "# ":
            self.first_heading = text
        self._lines.append(self._prefix + text)
        self._prefix = ""

    def text(self) -> str:
        """Return the lines so far."""
        self._end_line()
        if self._depth_pre:
            self._lines.append("```")
            self._depth_pre = 0
        return re.sub(r"\n{3,}", "\n\n", "\n".join(self._lines)).strip()


def clip_href(href: str) -> str:
    """Bound a link's target: longer ones (data: urls) are cut."""
    return clip(href.strip())


def read_html(source: str, label: str) -> Record:
    """Make one document of a page; O(characters).

    Navigation, footers, side columns, forms and the page header are left out unless nothing else is there.
    Title: ``<title>``, else the first h1, else the file's name. An h1 that opens the text and is the title
    leaves it. Links stand in the metadata.
    """
    page, text = _scan(source, keep_furniture=False)
    if not text:
        page, text = _scan(source, keep_furniture=True)
    title = clip(page.title or page.first_heading or stem(label))
    first, _, rest = text.partition("\n")
    if page.first_heading and first == f"# {page.first_heading}" and page.first_heading == title and rest.strip():
        text = rest.strip()
    metadata: dict[str, object] = {"links": page.links} if page.links else {}
    if page.num_links_cut:
        metadata["num_links_cut"] = page.num_links_cut
    return Record(label, title, text, encode_metadata(metadata), 1, 0)


def _scan(source: str, *, keep_furniture: bool) -> tuple[_Page, str]:
    page = _Page(keep_furniture=keep_furniture)
    for token in tokens(source):
        page.feed(token)
    return page, page.text()
