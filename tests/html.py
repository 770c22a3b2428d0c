"""What tests of the report use: a look at its tags, text and figures, and a text that tries to become a tag."""

import re
import xml.etree.ElementTree as ET
from collections import Counter
from html.parser import HTMLParser

NASTY = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> & مرحبا"
VOID = ("br", "hr", "img", "input", "link", "meta")


class Tags(HTMLParser):
    """Every start tag of a page with its attributes, and what is wrong with the page's structure."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.all: list[tuple[str, dict[str, str | None]]] = []
        self.mistakes: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.mistakes += [f"<{tag}> is never closed" for tag in self._open]
        ids = Counter(attributes["id"] for _, attributes in self.all if "id" in attributes)
        self.mistakes += [f"{count} elements have the id {name}" for name, count in ids.items() if count > 1]
        links = [attributes.get("href") or "" for _, attributes in self.all]
        self.mistakes += [f"{link} leads nowhere" for link in links if link.startswith("#") and link[1:] not in ids]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if self._open[-1:] == [tag]:
            self._open.pop()
        else:
            self.mistakes.append(f"line {self.getpos()[0]}: </{tag}> closes <{self._open[-1] if self._open else ''}>")


def drawn(svg: str, css_class: str) -> list[ET.Element]:
    """The elements of a class in a figure."""
    return [element for element in ET.fromstring(svg).iter() if css_class in element.get("class", "").split()]


def text_of(html: str) -> str:
    """What a reader sees, tags taken out."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))
