"""The report in a real browser: Debian's chromium, headless."""

import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect, sync_playwright
from report_project import spec_of

from cmer.reporting.report.page import render

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium")
SERIOUS = ("serious", "critical")


@pytest.fixture
def page(prepared, results: Path) -> Iterator[Page]:
    """The report in a browser that fails the test on an error of the console or a request to anywhere."""
    file, faults = results / "report.html", []
    file.write_text(render(spec_of(prepared), results, results.parent / "logs"))
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        opened = browser.new_page()
        opened.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        opened.on("pageerror", lambda error: faults.append(str(error)))
        opened.on(
            "request", lambda request: faults.append(request.url) if request.url[:5] not in ("file:", "data:") else None
        )
        opened.goto(file.as_uri())
        yield opened
        browser.close()
    assert not faults


def column(page: Page, number: int) -> list[str]:
    return page.locator(f"#table-table1 tbody tr:visible > :nth-child({number})").all_inner_texts()


def test_tables_sort_and_filter(page: Page) -> None:
    assert len(column(page, 1)) == 3  # two protocols and the control; the paper's rows are hidden
    page.get_by_role("checkbox", name="the paper's rows").check()
    assert len(column(page, 1)) == 26
    heading = page.locator("#table-table1 th button", has_text="mR").first
    for sign in (-1, 1):
        heading.click()
        values = [float(text.split()[0]) for text in column(page, 2) if text.strip()]
        assert len(values) == 26 and values == sorted(values, key=lambda value: sign * value)
    page.locator("#table-table1 select[name=label_protocol]").select_option("oracle")
    assert {text.split("\n")[0].split()[-1] for text in column(page, 1)} == {"oracle"}
    page.locator("#table-table1 input[name=find]").fill("probe")
    assert all("probe" in text.lower() for text in column(page, 1))


def test_headings_and_the_label_protocol_stay_in_sight_while_a_table_is_scrolled(page: Page) -> None:
    page.get_by_role("checkbox", name="the paper's rows").check()
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 600})
        region = page.locator("#table-table1 .scroll")
        region.evaluate("box => { box.scrollIntoView(); box.scrollTo(box.scrollWidth, box.scrollHeight) }")
        box, last = region.bounding_box(), page.locator("#table-table1 tbody tr:visible").last
        assert box["height"] <= 0.8 * 600 + 1
        assert page.locator("#table-table1 thead th").last.bounding_box()["y"] == pytest.approx(box["y"], abs=2)
        protocol = last.locator("th .tag").bounding_box()
        assert box["x"] <= protocol["x"] and protocol["x"] + protocol["width"] < box["x"] + box["width"] / 2
        assert (
            page.evaluate(
                "place => document.elementFromPoint(...place).className", [protocol["x"] + 6, protocol["y"] + 6]
            )
            == "tag"
        )


def test_the_page_of_a_run_opens_with_its_mr(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 900})
    page.evaluate("location.hash = 'run-squares-lite.probe'")
    recalls = page.get_by_role("region", name="Recall of lite.probe")
    assert recalls.locator("thead th").all_inner_texts()[:3] == ["protocol", "mR", "I→T R@1"]
    cell = recalls.locator("tbody td").first
    assert " ± " in cell.inner_text() and " to " in cell.inner_text()
    assert cell.bounding_box()["x"] + cell.bounding_box()["width"] < 390


def test_the_page_opens_with_what_came_out_and_leads_to_the_run(page: Page) -> None:
    outcome = page.get_by_role("region", name="What came out")
    expect(outcome).to_contain_text("On squares, lite.probe is the only system: mR")
    expect(outcome).to_contain_text("with plain captions (2 seeds, 9 test images). There is none to compare it with.")
    assert outcome.bounding_box()["y"] < page.locator("#tables").bounding_box()["y"]
    outcome.get_by_role("link", name="lite.probe").click()
    expect(page.locator("[id='run-squares-lite.probe']")).to_be_visible()


def test_bars_of_scenes_end_at_their_recall_with_the_interval_around(page: Page) -> None:
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate("location.hash = 'run-squares-lite.probe'")
        rows = page.locator(".bars tbody tr")
        assert rows.count() == 3
        start, end = (float(text) for text in page.locator(".bars .ends span").all_inner_texts())
        assert start == 0 and end in range(10, 101, 10)
        highest = []
        for row in rows.all():
            shown = [float(word) for word in row.locator("td").nth(1).inner_text().replace("to", " ").split()]
            track, bar, line = (row.locator(name).bounding_box() for name in (".track", ".bar", ".interval"))
            ends = (bar["x"] + bar["width"], line["x"], line["x"] + line["width"])
            assert track["width"] > 90
            assert ends == pytest.approx([track["x"] + track["width"] * value / end for value in shown], abs=2.5)
            highest.append(shown[2])
        assert end - 10 < max(highest) <= end


def test_a_row_leads_to_the_page_of_its_run_with_pictures(page: Page) -> None:
    page.locator("#table-table1 tbody a").first.click()
    run = page.locator("[id='run-squares-lite.probe']")
    expect(run).to_be_visible()
    expect(page.locator("#overview")).to_be_hidden()
    pictures = run.locator("img[data-picture]")
    assert pictures.count() > 20
    assert all(pictures.evaluate_all("all => all.map(img => img.complete && img.naturalWidth === 96)"))
    page.get_by_role("link", name="All runs").click()
    expect(page.locator("#overview")).to_be_visible()
    expect(run).to_be_hidden()


def test_a_run_opens_at_its_top_and_back_returns_to_its_row(page: Page) -> None:
    size = {"width": 390, "height": 700}
    page.set_viewport_size(size)
    assert page.context.browser
    opened = page.context.browser.new_page(viewport=size)
    opened.goto(f"{page.url}#run-squares-lite.probe")
    expect(opened.locator("[id='run-squares-lite.probe']")).to_be_visible()
    assert opened.evaluate("document.documentElement.scrollHeight > 2 * innerHeight && scrollY") == 0
    link = page.locator("#runs li a").first
    link.scroll_into_view_if_needed()
    before = page.evaluate("scrollY")
    link.click()
    expect(page.locator("#overview")).to_be_hidden()
    assert before > 0 and page.evaluate("scrollY") == 0
    page.go_back()
    expect(page.locator("#overview")).to_be_visible()
    page.wait_for_function("before => scrollY === before", arg=before)


def test_the_graph_of_the_steps_is_drawn_and_named(page: Page) -> None:
    drawing = page.get_by_role("img", name="Steps of the workflow")
    box = drawing.locator("rect").bounding_box()
    assert box is not None and box["width"] > 100 and "Evaluation" in (drawing.text_content() or "")


def test_nothing_is_out_of_sight_and_no_accessibility_fault_is_serious(page: Page) -> None:
    for width, theme, place in product((1280, 390), ("light", "dark"), ("", "run-squares-lite.probe")):
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate("place => { location.hash = place }", place)
        page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (width, place)
        faults = [found for found in Axe().run(page).response["violations"] if found["impact"] in SERIOUS]
        assert not [(theme, found["id"], [node["html"][:100] for node in found["nodes"]]) for found in faults]
