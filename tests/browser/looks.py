"""How a page must look at any width, in light and dark and both languages."""

import pytest
from playwright.sync_api import Page, expect

VIEWPORTS = {"wide": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}
LOOKS = [
    ("zh", "light", "wide"),
    pytest.param("en", "dark", "wide", marks=pytest.mark.slow),
    pytest.param("en", "light", "phone", marks=pytest.mark.slow),
    ("zh", "dark", "phone"),
]

# Elements beyond the right edge, unless something around them scrolls by itself.
OVERFLOWING = """() => [...document.querySelectorAll('header *, main *')].filter(shown => {
  const box = shown.getBoundingClientRect();
  if (!box.width || !box.height || box.right <= innerWidth + 1) return false;
  for (let around = shown; around && around !== document.body; around = around.parentElement)
    if (['auto', 'scroll', 'hidden'].includes(getComputedStyle(around).overflowX)) return false;
  return true;
}).map(shown => shown.outerHTML.slice(0, 150))"""

# What can be pressed or filled in, and has no name for a screen reader.
NAMELESS = """() => [...document.querySelectorAll(
  'button, a[href], input:not([type=hidden]):not([type=file]), textarea, [role=combobox], [role=switch]'
)].filter(shown => {
  const hidden = !shown.offsetParent || getComputedStyle(shown).visibility === 'hidden';
  if (hidden || shown.closest('[aria-hidden=true]')) return false;
  const labels = shown.labels ? [...shown.labels].map(label => label.innerText).join('') : '';
  return !(shown.getAttribute('aria-label') || shown.innerText?.trim() || labels.trim()
    || shown.title || shown.closest('[aria-label]:not(section):not(nav)'));
}).map(shown => shown.outerHTML.slice(0, 200))"""


def settled(page: Page) -> None:
    """The page is connected and what it loads is there."""
    expect(page.locator("h1")).to_be_visible()
    expect(page.locator("[aria-busy=true]")).to_have_count(0)
    if page.url.split("?")[0].count("/") == 3 and page.get_by_test_id("summary").count():
        expect(page.get_by_test_id("form-ready")).to_be_visible()


def fits(page: Page, size: str, what: str = "") -> None:
    """Nothing sticks out, and everything that can be used has a name."""
    assert page.evaluate("document.documentElement.scrollWidth") <= VIEWPORTS[size]["width"], what
    assert page.evaluate(OVERFLOWING) == [], what
    assert page.evaluate(NAMELESS) == [], what


def fits_at_every_width(page: Page) -> None:
    """The same on a phone and on a wide screen; it is left wide."""
    for size in ("phone", "wide"):
        page.set_viewport_size(VIEWPORTS[size])  # type: ignore[arg-type]
        # Charts and the side bar take up the new width a moment later.
        width = VIEWPORTS[size]["width"]
        page.wait_for_function(f"document.documentElement.scrollWidth <= {width}", timeout=15_000)
        fits(page, size)
