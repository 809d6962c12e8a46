"""The page in a real browser, Debian's chromium, headless, against a server on a free port."""

import shutil
import socket
import threading
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from archive_cases import Colours, square, squares
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright
from rasterio import open as open_raster
from rasterio.transform import from_origin

from cmer.archive.index import index
from cmer.archive.serve.app import create_app
from cmer.archive.store import Archive

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium")
SERIOUS = ("serious", "critical")
expect.set_options(timeout=20_000)


def place(path: Path, colour: tuple[int, int, int], west: float, north: float) -> None:
    """A square of a degree on Earth, of a colour."""
    square(path.with_suffix(".png"), colour)
    picture = Image.open(path.with_suffix(".png"))
    path.with_suffix(".png").unlink()
    shape = {"width": 16, "height": 16, "count": 3, "dtype": "uint8", "photometric": "RGB"}
    shape |= {"crs": "EPSG:4326", "transform": from_origin(west, north, 1 / 16, 1 / 16)}
    with open_raster(path, "w", "GTiff", **shape) as file:
        file.write(np.moveaxis(np.asarray(picture), -1, 0))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of 120 squares without a place and four with one."""
    folder = tmp_path_factory.mktemp("served")
    squares(folder / "images", 40)
    for n, (colour, west) in enumerate((((250, 0, 0), 5), ((0, 250, 0), 8), ((0, 0, 250), 11), ((250, 250, 250), 14))):
        place(folder / f"images/placed/{n}.tif", colour, west, 48 + n)
    index(folder / "images", folder / "a.lance", Colours(), "colours")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = create_app(Archive.open(folder / "a.lance"), Colours())
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def faults() -> Iterator[list[str]]:
    """Errors of the console, and requests to other hosts; a test that expects one removes it."""
    found: list[str] = []
    yield found
    assert not found


@pytest.fixture
def page(address: str, faults: list[str]) -> Iterator[Page]:
    """The page in a browser."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1280, "height": 900})
        opened.set_default_timeout(20_000)
        opened.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        opened.on("pageerror", lambda error: faults.append(str(error)))
        own = (address, "blob:", "data:")
        opened.on("request", lambda asked: faults.append(asked.url) if not asked.url.startswith(own) else None)
        opened.goto(address)
        yield opened
        browser.close()


def ask(page: Page, text: str) -> None:
    page.get_by_role("searchbox").fill(text)
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator("#status")).to_contain_text("the best first")


def labels(page: Page) -> list[str]:
    return [text.partition(" · ")[2] for text in page.locator("#grid li span:nth-of-type(1)").all_inner_texts()]


def test_a_text_finds_images_and_the_grid_loads_as_it_scrolls(page: Page) -> None:
    expect(page.locator("#about")).to_contain_text("124 images and tiles, embedded with colours")
    ask(page, "red")
    assert set(labels(page)[:5]) <= {"red", "placed"}
    for _ in range(20):
        page.mouse.wheel(0, 4000)
        page.wait_for_timeout(100)
        if page.locator("#grid li").count() == 124:
            break
    expect(page.locator("#status")).to_have_text("124 images, the best first")
    assert len(set(page.locator("#grid li span:nth-of-type(2)").all_inner_texts())) == 124
    page.locator("#grid img").first.scroll_into_view_if_needed()
    assert page.locator("#grid img").first.evaluate("image => image.decode().then(() => image.naturalWidth)") == 16


def test_details_lead_to_more_like_this(page: Page) -> None:
    ask(page, "green")
    page.locator("#grid button").nth(1).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("16 \u00d7 16 pixels")
    name = dialog.get_by_role("heading").inner_text()
    dialog.get_by_role("button", name="More like this").click()
    expect(dialog).to_be_hidden()
    expect(page.locator("#grid li span:nth-of-type(2)").first).to_have_text(name)
    page.get_by_role("button", name="Remove: like this image").click()
    expect(page.locator("#parts")).to_be_hidden()


def test_an_uploaded_image_is_searched_with_and_a_broken_one_is_a_sentence(
    page: Page, tmp_path: Path, faults: list[str]
) -> None:
    square(tmp_path / "mine.png", (0, 0, 250))
    page.locator("#image").set_input_files(tmp_path / "mine.png")
    expect(page.locator("#parts")).to_contain_text("mine.png")
    expect(page.locator("#status")).to_contain_text("the best first")
    assert labels(page)[1] in ("blue", "placed")
    (tmp_path / "broken.png").write_bytes(b"x")
    page.locator("#image").set_input_files(tmp_path / "broken.png")
    expect(page.locator("#status")).to_contain_text("the image cannot be read")
    assert "400" in faults.pop()


