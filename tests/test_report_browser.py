"""The page in headless Chromium: no errors, no requests, the slider's numbers, phone width."""

import csv
import shutil
import statistics
import time

import pytest

from study.report import __main__ as report_script
from tests.calls import call
from tests.coviar_videos import pictures, write_video
from tests.tools import lacking

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
METHOD = "team_ce"
POINTS = ("exit1", "exit2", "exit3", "full")
# The page rounds percents to one decimal and GMACs to two.
PCT, GMACS = 0.0501, 0.00501


@pytest.fixture(scope="module")
def rows(synthetic_study):
    found = {}
    for name in ("decisions", "trade_off", "exits"):
        with open(synthetic_study / f"{name}.csv", newline="") as file:
            found[name] = [row for row in csv.DictReader(file) if row["method"] == METHOD]
    return found


@pytest.fixture(scope="module")
def report(synthetic_study, tmp_path_factory):
    """The page of the synthetic study, with videos and a class whose name holds HTML."""
    try:
        import plotly  # noqa: F401
    except ImportError:
        lacking("no plotly: pip install plotly")
    folder = tmp_path_factory.mktemp("report")
    study = shutil.copytree(synthetic_study, folder / "study")
    for path in study.iterdir():
        path.write_text(path.read_text().replace(",class1,", ",<img src=x>,"))
    video = write_video(folder / "v.m4v", pictures(13))
    with open(study / "decisions.csv", newline="") as file:
        for name in {row["video"] for row in csv.DictReader(file)}:
            copy = folder / "videos" / f"{name}.m4v"
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(video, copy)
    out = folder / "report.html"
    call(report_script, study, "--out", out, "--data-root", folder / "videos")
    return out


@pytest.fixture(scope="module")
def browser():
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not executable:
        lacking("no Chromium; on Debian: apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        lacking("no playwright: pip install playwright")
    with sync_playwright() as playwright:
        # Chromium's own sandbox does not start for root, who runs CI's containers.
        yield playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])


