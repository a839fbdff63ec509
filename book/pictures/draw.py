#!/usr/bin/env python3
"""Draws the pictures of the book: pictures/*.svg.

A chapter includes a picture inline, so that text takes the colour of the theme (currentColor). The other colours are
readable on a light and on a dark background. The files have no empty line, because one would end the HTML block.
"""

from pathlib import Path

OLD, NEW, HELD, CALL = "#d97706", "#16a34a", "#7c8aa0", "#2563eb"
FONT = 'font-family="system-ui, sans-serif"'


class Picture:
    def __init__(self, width, height, title):
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img" '
            f'aria-label="{title}" {FONT} font-size="13">',
            f"<title>{title}</title>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto-start-reverse"><path d="M0 0 8 4 0 8z" fill="currentColor"/></marker></defs>',
        ]

    def text(self, x, y, words, anchor="start", size=13, color="currentColor", weight="normal"):
        self.parts.append(
            f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="{size}" fill="{color}" '
            f'font-weight="{weight}">{words}</text>'
        )

    def bar(self, x, y, width, color, words="", height=22):
        self.parts.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="3" fill="{color}"/>')
        if words:
            self.text(x + width / 2, y + height / 2 + 4, words, "middle", 12, "#fff")

    def line(self, x1, y1, x2, y2, arrow=False, dash=False):
        end = ' marker-end="url(#tip)"' if arrow else ""
        dashed = ' stroke-dasharray="4 3"' if dash else ""
        self.parts.append(
            f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="currentColor" stroke-width="1.2"{dashed}{end}/>'
        )

    def legend(self, x, y, entries):
        for color, words in entries:
            self.bar(x, y - 10, 14, color, height=12)
            self.text(x + 19, y, words, size=12)
            x += 34 + 7 * len(words)

    def save(self, name):
        self.parts.append("</svg>")
        path = Path(__file__).with_name(name)
        path.write_text("\n".join(self.parts) + "\n")


def stop():
    p = Picture(760, 290, "A stop in time: caller and three threads")
    p.legend(90, 20, [(OLD, "old state"), (HELD, "held"), (CALL, "performs the call"), (NEW, "new state")])
    lanes = {"caller": 60, "thread A": 110, "thread B": 155, "thread C": 200}
    for name, y in lanes.items():
        p.text(6, y + 16, name)
    y = lanes["caller"]
    p.bar(90, y, 60, OLD, "runs")
    p.bar(152, y, 168, HELD, "signals, waits, proves")
    p.bar(322, y, 60, CALL, "call")
    p.bar(384, y, 126, HELD, "waits, judges")
    p.bar(512, y, 228, NEW, "runs")
    for name, (arrives, calls, leaves) in {
        "thread A": (190, 400, 540),
        "thread B": (235, 420, 560),
        "thread C": (290, 410, 580),
    }.items():
        y = lanes[name]
        p.bar(90, y, arrives - 92, OLD, "runs")
        p.bar(arrives, y, calls - arrives - 2, HELD, "held")
        p.bar(calls, y, 60, CALL, "call")
        p.bar(calls + 62, y, leaves - calls - 64, HELD, "held")
        p.bar(leaves, y, 740 - leaves, NEW, "runs")
    for x, words in ((320, "all held: proof"), (510, "all have performed: judgement")):
        p.line(x, 44, x, 236, dash=True)
        p.text(x, 252, words, "middle", 12)
    p.line(322, 268, 508, 268, arrow=True)
    p.line(508, 268, 322, 268, arrow=True)
    p.text(415, 284, "no thread runs an instruction of the program", "middle", 12)
    p.save("stop.svg")


def mixed():
    p = Picture(760, 300, "Without a stop, a thread forks from the old state")
    p.legend(90, 20, [(OLD, "old state"), (CALL, "performs the call"), (NEW, "new state"), (HELD, "held")])
    p.text(6, 52, "Each thread performs the call as soon as the signal reaches it:", weight="bold")
    for name, y, call in (("caller", 62, 150), ("thread A", 90, 260), ("thread B", 118, 400)):
        p.text(6, y + 16, name)
        p.bar(90, y, call - 92, OLD)
        p.bar(call, y, 50, CALL, "call")
        p.bar(call + 52, y, 740 - call - 52, NEW)
    p.line(340, 140, 340, 154, arrow=True)
    p.bar(340, 156, 400, OLD, "a child that thread B forks keeps the old state for good", 18)
    p.text(6, 204, "libpsx: every thread is held before the first call:", weight="bold")
    for name, y, held in (("caller", 214, 150), ("thread A", 242, 200), ("thread B", 270, 290)):
        p.text(6, y + 16, name)
        p.bar(90, y, held - 92, OLD)
        at = 302 if name == "caller" else 354
        p.bar(held, y, at - held - 2, HELD)
        p.bar(at, y, 50, CALL, "call")
        p.bar(at + 52, y, (430 if name == "caller" else 450) - at - 54, HELD)
        leave = 430 if name == "caller" else 450
        p.bar(leave, y, 740 - leave, NEW)
    p.save("mixed.svg")


def release():
    p = Picture(760, 215, "Each thread that leaves wakes up to four more")
    p.text(6, 18, "The caller changes one word and returns. Each thread that leaves wakes up to four more.")
    p.bar(310, 34, 140, NEW, "last to report")
    xs = [70, 250, 430, 610]
    for i, x in enumerate(xs):
        p.line(380, 58, x + 40, 92, arrow=True)
        p.bar(x, 95, 80, HELD, f"thread {i + 1}")
        for k in range(4):
            cx = x - 46 + 44 * k
            p.line(x + 40, 119, cx + 19, 152, arrow=True)
            p.bar(cx, 155, 38, HELD, str(5 + 4 * i + k))
    p.text(380, 202, "The depth grows with the logarithm of the number of threads.", "middle", 12)
    p.save("release.svg")


def bars(name, title, unit, rows, limit):
    """rows: (label, [(engine, value, text)])"""
    height = 40 + sum(26 * len(group) + 24 for _, group in rows)
    p = Picture(760, height, title)
    p.text(6, 18, title, weight="bold")
    y = 34
    for label, group in rows:
        p.text(6, y + 13, label, weight="bold", size=12)
        y += 18
        for engine, value, words in group:
            width = max(3, min(value / limit, 1) * 430)
            p.text(150, y + 14, engine, "end", 12)
            p.bar(160, y, width, NEW if engine == "libpsx" else HELD, height=18)
            p.text(166 + width, y + 14, words + (" (cut off)" if value > limit else ""), size=12)
            y += 24
        y += 10
    p.save(name)


def performance():
    # docs/performance.md, revision 445c331: the median of ours, and its ratio to the median of each other.
    table = {
        8: (92.3, {"C libpsx": 1.48, "glibc": 1.09, "Go": 0.54}),
        64: (460, {"C libpsx": 0.94, "glibc": 1.47, "Go": 1.22}),
        512: (3630, {"C libpsx": 0.59, "glibc": 1.47, "Go": 1.58}),
        2000: (18500, {"C libpsx": 0.27, "glibc": 0.86, "Go": 1.33}),
    }

    def words(us):
        return f"{us / 1000:.1f} ms" if us >= 1000 else f"{us:.0f} us"

    rows = []
    for n, (ours, ratios) in table.items():
        group = [("libpsx", 1.0, words(ours))]
        group += [(engine, 1 / ratio, words(ours / ratio)) for engine, ratio in ratios.items()]
        rows.append((f"{n} sleeping threads", group))
    bars("calls.svg", "One setresuid, relative to libpsx", "", rows, 4)


stop()
mixed()
release()
performance()
