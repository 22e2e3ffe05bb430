"""The explorer in a real browser: what it shows, its policy, with a keyboard, on a phone, in the dark."""

import json

from tests.cluster import wait_until
from tests.explorer.conftest import FLEET, HOSTILE

FOCUS = "document.activeElement"


def text_of(page, selector):
    return page.run(f"document.querySelector({json.dumps(selector)}).textContent")


def texts_of(page, selector):
    return page.run(
        f"[...document.querySelectorAll({json.dumps(selector)})].map((e) => e.textContent)"
    )


def tab_to(page, condition, limit=80):
    """Presses Tab until the focused element fulfils the condition; how often."""
    for n in range(1, limit):
        page.press("Tab")
        if page.run(f"(({condition}))({FOCUS})"):
            return n
    raise AssertionError(f"Tab does not come to {condition}")


def test_all_of_the_pool_is_shown(page, pool):
    names = texts_of(page, "#workers tbody th")
    assert names == sorted(names) and len(names) == pool.size
    assert texts_of(page, "#models tbody th") == ["m"]
    assert f"{pool.size} machines of 4 kinds in 4 regions" in text_of(page, "#headline")
    groups = texts_of(page, "#groups h3")
    assert groups == sorted(device.split(":", 1)[1] for _, device, *_ in FLEET)
    assert text_of(page, "#live") == "live"


def test_what_a_worker_says_stays_text(page):
    assert HOSTILE in texts_of(page, "#groups h3")
    assert HOSTILE in texts_of(page, "#workers tbody td")
    page.run("location.hash = '#/worker/rogue'")
    page.wait("document.querySelector('#facts dd')")
    assert f"{HOSTILE} (cpu)" in texts_of(page, "#facts dd")
    assert page.run("document.querySelectorAll('main img, main script').length") == 0


def test_the_policy_refuses_what_is_injected(page):
    """And the test sees it when it does: no problem of the other tests goes unnoticed."""
    page.run("""
        const script = document.createElement("script");
        script.textContent = "window.injected = 1";
        document.body.append(script);
        const e = document.createElement("p");
        e.setAttribute("style", "color: red");
        document.body.append(e);
    """)
    page.run("new Image().src = 'http://127.0.0.1:9/x.png'")
    page.wait("window.injected === undefined")
    wait_until(lambda: page.run("1") and len(page.problems) >= 3, 10, "three are refused")
    assert page.run("window.injected") is None
    page.problems.clear()


def test_it_is_live(page, pool):
    before = page.run("document.querySelector('#charts .plot').getAttribute('aria-valuetext')")
    page.wait("document.querySelector('#charts .plot').getAttribute('aria-valuetext') !== "
              + json.dumps(before))
    pool.join("late", "cpu:A machine that comes later", "eu-west")
    page.wait("[...document.querySelectorAll('#workers tbody th')].some((e) => e.textContent === 'late')")
    pool.lose("late")
    page.wait("![...document.querySelectorAll('#workers tbody th')].some((e) => e.textContent === 'late')")
    tokens = "[...document.querySelectorAll('#models tbody td')].pop().textContent"
    assert page.wait(f"{tokens} !== '0'")


def test_without_a_mouse(page):
    page.press("Tab")
    assert page.run(f"{FOCUS}.className") == "skip"
    # A chart: the arrows walk over its samples.
    tab_to(page, "(e) => e.matches('.plot')")
    page.wait(f"Number({FOCUS}.getAttribute('aria-valuemax')) >= 3")
    last = page.run(f"Number({FOCUS}.getAttribute('aria-valuenow'))")
    page.press("ArrowLeft")
    page.press("ArrowLeft")
    assert page.run(f"Number({FOCUS}.getAttribute('aria-valuenow'))") <= last
    assert page.run("document.querySelectorAll('#charts .cursor').length") == 1
    assert "out" in page.run(f"{FOCUS}.getAttribute('aria-valuetext')")
    # The table: sorted by a button, and ticks leave the focus alone.
    tab_to(page, "(e) => e.matches('#workers thead button') && e.textContent === 'Price / M'")
    page.press("Enter")
    assert page.run(f"{FOCUS}.closest('th').getAttribute('aria-sort')") == "descending"
    prices = texts_of(page, "#workers td[data-label='Price / M']")
    assert prices[0] == "2.20" and prices[-1] == "–"
    # A worker's page and back.
    tab_to(page, "(e) => e.matches('#workers tbody a')")
    name = page.run(f"{FOCUS}.textContent")
    page.press("Enter")
    page.wait("!document.getElementById('worker').hidden")
    assert page.run(f"{FOCUS}.id") == "worker-id" and text_of(page, "#worker-id") == name
    page.wait("document.querySelector('#worker-charts .plot .stroke')")
    page.run("history.back()")
    page.wait(f"!document.getElementById('pool').hidden && {FOCUS}.textContent === {json.dumps(name)}")
    page.run("document.querySelector('#workers thead button').click()")


def test_everything_has_a_name_and_a_role(page):
    """Of the accessibility tree that the browser makes of it."""
    nodes = [n for n in page.call("Accessibility.getFullAXTree")["nodes"] if not n["ignored"]]
    named = {"link", "button", "slider", "table", "heading", "radio", "columnheader"}
    found = {}
    for n in nodes:
        role = n["role"]["value"]
        found[role] = found.get(role, 0) + 1
        if role in named:
            assert n["name"]["value"].strip(), n
    for role in ("banner", "main", "contentinfo", "status", "table", "row", "rowheader", "slider"):
        assert found.get(role), (role, found)


def test_on_a_phone_nothing_is_cut_off(page):
    for width in (360, 390, 768):
        page.size(width, 800, phone=True)
        page.wait(f"innerWidth === {width}")
        page.wait(f"document.documentElement.scrollWidth <= {width}")
        wide = page.run("""[...document.querySelectorAll('main *')].filter((e) =>
            e.offsetParent && !e.closest('.hidden, legend, .choice input, svg, .flush') && !e.matches('.hidden, legend, input') &&
            e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 80))""")
        assert wide == []


def luminance(color):
    parts = [float(x) / 255 for x in color[color.index("(") + 1:-1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear))


def test_texts_are_readable_in_light_and_dark(page):
    """WCAG 2.1, 1.4.3: a contrast of 4.5 at least."""
    script = """[...document.querySelectorAll('h1, h2, h3, dt, dd, td, th, .legend li, .legend b, .note, footer p, label')]
        .filter((e) => e.offsetParent).map((e) => {
            let b = e;
            while (b && getComputedStyle(b).backgroundColor === 'rgba(0, 0, 0, 0)') b = b.parentElement;
            return [e.tagName + ' ' + e.className + ' ' + e.textContent.slice(0, 20), getComputedStyle(e).color,
                    getComputedStyle(b || document.body).backgroundColor];
        })"""
    for dark in (False, True):
        page.dark(dark)
        checked = page.run(script)
        assert len(checked) > 60
        for what, ink, paper in checked:
            light, dim = sorted((luminance(ink), luminance(paper)), reverse=True)
            assert (light + 0.05) / (dim + 0.05) >= 4.5, (dark, what, ink, paper)
