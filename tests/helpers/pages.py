"""Reading a page as a browser would, and texts that try to get into it."""

from html.parser import HTMLParser

CONTROLS = "".join(map(chr, (*range(9), *range(11, 13), *range(14, 32), 127, 0x85, 0x202E, 0x2028)))
HOSTILE = f"""<script>alert('x')</script> & "&amp;" </p></style></title> <img src=x onerror="x"> --> {CONTROLS}."""


class Text(HTMLParser):
    """The document of a page, as a reader sees it, and the marked parts."""

    def __init__(self, html):
        super().__init__()
        self.inside, self.document, self.marked, self.tag = False, "", [], None
        self.tags, self.attributes, self.said = set(), set(), ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}
        if ("class", "document") in attributes:
            self.inside = True
        self.tag = tag

    def handle_endtag(self, tag):
        if tag == "p":
            self.inside = False
        self.tag = None

    def handle_data(self, data):
        self.said += data
        if self.inside:
            self.document += data
            if self.tag == "mark":
                self.marked.append(data)


def harmless(html):
    """The page, if it has the tags and attributes of our own alone."""
    shown = Text(html)
    assert not shown.tags & {"script", "img", "iframe", "object", "embed", "form", "base", "svg", "math", "u"}
    assert shown.attributes <= {"lang", "charset", "name", "content", "http-equiv", "class", "style", "id", "title",
                                "href", "type", "checked", "for"}  # fmt: skip
    assert html.count("</style>") == html.count("</title>") == 1
    return shown
