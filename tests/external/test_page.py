"""The page of `protoseg serve` does in a browser what people do with it.

The truth is what the server answers to others, read by Pillow. `PROTOSEG_CHROMIUM` names a browser that is not called `chromium`.
"""

import os
from contextlib import contextmanager

import page_claims as claims
import pytest
from page_visit import SIZE, Visit, stripes, write
from PIL import Image
from playwright.sync_api import sync_playwright

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def browser(tool):
    path = tool(os.environ.get("PROTOSEG_CHROMIUM", "chromium"), "chromium")
    with sync_playwright() as playwright:
        # Its sandbox cannot be set up by root, as whom containers run.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(serve, colors):
    with serve(f"colors={colors}", f"other={colors}") as address:
        yield address


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def path(folder):
    return write(folder, "stripes.png", stripes())


@contextmanager
def visiting(browser, address, **options):
    visit = Visit(browser, address, **options)
    yield visit
    visit.end()


def test_a_visit_by_mouse(browser, address, folder, path):
    pale = write(folder, "pale.png", Image.new("RGB", SIZE, (255, 90, 90)))
    with visiting(browser, address) as visit:
        claims.opacity_is_what_the_slider_says(visit, pale)
        claims.an_image_gets_overlay_and_legend(visit, path)
        claims.the_class_under_the_pointer_is_named(visit)
        claims.the_legend_points_out_a_class(visit)
        claims.downloads_are_what_the_server_gives(visit, path)
        claims.another_model_labels_it_again(visit)
        claims.all_can_be_read(visit)
        claims.images_can_be_pasted_and_dropped(visit, path)
        claims.rotated_images_stand_upright(visit, folder)
        claims.broken_files_are_named_as_such(visit, folder)
        claims.a_busy_server_says_when_to_come_back(visit, path)
        claims.large_images_leave_the_page_responsive(visit, folder)


def test_the_keyboard_is_enough(browser, address, path):
    with visiting(browser, address) as visit:
        claims.the_keyboard_is_enough(visit, path)


def test_a_phone_is_wide_enough(browser, address, path):
    with visiting(browser, address, **PHONE) as visit:
        claims.a_phone_is_wide_enough(visit, path)


def test_the_dark_scheme_is_dark(browser, address, path):
    with visiting(browser, address, color_scheme="dark") as visit:
        claims.the_dark_scheme_is_dark(visit, path)


def test_an_image_is_drawn_on_demand(browser, address):
    with visiting(browser, address) as visit:
        claims.an_image_is_drawn_on_demand(visit)


def test_the_key_is_asked_for_and_kept_in_the_tab(serve, browser, colors, path):
    with serve(f"colors={colors}", f"other={colors}", key=claims.KEY) as address:
        with visiting(browser, address) as visit:
            claims.the_key_is_asked_for_and_kept_in_the_tab(visit, path)
