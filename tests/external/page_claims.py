"""Claims on the page of `protoseg serve`, each a function that fails where it does not hold."""

import io
import json
from pathlib import Path

from PIL import Image
from playwright.sync_api import expect

from page_visit import COLORS, SIZE, segmented, stripes, write

KEY = "the key of the proof"


def close(one, other, tolerance=3):
    return all(abs(a - b) <= tolerance for a, b in zip(one, other))


def luminance(color):
    parts = [float(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def legend(page):
    return page.eval_on_selector_all(
        "#legend button", "all => all.map(b => [b.querySelector('.name').textContent, b.querySelector('.share').textContent])"
    )


def an_image_gets_overlay_and_legend(visit, path):
    page = visit.page
    visit.choose(path)
    visit.expect_result()
    labels = Image.open(io.BytesIO(segmented(visit.address, path, "labels")))
    names = list(COLORS)
    counts = sorted(((count, names[label]) for count, label in labels.getcolors()), reverse=True)
    expected = [[name, f"{100 * count / labels.width / labels.height:.1f} %"] for count, name in counts]
    assert legend(page) == expected, f"the legend says {legend(page)}, and the server {expected}"
    assert "red" in page.inner_text("#status")
    for y in range(0, SIZE[1], 9):
        for x in range(0, SIZE[0], 7):
            name = names[labels.getpixel((x, y))]
            assert visit.drawn("overlay", x, y) == (*COLORS[name], 255), f"the overlay at {x}, {y} is not {name}"
    assert visit.drawn("image", 150, 40) == (*COLORS["green"], 255)
    facts = page.inner_text("#facts")
    assert "192 × 128" in facts and facts.count("ms") >= 4, facts


def opacity_is_what_the_slider_says(visit, path):
    # An image of other shades than its classes.
    visit.choose(path)
    visit.expect_result()
    slider = visit.page.locator("#opacity")
    for value, expected in [("0", (255, 90, 90)), ("100", (200, 0, 0)), ("50", (228, 45, 45))]:
        slider.fill(value)
        expect(visit.page.locator("#opacity-value")).to_have_text(f"{value} %")
        assert close(visit.seen(40, 60), expected), f"at {value} % it is {visit.seen(40, 60)}, not {expected}"
    slider.fill("60")


def the_class_under_the_pointer_is_named(visit):
    page = visit.page
    for x, name in [(20, "red"), (120, "green"), (185, "blue")]:
        page.hover("#stage", position=visit.at(x, 30))
        expect(page.locator("#under")).to_contain_text(f"{name}, ")
    page.mouse.move(2, 2)
    expect(page.locator("#under")).to_contain_text("Point at")


def the_legend_points_out_a_class(visit):
    page = visit.page
    green = page.get_by_role("button", name="green")
    green.hover()
    assert visit.drawn("overlay", 120, 40) == (*COLORS["green"], 255)
    assert visit.drawn("overlay", 20, 40)[:3] == (0, 0, 0)
    page.mouse.move(2, 2)
    assert visit.drawn("overlay", 20, 40) == (*COLORS["red"], 255)
    green.click()
    page.mouse.move(2, 2)
    expect(green).to_have_attribute("aria-pressed", "true")
    page.locator("#opacity").focus()
    assert visit.drawn("overlay", 20, 40)[:3] == (0, 0, 0)
    green.click()
    page.locator("#opacity").focus()
    page.mouse.move(2, 2)
    assert visit.drawn("overlay", 20, 40) == (*COLORS["red"], 255)


def downloads_are_what_the_server_gives(visit, path):
    for name, view in [("Labels", "labels"), ("Overlay", "overlay"), ("Classes", "json"), ("Masks", "coco")]:
        with visit.page.expect_download() as waiting:
            visit.page.get_by_role("button", name=name).click()
        download = waiting.value
        assert download.suggested_filename.startswith(f"{path.stem}."), download.suggested_filename
        given, expected = Path(download.path()).read_bytes(), segmented(visit.address, path, view)
        assert given == expected, f"the download of {view} differs"
        expect(visit.page.get_by_role("button", name=name)).to_be_enabled()


def another_model_labels_it_again(visit):
    with visit.page.expect_request(lambda request: "/v1/models/other/segment" in request.url):
        visit.page.select_option("#model", "other")
    visit.expect_result()
    visit.page.select_option("#model", "colors")
    visit.expect_result()


def images_can_be_pasted_and_dropped(visit, path):
    for kind, field in [("paste", "clipboardData"), ("drop", "dataTransfer")]:
        script = """([kind, field, bytes]) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "given.png", { type: "image/png" }));
          const event = new Event(kind, { bubbles: true, cancelable: true });
          Object.defineProperty(event, field, { value: data });
          document.body.dispatchEvent(event);
        }"""
        with visit.page.expect_response(lambda response: "/segment" in response.url and response.ok):
            visit.page.evaluate(script, [kind, field, list(path.read_bytes())])
        visit.expect_result()


def broken_files_are_named_as_such(visit, folder):
    broken = Path(folder) / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 not an image")
    visit.choose(broken)
    expect(visit.page.locator("#problem-text")).to_contain_text("Cannot decode the image")
    expect(visit.page.locator("#again")).to_be_hidden()
    expect(visit.page.locator("#drop")).to_be_visible()


def a_busy_server_says_when_to_come_back(visit, path):
    page = visit.page
    busy = {"status": 429, "headers": {"retry-after": "2"}, "json": {"error": "server overloaded"}}
    page.route("**/segment?*", lambda route: route.fulfill(**busy), times=1)
    visit.choose(path)
    expect(page.locator("#problem-text")).to_contain_text("try again in 2 s")
    again = page.get_by_role("button", name="Try again")
    expect(again).to_be_disabled()
    again.click()
    visit.expect_result()
    expect(page.locator("#problem")).to_be_hidden()


def rotated_images_stand_upright(visit, folder):
    exif = Image.Exif()
    # Orientation 6: to be rotated by 90 degrees, clockwise.
    exif[0x0112] = 6
    path = write(folder, "turned.jpg", stripes(), exif=exif, quality=95)
    visit.choose(path)
    visit.expect_result()
    assert "128 × 192" in visit.page.inner_text("#facts"), visit.page.inner_text("#facts")
    assert close(visit.drawn("image", 60, 20)[:3], COLORS["red"], 12)
    assert visit.drawn("overlay", 60, 20)[:3] == COLORS["red"]
    assert visit.drawn("overlay", 60, 185)[:3] == COLORS["blue"]


def large_images_leave_the_page_responsive(visit, folder):
    size = (5184, 3888)
    path = write(folder, "large.jpg", stripes(size))
    visit.page.evaluate("""() => {
      let last = performance.now();
      window.longest = 0;
      setInterval(() => {
        window.longest = Math.max(window.longest, performance.now() - last);
        last = performance.now();
      }, 5);
    }""")
    visit.choose(path)
    expect(visit.page.locator("#facts")).to_contain_text("5184 × 3888", timeout=60_000)
    visit.page.hover("#stage", position=visit.at(5000, 3000, size))
    expect(visit.page.locator("#under")).to_contain_text("blue, 16.")
    print(f"  an image of 20 megapixels kept the page busy for {visit.page.evaluate('window.longest'):.0f} ms at a time")


def the_keyboard_is_enough(visit, path):
    page = visit.page
    focused = lambda: page.evaluate("document.activeElement.id || document.activeElement.className || document.activeElement.tagName")
    outline = lambda: page.evaluate("getComputedStyle(document.activeElement).outlineStyle")

    def tab_to(name):
        for _ in range(20):
            page.keyboard.press("Tab")
            assert outline() == "solid", f"the focus is not seen on {focused()}"
            if focused() == name:
                return
        raise AssertionError(f"Tab does not lead to {name}")

    tab_to("choose")
    with page.expect_file_chooser() as waiting:
        page.keyboard.press("Enter")
    waiting.value.set_files(path)
    visit.expect_result()
    tab_to("stage")
    expect(page.locator("#cursor")).to_be_visible()
    expect(page.locator("#place")).to_have_text("x 96, y 64")
    for _ in range(6):
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowDown")
    expect(page.locator("#place")).to_have_text("x 66, y 65")
    expect(page.locator("#under")).to_contain_text("red, ")
    for _ in range(40):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#place")).to_have_text("x 191, y 65")
    expect(page.locator("#under")).to_contain_text("blue, ")
    tab_to("opacity")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#opacity-value")).to_have_text("61 %")
    tab_to("another")
    page.keyboard.press("Tab")
    assert visit.drawn("overlay", 120, 40)[:3] == (0, 0, 0), "an entry of the legend with the focus shows its class alone"
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="red")).to_have_attribute("aria-pressed", "true")