def test_an_image_can_be_dropped(page: Page) -> None:
    page.evaluate(
        """async () => {
            const canvas = Object.assign(document.createElement("canvas"), {width: 9, height: 9});
            const pen = canvas.getContext("2d"); pen.fillStyle = "lime"; pen.fillRect(0, 0, 9, 9);
            const blob = await new Promise(done => canvas.toBlob(done));
            const transfer = new DataTransfer();
            transfer.items.add(new File([blob], "dropped.png", {type: "image/png"}));
            const how = {dataTransfer: transfer, bubbles: true, cancelable: true};
            for (const name of ["dragover", "drop"]) document.body.dispatchEvent(new DragEvent(name, how));
        }"""
    )
    expect(page.locator("#parts")).to_contain_text("dropped.png")
    expect(page.locator("#status")).to_contain_text("the best first")
    assert set(labels(page)[:3]) <= {"green", "placed"}


def test_a_typed_text_is_searched_beside_an_image(page: Page, tmp_path: Path) -> None:
    square(tmp_path / "mine.png", (0, 0, 250))
    page.get_by_role("searchbox").fill("green")
    page.locator("#image").set_input_files(tmp_path / "mine.png")
    expect(page.locator("#status")).to_contain_text("the best first")
    both = page.locator("#grid li span:nth-of-type(1)").first.inner_text()
    page.get_by_role("searchbox").fill("")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator("#grid li span:nth-of-type(1)").first).not_to_have_text(both)
    expect(page.locator("#parts")).to_contain_text("mine.png")


def test_a_long_query_and_a_stopped_server_are_sentences(page: Page, faults: list[str]) -> None:
    ask(page, "red")
    page.get_by_role("searchbox").fill("red" * 167)
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator("#status")).to_have_text("The query has 501 characters; at most 500 are searched. Shorten it.")
    assert page.locator("#grid li").count() == 0 and page.locator("#map .hit").count() == 0
    page.route("**/api/search", lambda route: route.abort())
    page.get_by_role("searchbox").fill("red")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator("#status")).to_have_text("The server does not answer. Is cmer serve still running?")
    assert "ERR_FAILED" in faults.pop()
    page.unroute("**/api/search")
    ask(page, "red")


def test_the_map_shows_places_opens_them_and_filters_by_a_rectangle(page: Page) -> None:
    page.locator("#label").select_option("placed")
    ask(page, "blue")
    assert page.locator("#map .hit").count() == 4 and page.locator("#grid li").count() == 4
    page.locator("#map .hit").last.click()
    expect(page.get_by_role("dialog")).to_contain_text("placed/2.tif")
    expect(page.get_by_role("dialog")).to_contain_text("11.0000, 49.0000, 12.0000, 50.0000")
    page.get_by_role("button", name="Close").click()
    page.locator("#label").select_option("red")
    expect(page.locator("#map .hit")).to_have_count(0)
    page.locator("#map .place").first.click()  # of an image that was not found
    expect(page.get_by_role("dialog")).to_contain_text("placed/")
    expect(page.get_by_role("dialog")).not_to_contain_text("Score")
    page.get_by_role("button", name="Close").click()
    page.locator("#label").select_option("placed")
    area = page.locator("#map").bounding_box()
    middle = area["x"] + area["width"] / 2
    page.mouse.move(area["x"] + 2, area["y"] + 2)
    page.mouse.down()
    page.mouse.move(middle, area["y"] + area["height"] - 2, steps=4)
    page.mouse.up()
    expect(page.locator("#status")).to_contain_text("2 images")
    page.get_by_role("button", name="Search everywhere").click()
    expect(page.locator("#status")).to_contain_text("4 images")


def test_labels_of_the_map_are_whole_and_apart(page: Page) -> None:
    ask(page, "blue")
    for width in range(390, 1280, 60):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_function("width => document.getElementById('map').clientWidth < width", arg=width)
        page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        area = page.locator("#map").bounding_box()
        boxes = [label.bounding_box() for label in page.locator("#map text[text-anchor]").all()]
        assert boxes and area["x"] <= boxes[0]["x"] and boxes[-1]["x"] + boxes[-1]["width"] <= area["x"] + area["width"]
        assert all(one["x"] + one["width"] < other["x"] for one, other in pairwise(boxes)), width


def test_names_are_text_and_nothing_is_out_of_sight_or_a_serious_fault(page: Page) -> None:
    ask(page, "red <img src=x onerror=alert(1)>")
    for width, theme, details in product((1280, 390), ("light", "dark"), (False, True)):
        page.set_viewport_size({"width": width, "height": 900})
        if page.evaluate("document.documentElement.dataset.theme") != theme:
            page.locator("#theme").click()
        if details:
            page.locator("#grid button").first.click()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
        faults = [fault for fault in Axe().run(page).response["violations"] if fault["impact"] in SERIOUS]
        assert not [(width, theme, fault["id"], [node["html"][:100] for node in fault["nodes"]]) for fault in faults]
        if details:
            page.locator("#close").click()
