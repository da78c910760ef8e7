"""Text readers: plain text and Markdown, one document a file.

Source: tamis design; heading and fence rules of CommonMark 0.31.
"""

import posixpath
import re

from tamis.ingestion.records import Record, clip, encode_metadata

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ATX_H1 = re.compile(r" {0,3}#[ \t]+(\S.*)")
_SETEXT_H1 = re.compile(r" {0,3}={3,}[ \t]*$")
_FRONT_TITLE = re.compile(r"(?m)^title:[ \t]*(\S.*)$")
_MAX_FRONT_CHARS = 1 << 16


def stem(label: str) -> str:
    """Return a label's file name without its suffixes."""
    name = posixpath.basename(label)
    for suffix in (".gz", ".zst"):
        name = name.removesuffix(suffix)
    return posixpath.splitext(name)[0]


def read_plain(text: str, label: str) -> Record:
    """Make one document of a text file: id = label, title = file name without suffix."""
    return Record(label, stem(label), text, "{}", 1, 0)


def read_markdown(text: str, label: str) -> Record:
    """Make one document of a Markdown file; the text keeps its source.

    Title: ``title:`` of the front matter, else the first heading of level 1, else the file's name. Front
    matter goes to the metadata. A heading of level 1 that opens the text and is the title leaves the
    text, unless nothing else is there: it would stand in the document twice.
    """
    text = text.replace("\r\n", "\n")
    front, body = _split_front(text)
    titled = _FRONT_TITLE.search(front)
    heading, start, stop = first_heading(body)
    title = clip(titled.group(1).strip().strip("\"'")) if titled else heading or stem(label)
    if heading and heading == title and not body[:start].strip() and body[stop:].strip():
        body = body[stop:]
    metadata = encode_metadata({"front_matter": front}) if front else "{}"
    return Record(label, title, body, metadata, 1, 0)


def _split_front(text: str) -> tuple[str, str]:
    if not text.startswith("---\n"):
        return "", text
    end = text.find("\n---\n", 3, _MAX_FRONT_CHARS)
    return (text[4:end], text[end + 5 :]) if end >= 0 else ("", text)


def first_heading(text: str) -> tuple[str, int, int]:
    """Return (heading, start, stop) of the first heading of level 1 outside fences; ("", 0, 0) without one."""
    fence = ""
    start, previous = 0, ("", 0)
    for line in text.splitlines(keepends=True):
        stop = start + len(line)
        mark = _FENCE.match(line)
        if fence:
            if mark and mark.group(1).startswith(fence):
                fence = ""
        elif mark:
            fence = mark.group(1)
        elif atx := _ATX_H1.match(line):
            return clip(atx.group(1).rstrip().rstrip("#").rstrip()), start, stop
        elif _SETEXT_H1.match(line) and previous[0]:
            return clip(previous[0]), previous[1], stop
        previous = (line.strip(), start)
        start = stop
    return "", 0, 0
