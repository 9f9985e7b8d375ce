"""Uses the page of `protoseg serve` in a browser, as people do.

    page.py PROTOSEG BUNDLE CHROMIUM

BUNDLE tells red, green and blue apart. Truth is what the server answers to others, read by Pillow.
"""

import shutil
import sys
import tempfile
from contextlib import contextmanager

from PIL import Image
from playwright.sync_api import sync_playwright

import page_claims as claims
from page_visit import SIZE, Visit, stripes, write
from serving import serving


def main(program, bundle, chromium):
    models = [f"colors={bundle}", f"other={bundle}"]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = write(folder, "stripes.png", stripes())
        pale = write(folder, "pale.png", Image.new("RGB", SIZE, (255, 90, 90)))
        # Its sandbox cannot be set up by root, as whom containers run.
        browser = playwright.chromium.launch(executable_path=shutil.which(chromium), args=["--no-sandbox"])

        @contextmanager
        def visiting(address, **options):
            visit = Visit(browser, address, **options)
            yield visit
            visit.end()

        def prove(claim, visit, *arguments):
            claim(visit, *arguments)
            print(claim.__name__.replace("_", " "))

        with serving(program, *models) as address:
            with visiting(address) as visit:
                prove(claims.opacity_is_what_the_slider_says, visit, pale)
                prove(claims.a_picture_gets_overlay_and_legend, visit, path)
                prove(claims.what_is_under_the_pointer_is_named, visit)
                prove(claims.the_legend_points_out_a_class, visit)
                prove(claims.downloads_are_what_the_server_gives, visit, path)
                prove(claims.another_model_labels_it_anew, visit)
                prove(claims.all_can_be_read, visit)
                prove(claims.pictures_can_be_pasted_and_dropped, visit, path)
                prove(claims.turned_pictures_stand_upright, visit, folder)
                prove(claims.broken_files_are_named_as_such, visit, folder)
                prove(claims.a_busy_server_says_when_to_come_back, visit, path)
                prove(claims.large_pictures_leave_the_page_alive, visit, folder)
            with visiting(address) as visit:
                prove(claims.the_keyboard_is_enough, visit, path)
            with visiting(address, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True) as visit:
                prove(claims.a_phone_is_wide_enough, visit, path)
            with visiting(address, color_scheme="dark") as visit:
                prove(claims.the_dark_is_dark, visit, path)
            with visiting(address) as visit:
                prove(claims.a_picture_is_drawn_on_demand, visit)
        with serving(program, *models, key=claims.KEY) as address, visiting(address) as visit:
            prove(claims.the_key_is_asked_for_and_kept_in_the_tab, visit, path)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
