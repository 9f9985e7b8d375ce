"""A visit to the page of `protoseg serve`, and the images that are shown to it."""

import io
from pathlib import Path
from urllib.request import Request, urlopen

from PIL import Image
from playwright.sync_api import expect

# By train id.
COLORS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200)}
SIZE = (192, 128)


def stripes(size=SIZE):
    """Red, green and blue side by side: a half, a third and a sixth of the image."""
    image = Image.new("RGB", size, COLORS["red"])
    width, height = size
    image.paste(COLORS["green"], (width // 2, 0, width, height))
    image.paste(COLORS["blue"], (width * 5 // 6, 0, width, height))
    return image


def write(folder, name, image, **options):
    path = Path(folder) / name
    image.save(path, **options)
    return path


def segmented(address, path, view):
    url = f"{address}/v1/models/colors/segment?as={view}"
    with urlopen(Request(url, data=path.read_bytes(), method="POST")) as answer:
        return answer.read()


class Visit:
    """A page in a window of its own, which notes what leaves the server and what goes wrong."""

    def __init__(self, browser, address, **options):
        self.address = address
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **options})
        self.page = self.context.new_page()
        self.requests, self.errors = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self.note)
        self.page.goto(address)

    def note(self, message):
        # The browser itself says this of every answer that is an error, and of canvases that are read, as is done here.
        known = ["the server responded with a status of 4", "Multiple readback operations"]
        if message.type in ["error", "warning"] and not any(words in message.text for words in known):
            self.errors.append(message.text)

    def choose(self, path):
        self.page.set_input_files("#file", path)

    def expect_result(self):
        expect(self.page.locator("#side")).to_be_visible(timeout=60_000)
        expect(self.page.locator("#busy")).to_be_hidden()

    def at(self, x, y, size=SIZE):
        """Where a pixel of the image lies on the stage."""
        box = self.page.locator("#stage").bounding_box()
        return {"x": (x + 0.5) / size[0] * box["width"], "y": (y + 0.5) / size[1] * box["height"]}

    def seen(self, x, y):
        """The color of a pixel of the image on the screen."""
        shot = Image.open(io.BytesIO(self.page.locator("#stage").screenshot())).convert("RGB")
        return shot.getpixel((int((x + 0.5) / SIZE[0] * shot.width), int((y + 0.5) / SIZE[1] * shot.height)))

    def drawn(self, canvas, x, y):
        script = "([id, x, y]) => [...document.getElementById(id).getContext('2d').getImageData(x, y, 1, 1).data]"
        return tuple(self.page.evaluate(script, [canvas, x, y]))

    def end(self):
        origin = self.address + "/"
        away = [url for url in self.requests if not url.startswith((origin, f"blob:{origin}"))]
        assert not away, f"requests leave the server: {away}"
        assert not self.errors, f"the console shows {self.errors}"
        self.context.close()
