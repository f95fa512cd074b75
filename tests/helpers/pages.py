"""Reading a page as a browser would, texts that try to get into it, and the command that writes it."""

import re
from html.parser import HTMLParser

from shtopk.commands.show import main

CONTROLS = "".join(map(chr, (*range(9), *range(11, 13), *range(14, 32), 127, 0x85, 0x202E, 0x2028)))
HOSTILE = f"""<script>alert('x')</script> & "&amp;" </p></style></title> <img src=x onerror="x"> --> {CONTROLS}."""
TAGS = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "div", "span", "mark", "a", "b",
        "small", "table", "tr", "th", "td", "input", "label"}  # fmt: skip
ATTRIBUTES = {"lang", "charset", "name", "content", "http-equiv", "class", "style", "id", "title", "href", "type",
              "checked", "for", "dir"}  # fmt: skip


class Text(HTMLParser):
    """The document of a page, as a reader sees it, and the marked parts."""

    def __init__(self, html):
        super().__init__()
        self.inside, self.document, self.marked, self.tag = False, "", [], None
        self.tags, self.attributes, self.said = set(), set(), ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= dict(attributes).keys()
        self.inside |= ("class", "document") in attributes
        self.tag = tag

    def handle_endtag(self, tag):
        self.inside &= tag != "p"
        self.tag = None

    def handle_data(self, data):
        self.said += data
        if self.inside:
            self.document += data
            if self.tag == "mark":
                self.marked.append(data)


def harmless(html):
    """The page, if it has the tags and attributes of our own alone and asks nothing of the network."""
    shown = Text(html)
    assert not shown.tags - TAGS and not shown.attributes - ATTRIBUTES
    assert html.count("</style>") == html.count("</title>") == 1
    assert "default-src 'none'" in html and not re.search(r"https?:|@import|url\(", html)
    return shown


def refusal(folder, document, capsys):
    """The one line by which the command refuses to show a document."""
    capsys.readouterr()
    assert main([str(folder), str(document)]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    return error
