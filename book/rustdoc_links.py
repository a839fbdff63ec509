#!/usr/bin/env python3
"""An mdBook preprocessor: makes what rustdoc reads readable for mdBook.

Some chapters include documents of the repository, so that nothing is written twice:

- src/docs/*.md ("rustdoc"). Their links name Rust paths. A link to another of these modules becomes a link to its chapter,
  and a link to an item of a crate becomes a link to the crate's documentation. Their headings move down by one level,
  because the chapter has a title of its own.
- docs/*.md ("document"). A link to another document becomes a link to its chapter, if it has one.

A chapter that is only "<!-- if-there PATH -->" is the document at that place, and is left out if there is none.
"""

import json
import os
import re
import sys
from pathlib import Path

# The chapter of each module of libpsx::docs, and of each document that a chapter includes or replaces.
CHAPTERS = {
    "promises": "promises.md",
    "limitations": "limitations.md",
    "internals": "how.md",
    "patterns": "patterns.md",
    "audit.md": "audit.md",
    "audit-policy.md": "audit-policy.md",
    "platforms.md": "platforms.md",
    "VERIFICATION.md": "verification.md",
    "audit-json.md": "audit-json.md",
    "daemons.md": "daemon.md",
    "kernel-calls.md": "kernel-calls.md",
    "performance.md": "performance-details.md",
    "upstream.md": "upstream.md",
}
IF_THERE = re.compile(r"<!-- if-there (\S+) -->\s*")
MARKER = re.compile(r"<!-- (rustdoc|document) -->\n(.*?)<!-- /\1 -->\n?", re.S)
LINK = re.compile(r"\]\((super|crate)((?:::\w+)*)(#[\w-]+)?\)")
# A link to a file of the repository.
FILE = re.compile(r"\[([^\]]*)\]\((?![a-z]+:|#)([^)#]*)(#[\w-]*)?\)")
HEADING = re.compile(r"^(#+ )", re.M)
# Inside of a block of code, "# " begins a hidden line, and a bracket is not a link.
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
    # A picture that is in the book.
    _, inside, picture = path.partition("book/src/images/")
    if inside:
        return f"[{words}](images/{picture})"
    chapter = CHAPTERS.get(path.rpartition("/")[2])
    return f"[{words}]({chapter}{anchor})" if chapter else words


def converted(text, is_module):
    parts = FENCE.split(text)
    for index in range(0, len(parts), 2):
        if is_module:
            parts[index] = HEADING.sub(r"#\1", parts[index])
        parts[index] = FILE.sub(file, LINK.sub(target, parts[index]))
    return "".join(parts)


def walk(items):
    for item in list(items):
        chapter = item.get("Chapter") if isinstance(item, dict) else None
        if not chapter:
            continue
        document = IF_THERE.fullmatch(chapter["content"])
        if document and not Path(document.group(1)).exists():
            items.remove(item)
        elif document:
            chapter["content"] = converted(Path(document.group(1)).read_text(), False)
        else:
            text = MARKER.sub(lambda match: converted(match.group(2), match.group(1) == "rustdoc"), chapter["content"])
            chapter["content"] = text
        walk(chapter["sub_items"])


def main():
    if sys.argv[1:2] == ["supports"]:
        return
    context, book = json.load(sys.stdin)
    os.chdir(context["root"])
    for path in Path("src").glob("*.md"):
        document = IF_THERE.fullmatch(path.read_text())
        if document and not Path(document.group(1)).exists():
            CHAPTERS.pop(Path(document.group(1)).name, None)
    walk(book.get("items", book.get("sections", [])))
    json.dump(book, sys.stdout)


main()