@pytest.fixture(scope="module")
def page(browser, report):
    """The loaded page; it must make no request and log no error."""
    page = browser.new_page(viewport=DESKTOP)
    faults = []
    page.on("console", lambda line: faults.append(line.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: faults.append(request.url))
    page.goto(report.as_uri())
    page.wait_for_selector("[data-plot=confusion] .main-svg")
    inside = ("data:", "blob:", report.as_uri())
    yield page
    assert [fault for fault in faults if not fault.startswith(inside)] == []


def number(page, name):
    return float(page.text_content(f"[data-live={name}]").strip(" %±"))


def shares(page):
    cells = page.locator("[data-live=shares] tr td:last-child").all_text_contents()
    return [float(cell.strip(" %")) for cell in cells]


def move(page, step):
    """Move the slider, the last step by the keyboard; returns the threshold shown."""
    slider = page.locator(".threshold")
    slider.fill(str(step - 1))
    slider.press("ArrowRight")
    page.evaluate("new Promise(requestAnimationFrame)")  # plots follow with the next frame
    return number(page, "threshold")


def decided(rows, threshold):
    """(top-1, gmacs, [share by point]), means over runs, from each clip's confidences."""
    costs = {row["exit"]: float(row["gmacs"]) for row in rows["exits"]}
    runs = {}
    for row in rows["decisions"]:  # a clip's rows are in the order of its exits
        clips = runs.setdefault((row["split"], row["seed"]), {})
        before = clips.get(row["video"])
        if before is None or (before[0] != "full" and not before[2]):
            leaves = float(row["confidence"]) > threshold
            clips[row["video"]] = (row["exit"], row["correct"] == "1", leaves)
    means = [
        (
            100 * statistics.mean(correct for _, correct, _ in clips.values()),
            statistics.mean(costs[point] for point, _, _ in clips.values()),
            *(100 * statistics.mean(at == p for at, _, _ in clips.values()) for p in POINTS),
        )
        for clips in runs.values()
    ]
    assert len(means) == 4
    top1, gmacs, *share = map(statistics.mean, zip(*means))
    return top1, gmacs, share


def test_slider_shows_what_the_clips_decide(page, rows):
    page.select_option(".explorer .method", METHOD)
    seen = set()
    for step in (1, 18, 29, 40):
        threshold = move(page, step)
        top1, gmacs, share = decided(rows, threshold)
        assert number(page, "top1") == pytest.approx(top1, abs=PCT)
        assert number(page, "gmacs") == pytest.approx(gmacs, abs=GMACS)
        assert shares(page) == pytest.approx(share, abs=PCT)
        full = float(next(row["gmacs"] for row in rows["exits"] if row["exit"] == "full"))
        assert number(page, "cost") == pytest.approx(100 * gmacs / full, abs=PCT)
        ring = page.evaluate(
            "() => { const at = document.querySelector('[data-plot=trade-off]').data.at(-1);"
            " return [at.x[0], at.y[0]]; }"
        )
        assert ring == pytest.approx([gmacs, top1], abs=1e-4)  # the tables' six decimals
        line = "document.querySelector('[data-plot=shares]').layout.shapes[0].x0"
        assert page.evaluate(line) == threshold
        seen.add((top1, gmacs))
    assert len(seen) == 4 and threshold == 1


def test_selects_choose_method_and_combination(page, rows):
    page.select_option(".explorer .method", METHOD)
    page.select_option(".explorer .combination", "constant")
    threshold = move(page, 20)
    swept = [
        row
        for row in rows["trade_off"]
        if row["combination"] == "constant" and float(row["threshold"]) == threshold
    ]
    everyone = [float(row["top1_pct"]) for row in swept if row["exit"] == "all"]
    assert number(page, "top1") == pytest.approx(statistics.mean(everyone), abs=PCT)
    assert number(page, "top1-std") == pytest.approx(statistics.stdev(everyone), abs=PCT)
    for d, point in enumerate(POINTS):
        share = statistics.mean(float(row["share_pct"]) for row in swept if row["exit"] == point)
        assert shares(page)[d] == pytest.approx(share, abs=PCT)
    # One choice for the whole section.
    chosen = page.locator("select.method").evaluate_all("all => all.map((one) => one.value)")
    assert set(chosen) == {METHOD}
    lines = "document.querySelector('[data-plot=trade-off]').data.length"
    before = page.evaluate(lines)
    page.uncheck("text=vanilla >> input")
    assert page.evaluate(lines) == before - 2 * 4  # a line and a mark for each method
    page.check("text=vanilla >> input")


def test_mistakes_and_examples_are_there(page, rows):
    page.select_option(".explorer .method", METHOD)
    wrong = [row for row in rows["decisions"] if row["left"] == "1" and row["correct"] == "0"]
    totals = page.locator(".mistakes tbody td:nth-child(3)").all_text_contents()
    assert sum(map(int, totals)) == len(wrong)
    assert page.locator("th", has_text="<img src=x>").count() > 0  # as text, not as an element
    widths = page.locator("img").evaluate_all("all => all.map((one) => one.naturalWidth)")
    assert len(widths) == 3 * page.locator(".example").count() > 0
    assert min(widths) == 200
    leaving = page.locator(".example .left").count()
    assert leaving == page.locator(".example").count()


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_nothing_is_wider_than_the_screen(page, size):
    page.set_viewport_size(size)
    width = size["width"]
    drawn = (
        "width => [...document.querySelectorAll('.chart .main-svg')]"
        ".every((svg) => svg.getBoundingClientRect().right <= width)"
    )
    # Not wait_for_function: its second look is an eval, which the page's own policy forbids.
    end = time.monotonic() + 30
    while not page.evaluate(drawn, width):
        assert time.monotonic() < end
        page.wait_for_timeout(20)  # milliseconds
    assert page.evaluate("document.documentElement.scrollWidth") == width
    # What is wider scrolls inside a box of its own.
    wide = page.evaluate(
        "width => [...document.querySelectorAll('main *')].filter((one) => !one.closest('.scroll')"
        " && !one.closest('pre') && one.getBoundingClientRect().right > width + 1)"
        ".map((one) => one.outerHTML.slice(0, 80))",
        width,
    )
    assert wide == []


def test_every_control_and_picture_has_a_name(page):
    nameless = page.evaluate(
        "() => [...document.querySelectorAll('select, input, img, .chart, .scroll')].filter("
        "(one) => !(one.labels?.length || one.getAttribute('aria-label') || one.alt)).length"
    )
    assert nameless == 0