def all_can_be_read(visit):
    """Text against its ground, by the contrast of WCAG."""
    script = """() => {
      const ground = (element) => {
        for (let at = element; at; at = at.parentElement) {
          const color = getComputedStyle(at).backgroundColor;
          if (color !== "rgba(0, 0, 0, 0)") return color;
        }
        return "rgb(255, 255, 255)";
      };
      const own = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
      return [...document.querySelectorAll("body *")]
        .filter((element) => own(element) && element.checkVisibility({ visibilityProperty: true }) && !element.closest("#stage"))
        .map((element) => [element.textContent.trim(), getComputedStyle(element).color, ground(element)]);
    }"""
    found = visit.page.evaluate(script)
    assert len(found) > 10
    for text, color, ground in found:
        high, low = sorted([luminance(color), luminance(ground)], reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, f"{text!r} is hard to read: {color} on {ground}"


def a_phone_is_wide_enough(visit, path):
    page = visit.page
    fits = lambda: page.evaluate("document.documentElement.scrollWidth") <= 360
    assert fits(), "the empty page scrolls horizontally"
    visit.choose(path)
    visit.expect_result()
    assert fits(), "the page with an image scrolls horizontally"
    page.tap("#stage", position=visit.at(120, 60))
    expect(page.locator("#under")).to_contain_text("green, ")


def the_dark_scheme_is_dark(visit, path):
    ground = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert luminance(ground) < 0.05, ground
    visit.choose(path)
    visit.expect_result()
    all_can_be_read(visit)


def an_image_is_drawn_on_demand(visit):
    visit.page.get_by_role("button", name="Draw a synthetic one").click()
    visit.expect_result()
    assert "1024 × 640" in visit.page.inner_text("#facts")


def the_key_is_asked_for_and_kept_in_the_tab(visit, path):
    page = visit.page
    enter = lambda key: (page.fill("#key", key), page.keyboard.press("Enter"))
    expect(page.get_by_label("This server needs a key")).to_be_focused()
    expect(page.locator("#problem")).to_be_hidden()
    enter("another")
    expect(page.locator("#problem-text")).to_have_text("The server rejects this key.")
    enter("schlüssel")
    expect(page.locator("#problem-text")).to_contain_text("characters other than ASCII")
    enter(KEY)
    expect(page.locator("#key-form")).to_be_hidden()
    expect(page.locator("#problem")).to_be_hidden()
    expect(page.locator("#limits")).to_contain_text("megapixels")
    visit.choose(path)
    visit.expect_result()
    page.reload()
    expect(page.locator("#limits")).to_contain_text("megapixels")
    expect(page.locator("#key-form")).to_be_hidden()
    assert page.evaluate("[localStorage.length, document.cookie.length]") == [0, 0]
    assert KEY not in json.dumps(visit.requests)
