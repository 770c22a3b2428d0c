"""What tests of the report use: a look at its tags and figures, and a text that tries to become one."""

import xml.etree.ElementTree as ET
from html.parser import HTMLParser

NASTY = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> & مرحبا"


class Tags(HTMLParser):
    """Every start tag of a page with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.all: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all.append((tag, dict(attrs)))


def drawn(svg: str, css_class: str) -> list[ET.Element]:
    """The elements of a class in a figure."""
    return [element for element in ET.fromstring(svg).iter() if css_class in element.get("class", "").split()]
