"""The report in a real browser: it is clicked, filtered and read, at two widths and in both themes, with no request."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

pytestmark = pytest.mark.browser

QUIET = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
"""A browser that asks nothing of a network by itself either."""

WIDTHS = (1280, 390)


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install 'onnxptq[browser]' for these tests")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium on the PATH (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory, make_study):
    from onnxptq.reports.study import write_report

    path = tmp_path_factory.mktemp("report") / "report.html"
    made = make_study(
        models=("net.onnx", "other.onnx"),
        methods=("minmax", "<i>entropy</i>"),
        runtimes=("cpu", "openvino"),
        fails=lambda key: key.calibration == "noisy" and key.seed == 1 and key.method == "minmax",
    )
    write_report(made, path)
    return path


@pytest.fixture
def opened(browser, report):
    """Opens the report; at the end no error was on the console and nothing but the file was asked for."""
    troubles: list[str] = []
    contexts = []

    def opened(width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or troubles.append(request.url))
        page.goto(report.as_uri())
        page.wait_for_selector("html[data-ready]")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not troubles


def cell(page, name):
    return page.locator(f'#heat-map button[aria-label^="{name}:"]')


def test_the_heat_map_switches_and_explains_itself_on_hover_and_focus(opened):
    page = opened()
    dark = cell(page, "dark@3, minmax")
    assert dark.inner_text().startswith("✗ ")
    before = dark.inner_text()
    assert page.locator("#heat-map th[scope=row]").count() == 6
    assert page.locator("#heat-map i").count() == 0
    dark.hover()
    tip = page.locator("#tip")
    assert "95 % interval" in tip.inner_text()
    page.keyboard.press("Escape")
    assert tip.is_hidden()
    cell(page, "clean, minmax").focus()
    assert "clean, minmax: " in tip.inner_text()
    page.get_by_label("average drop", exact=True).check()
    assert "Average drop" in page.locator("#heat-map caption").inner_text()
    assert cell(page, "dark@3, minmax").inner_text() != before
    assert "average drop" in page.locator("#status").inner_text()


def test_pressing_a_cell_shows_its_groups_which_can_be_filtered_and_sorted(opened):
    page = opened()
    cell(page, "dark@3, minmax").click()
    assert page.locator("#group-cell").inner_text().startswith("dark@3, minmax, seed ")
    rows = page.locator("#group-table tbody tr")
    assert rows.count() == 12
    assert rows.first.locator("th").inner_text().startswith("cat")
    page.fill("#group-filter", "dog fog")
    assert rows.all_inner_texts()[0].startswith("dog, fog@3")
    assert rows.count() == 1
    assert "1 group." in page.locator("#status").inner_text()
    page.fill("#group-filter", "")
    page.get_by_role("button", name="group", exact=True).click()
    assert page.locator('#group-table th[aria-sort="ascending"]').inner_text().startswith("group")
    names = rows.locator("th").all_inner_texts()
    assert names == sorted(names)
    page.click("#every-cell")
    assert rows.count() == 20


def test_filters_choose_the_cells_of_all_pictures(opened):
    page = opened()
    marks = page.locator("#scatter-plot svg.plot .mark")
    assert marks.count() == 34
    page.select_option("#filters select[name=seed]", label="1")
    assert marks.count() == 10
    assert "12 cells shown" in page.locator("#status").inner_text()
    assert cell(page, "noisy, minmax").inner_text() == "! –"


def test_the_keyboard_alone_reaches_everything(opened):
    page = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    cell(page, "dark@3, minmax").focus()
    page.keyboard.press("Enter")
    assert page.locator("#group-cell").inner_text().startswith("dark@3, minmax")
    page.locator("#scatter-plot svg.plot").focus()
    page.keyboard.press("ArrowRight")
    assert "cross-fitted worst-group drop" in page.locator("#status").inner_text()
    unlabelled = "[...document.querySelectorAll('input, select')].filter((one) => !one.labels.length).length"
    assert page.evaluate(unlabelled) == 0
    assert page.evaluate("[...document.querySelectorAll('table')].every((one) => one.caption)")


def test_ranges_show_which_set_clips(opened):
    page = opened()
    words = page.locator("#range-words").inner_text()
    assert words.startswith("dark@3 has the narrowest ranges")
    assert "From seed to seed half of the ranges differ by no more than" in words
    dark = page.locator('#range-table [aria-label^="layer0/out, dark@3:"]')
    mean, spread = dark.inner_text().split("\n")
    least, most = spread.split("–")
    assert float(least) - 0.005 <= float(mean.removeprefix("×")) <= float(most) + 0.005 < 0.2
    assert f"from ×{least} to ×{most} over 3 seeds" in dark.get_attribute("aria-description")
    page.select_option("#range-method", index=1)
    assert page.locator("#range-table tbody tr").count() == 6


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_as_wide_as_the_screen_and_readable_in_both_themes(opened, width, scheme):
    page = opened(width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = "getComputedStyle(document.body).backgroundColor"
    light = "rgb(255, 255, 255)"
    assert (page.evaluate(background) == light) == (scheme == "light")
    contrast = page.evaluate(CONTRAST)
    assert contrast >= 4.5
    page.click("#theme")
    assert (page.evaluate(background) == light) == (scheme == "dark")
    assert page.evaluate(CONTRAST) >= 4.5


CONTRAST = """() => {
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const luminance = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map((v) => linear(Number(v) / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const page = luminance(getComputedStyle(document.body).backgroundColor);
  const own = [...document.querySelectorAll('.map button, .map .cell')].map((one) => {
    const style = getComputedStyle(one);
    return ratio(luminance(style.color), luminance(style.backgroundColor));
  });
  const texts = [...document.querySelectorAll('p, caption, nav a')];
  return Math.min(...own, ...texts.map((one) => ratio(luminance(getComputedStyle(one).color), page)));
}"""
"""The least contrast of text to what is behind it (WCAG 1.4.3 wants 4.5)."""


def test_on_paper_it_is_light_whatever_the_theme(opened):
    page = opened(scheme="dark")
    page.emulate_media(media="print")
    page.wait_for_function("getComputedStyle(document.body).backgroundColor === 'rgb(255, 255, 255)'")
    page.wait_for_function(f"({CONTRAST})() >= 4.5")
    colour = "getComputedStyle(document.querySelector('#heat-map button[data-verdict=safe]')).backgroundColor"
    page.wait_for_function(f"{colour}.match(/\\d+/g).map(Number)[0] > 200")
    assert page.locator("nav").is_hidden()


def test_without_a_script_the_verdict_and_the_answers_are_still_there(browser, report):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert "No method is safe with dark@3" in page.locator("#verdict").inner_text()
    assert "Does the calibration method matter?" in page.locator("#questions").inner_text()
    assert "need JavaScript" in page.locator("body").inner_text()
    context.close()
