"""What a page of a report holds."""

import base64
import html.parser


class Text(html.parser.HTMLParser):
    """The text and the pictures of a page, and the addresses of everything that it would load."""

    def __init__(self, page):
        super().__init__()
        self.parts, self.pictures, self.loads, self.tags = [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        if tag == "img":
            kind, _, data = attributes["src"].partition(";base64,")
            assert kind.startswith("data:image/") and attributes["alt"]
            self.pictures.append((kind, base64.b64decode(data, validate=True)))
        elif "src" in attributes or "href" in attributes:
            self.loads.append(attributes)

    def handle_data(self, data):
        if self.tags and self.tags[-1] != "style":
            self.parts.append(data.strip())

    @property
    def text(self):
        return "\n".join(part for part in self.parts if part)
