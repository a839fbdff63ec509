#!/usr/bin/env python3
"""An mdBook preprocessor: makes what rustdoc reads readable for mdBook.

Some chapters include documents of the repository, so that nothing is written twice:

- src/docs/*.md ("rustdoc"). Their links name Rust paths. A link to another of these modules becomes a link to its chapter,
  and a link to an item of a crate becomes a link to the crate's documentation. Their headings move down by one level,
  because the chapter has a title of its own.
- docs/*.md ("document"). A link to another document becomes a link to its chapter, if it has one.
"""

import json
import re
import sys

# The chapter of each module of libpsx::docs, and of each document that a chapter includes or replaces.
CHAPTERS = {
    "promises": "promises.md",
    "limitations": "limitations.md",
    "internals": "how.md",
    "patterns": "patterns.md",
    "audit.md": "audit.md",
    "audit-json.md": "audit-json.md",
    "daemons.md": "daemon.md",
    "kernel-calls.md": "kernel-calls.md",
    "performance.md": "performance-details.md",
    "upstream.md": "upstream.md",
}
MARKER = re.compile(r"<!-- (rustdoc|document) -->\n(.*?)<!-- /\1 -->\n?", re.S)
LINK = re.compile(r"\]\((super|crate)((?:::\w+)*)(#[\w-]+)?\)")
# A link to a file of the repository.
FILE = re.compile(r"\[([^\]]*)\]\((?![a-z]+:|#)([^)#]*)(#[\w-]*)?\)")
HEADING = re.compile(r"^(#+ )", re.M)
# Inside of a block of code, "# " begins a hidden line, and a bracket is no link.
FENCE = re.compile(r"^(```.*?^```$)", re.M | re.S)


def target(match):
    root, path, anchor = match.group(1), match.group(2).split("::")[1:], match.group(3) or ""
    if root == "super" and len(path) == 1:
        return f"]({CHAPTERS[path[0]]}{anchor})"
    if path[:1] == ["docs"] and len(path) == 2:
        return f"]({CHAPTERS[path[1]]}{anchor})"
    return f"](https://docs.rs/libpsx/latest/libpsx/?search={'::'.join(path)})"


def file(match):
    """A file that is a chapter is linked; of any other only the words stay."""
    words, path, anchor = match.group(1), match.group(2), match.group(3) or ""
    if path in CHAPTERS.values():
        return match.group(0)
    chapter = CHAPTERS.get(path.rpartition("/")[2])
    return f"[{words}]({chapter}{anchor})" if chapter else words


def in_book(match):
    parts = FENCE.split(match.group(2))
    for index in range(0, len(parts), 2):
        if match.group(1) == "rustdoc":
            parts[index] = HEADING.sub(r"#\1", parts[index])
        parts[index] = FILE.sub(file, LINK.sub(target, parts[index]))
    return "".join(parts)


def walk(items):
    for item in items:
        chapter = item.get("Chapter") if isinstance(item, dict) else None
        if chapter:
            chapter["content"] = MARKER.sub(in_book, chapter["content"])
            walk(chapter["sub_items"])


def main():
    if sys.argv[1:2] == ["supports"]:
        return
    _context, book = json.load(sys.stdin)
    walk(book.get("items", book.get("sections", [])))
    json.dump(book, sys.stdout)


main()
