"""Reads the HTML page on standard input with Python's parser and says as JSON what is wrong with it, and what is on it."""

import json
import re
import sys
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "hr", "input"}
# In SVG they may be empty and are closed all the same.
OUTSIDE = re.compile(r"(?i)\b(?:https?:|ftp:|file:|javascript:|//[a-z0-9])")


class Page(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.wrong, self.ids, self.anchors = [], [], [], []
        self.counts, self.style, self.script, self.text = {}, "", "", []

    def fail(self, what):
        self.wrong.append(f"line {self.getpos()[0]} in {'/'.join(self.open[-4:])}: {what}")

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        a = dict(attributes)
        self.counts[tag] = self.counts.get(tag, 0) + 1
        if len(set(names)) != len(names):
            self.fail(f"{tag} has an attribute twice")
        for name, value in attributes:
            value = value or ""
            if name.startswith("on"):
                self.fail(f"{tag} has {name}")
            if name in ("href", "src", "action", "srcset", "data", "xlink:href", "poster"):
                if value.startswith("#"):
                    self.anchors.append(value[1:])
                elif value != "data:,":
                    self.fail(f"{tag} refers to {value}")
            elif OUTSIDE.search(value):
                self.fail(f"{tag} {name} names something outside: {value}")
        if "id" in a:
            self.ids.append(a["id"])
        if tag == "html" and not a.get("lang"):
            self.fail("no language")
        if tag == "svg":
            hidden, said = a.get("aria-hidden") == "true", a.get("aria-label")
            if hidden == bool(said) or (said and a.get("role") != "img"):
                self.fail("a picture that is neither hidden nor described")
        if tag == "img" and not a.get("alt"):
            self.fail("img without alt")
        if tag == "th" and a.get("scope") not in ("col", "row"):
            self.fail("th without scope")
        if a.get("role") == "region" and not a.get("aria-label"):
            self.fail("a region without a name")
        if "aria-labelledby" in a:
            self.anchors.append(a["aria-labelledby"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.fail(f"{tag} closes itself")

    def handle_endtag(self, tag):
        if not self.open or self.open[-1] != tag:
            self.fail(f"</{tag}> closes nothing")
        else:
            self.open.pop()

    def handle_data(self, data):
        inside = self.open[-1] if self.open else ""
        if inside == "style":
            self.style += data
        elif inside == "script":
            self.script += data
        else:
            self.text.append(data)


def luminance(colour):
    parts = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    parts = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrasts(style):
    """The least contrast of each theme, of all that is drawn or written against all that it may stand on."""
    themes = []
    for block in re.findall(r":root\{([^}]*)\}", style):
        colours = dict(re.findall(r"--([a-z0-9]+):(#[0-9a-f]{6})", block))
        grounds = [colours.pop("bg"), colours.pop("panel")]
        colours.pop("rule")  # Lines that carry no meaning.
        ratios = []
        for name, colour in colours.items():
            for ground in grounds:
                high, low = sorted((luminance(colour), luminance(ground)), reverse=True)
                ratios.append((round((high + 0.05) / (low + 0.05), 2), name, ground))
        themes.append({"least": min(ratios), "pairs": len(ratios)})
    return themes


def main():
    page = Page()
    page.feed(sys.stdin.read())
    page.close()
    if page.open:
        page.wrong.append(f"never closed: {page.open}")
    page.wrong += [f"id twice: {i}" for i in set(page.ids) if page.ids.count(i) > 1]
    page.wrong += [f"leads nowhere: #{a}" for a in page.anchors if a not in page.ids]
    for word in ("url(", "@import", "http"):
        page.wrong += [f"style or script holds {word}" for text in (page.style, page.script) if word in text]
    used = set(re.findall(r"var\(--([a-z0-9]+)\)", page.style))
    defined = set(re.findall(r"--([a-z0-9]+):", page.style))
    page.wrong += [f"no colour is called {name}" for name in used - defined]
    json.dump({"wrong": page.wrong, "counts": page.counts, "anchors": len(page.anchors), "themes": contrasts(page.style),
               "text": "".join(page.text)}, sys.stdout)


main()
