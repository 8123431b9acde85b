"""The report in a real browser: it is clicked, filtered and read, at two widths and in both themes, with no request."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace

import pytest

pytestmark = pytest.mark.browser

QUIET = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
"""A browser that asks nothing of a network by itself either."""

WIDTHS = (1280, 380)


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


def test_colours_tell_the_neighbourhood_of_the_limit_apart_and_the_legend_says_the_steps(opened):
    page = opened()
    key = page.locator("#heat-steps span").all_inner_texts()
    assert key[:4] == ["below −1.0: a gain", "to 1.0", "to 2.0 (the limit)", "to 4.0"] and key[-1] == "above 32.0"
    steps = page.evaluate("[0.5, 1.9, 3, 7, 12, 30, 77].map((value) => stepOf(100 * value, heatBounds()))")
    assert steps == [1, 2, 3, 4, 5, 6, 7]
    colours = "[...document.querySelectorAll('#heat-steps i')].map((one) => getComputedStyle(one).backgroundColor)"
    assert len(set(page.evaluate(colours))) == 8
    signs = {mark.inner_text()[0] for mark in page.locator("#heat-map button").all()}
    assert signs >= {"✓", "✗"}
    page.get_by_label("flips").check()
    assert page.locator("#heat-steps span").all_inner_texts()[:2] == ["to 2.5", "to 5.0 (the limit)"]


def test_pressing_a_cell_goes_to_its_groups_over_all_seeds_and_back(opened):
    page = opened()
    cell(page, "dark@3, minmax").click()
    words = page.locator("#group-cell")
    assert words.inner_text() == "dark@3, minmax, mean over seeds 0, 1, 2: failed; 12 groups."
    assert page.evaluate("document.activeElement.id") == "group-cell"
    assert 0 <= words.bounding_box()["y"] < 300
    cell(page, "noisy, minmax").click()
    assert words.inner_text().startswith(
        "noisy, minmax, mean over seeds 0, 2 (1 seed failed): undecided (not every seed was judged);"
    )
    cell(page, "dark@3, minmax").click()
    first = page.locator("#group-table tbody tr").first
    mean, spread = first.locator("td").first.inner_text().split("\n")
    least, most = spread.split(" – ")
    assert float(least) <= float(mean) <= float(most) and least != most
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Back to the heat map"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("dark@3, minmax:")
    assert page.locator('#heat-map [aria-pressed="true"]').count() == 1
    page.select_option("#filters select[name=seed]", label="1")
    assert words.inner_text().startswith("dark@3, minmax, seed 1: failed;")
    assert page.locator("#heat-map caption").inner_text().endswith("; model net.onnx; runtime cpu; seed 1")
    cell(page, "clean, minmax").press("Enter")
    assert words.inner_text().startswith("clean, minmax, seed 1: passed;")
    assert page.locator("#group-table small").count() == 0


def test_groups_can_be_filtered_and_sorted(opened):
    page = opened()
    cell(page, "dark@3, minmax").click()
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


def test_each_map_is_one_tab_stop_with_arrow_keys_inside(opened):
    page = opened()
    for name in ("#heat-map", "#range-table"):
        stops = (
            page.locator(f"{name} .map")
            .locator("button, [tabindex]")
            .evaluate_all("(marks) => marks.filter((mark) => mark.tabIndex === 0).length")
        )
        assert stops == page.locator(f"{name} [tabindex='0']").count() == 1
    label = "document.activeElement.getAttribute('aria-label')"
    page.locator("#metric input").first.focus()
    page.keyboard.press("Tab")
    assert page.evaluate(label).startswith("clean, minmax:")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert page.evaluate(label).startswith("clean & autocontrast, <i>entropy</i>:")
    assert page.locator("#tip").inner_text().startswith("clean & autocontrast, <i>entropy</i>")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(label).startswith("clean & autocontrast, minmax:")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "group-filter"
    page.keyboard.press("Shift+Tab")
    assert page.evaluate(label).startswith("clean & autocontrast, minmax:")
    page.locator("#range-table [tabindex='0']").focus()
    page.keyboard.press("End")
    assert ", dark@3 & autocontrast: ×" in page.evaluate(label)


def test_the_corner_that_the_average_hides_is_large_enough_to_read(opened):
    """The limits, 1 and 2 points, stand a fifth of the plot from its edges, though the axes reach 40 points."""
    page = opened()
    corner = page.locator("#scatter-plot .corner").bounding_box()
    plot = page.locator("#scatter-plot svg.plot").bounding_box()
    assert corner["width"] > 0.15 * plot["width"]
    assert corner["y"] + corner["height"] < plot["y"] + 0.8 * plot["height"]
    ticks = page.locator("#scatter-plot svg.plot text").all_text_contents()
    assert {"0.0", "1.0", "2.0", "5.0", "limit 2.0"} <= set(ticks)
    for verdict in ("passed", "failed"):
        assert page.locator(f"#scatter-plot svg.plot .mark.{verdict}").count()
    page.locator("#scatter-plot svg.plot").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert ", seed " in page.locator("#group-cell").inner_text()
    page.click("#back")
    assert page.evaluate("document.activeElement.classList.contains('plot')")


def test_on_a_phone_groups_are_stacked_and_nothing_runs_out_of_sight(opened):
    page = opened(380)
    row = page.locator("#group-table tbody tr").first
    boxes = [part.bounding_box() for part in row.locator("th, td").all()]
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= 380 for box in boxes)
    assert row.locator("td").count() == 8
    assert page.locator("#group-table [role=row] [role=rowheader]").count() == 20


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
    colour = "getComputedStyle(document.querySelector('#heat-map button[data-verdict=passed]')).backgroundColor"
    page.wait_for_function(f"{colour}.match(/\\d+/g).map(Number)[0] > 200")
    assert page.locator("nav").is_hidden()


def test_on_paper_no_table_is_cut_and_nothing_is_folded(browser, make_study, tmp_path):
    """At the width of an A4 sheet with margins of a centimetre."""
    from onnxptq.reports.study import write_report

    sets = ["clean", "dark@3", *(f"a set with a long name, number {k}" for k in range(12))]
    methods = [f"method{k}:option=value" for k in range(9)]
    made = make_study(calibrations=sets, methods=methods, runtimes=("cpu", "openvino"), tensors=30)
    write_report(made, tmp_path / "report.html")
    page = browser.new_page(viewport={"width": 718, "height": 1000})
    page.goto((tmp_path / "report.html").as_uri())
    page.wait_for_selector("html[data-ready]")
    page.emulate_media(media="print")
    page.locator("#range-table table").nth(3).wait_for()
    ends = "[...document.querySelectorAll('table, pre, svg')].map((one) => one.getBoundingClientRect().right)"
    assert max(page.evaluate(ends)) <= 718
    assert page.locator("details:not([open])").count() == 0
    heads = page.locator("#range-table thead th:not(:first-child)").all_inner_texts()
    assert len(heads) == 28
    assert page.locator("#range-table tbody tr").count() == 4 * 30
    assert page.locator("#group-table tbody tr").count() == 200
    assert "that lose less are not printed" in page.locator("#group-table .paper").inner_text()
    page.emulate_media(media="screen")
    page.locator("#range-table table").nth(1).wait_for(state="detached")
    assert page.locator("details[open]").count() == 0
    page.close()


def test_a_group_just_above_the_tolerance_is_undecided_on_the_page(browser, make_study, tmp_path):
    from onnxptq.reports.study import write_report

    made = make_study(calibrations=("clean",), strategies=("",), methods=("minmax",), seeds=(0,))
    (only,) = made.cells
    first, *others = only.report["groups"]
    bound = {"crossfit_drop": 0.01, "crossfit_drop_low": 0.0, "groups": [first | {"drop_high": 0.1000217}, *others]}
    write_report(replace(made, cells=(replace(only, report=only.report | bound),)), tmp_path / "report.html")
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    page.wait_for_selector("html[data-ready]")
    mark = cell(page, "clean, minmax")
    assert mark.inner_text() == "? 1.0"
    assert mark.get_attribute("aria-label") == "clean, minmax: 1.0 points, undecided (within the limit)"
    page.close()


def test_without_a_script_the_verdict_and_the_answers_are_still_there(browser, report):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert "No method passed with dark@3" in page.locator("#verdict").inner_text()
    assert "Does the calibration method matter?" in page.locator("#questions").inner_text()
    assert "need JavaScript" in page.locator("body").inner_text()
    context.close()
