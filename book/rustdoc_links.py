#!/usr/bin/env python3
"""An mdBook preprocessor: makes what rustdoc reads readable for mdBook.

The chapters on promises and limitations include src/docs/*.md, which are rustdoc modules. Their links name Rust paths:
a link to another of these modules becomes a link to its chapter, and a link to an item of a crate becomes a link to the
crate's documentation. Their headings move down by one level, because the chapter has a title of its own.
"""

import json
import re
import sys

CHAPTERS = {"promises": "promises.md", "limitations": "limitations.md", "internals": "how.md", "patterns": "faq.md"}
MARKER = re.compile(r"<!-- rustdoc -->\n(.*?)<!-- /rustdoc -->\n", re.S)
LINK = re.compile(r"\]\((super|crate)((?:::\w+)*)(#[\w-]+)?\)")
# [`Name`](crate::x) has a target; [`Name`] alone stands for itself.
HEADING = re.compile(r"^(#+ )", re.M)


def target(match):
    root, path, anchor = match.group(1), match.group(2).split("::")[1:], match.group(3) or ""
    if root == "super" and len(path) == 1:
        return f"]({CHAPTERS[path[0]]}{anchor})"
    if path[:1] == ["docs"] and len(path) == 2:
        return f"]({CHAPTERS[path[1]]}{anchor})"
    *modules, item = path
    if not item[0].isupper() and not modules and item in ("process", "docs"):
        return f"](https://docs.rs/libpsx/latest/libpsx/{item}/index.html{anchor})"
    page = "/".join(["libpsx", *modules, ""])
    return f"](https://docs.rs/libpsx/latest/{page}?search={item})"


def in_book(match):
    text = HEADING.sub(r"#\1", match.group(1))
    return LINK.sub(target, text)


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
