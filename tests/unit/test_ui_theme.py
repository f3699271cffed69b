"""The colours can be read: WCAG 2.2 contrast in light and in dark."""

import re
from pathlib import Path

import pytest

import dspyui.ui
from dspyui.api import login
from dspyui.ui import theme

TEXT_ON = [
    (ink, ground)
    for ink in ("ink", "ink-soft", "accent", "good", "warn", "bad")
    for ground in ("page", "surface", "sunken")
] + [
    ("on-accent", "accent"),
    ("accent-strong", "accent-soft"),
    ("good", "good-soft"),
    ("warn", "warn-soft"),
    ("bad", "bad-soft"),
    ("ink", "accent-soft"),
    ("ink", "warn-soft"),
    ("ink", "bad-soft"),
]


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("tokens", [theme.LIGHT, theme.DARK], ids=["light", "dark"])
@pytest.mark.parametrize(("ink", "ground"), TEXT_ON)
def test_text_stands_out_from_its_ground(tokens, ink, ground):
    assert contrast(tokens[ink], tokens[ground]) >= 4.5


@pytest.mark.parametrize("tokens", [theme.LIGHT, theme.DARK], ids=["light", "dark"])
def test_the_edges_of_inputs_stand_out(tokens):
    assert contrast(tokens["line-strong"], tokens["surface"]) >= 3


def test_both_themes_have_the_same_tokens_and_css_uses_only_those():
    assert theme.LIGHT.keys() == theme.DARK.keys()
    known = {*theme.LIGHT, "radius", "font", "mono", "q-primary", "q-negative"}
    used = set(re.findall(r"var\(--([\w-]+)\)", theme.CSS))
    assert {name for name in used if not re.fullmatch(r"[st]\d+", name)} <= known


def test_no_colour_stands_outside_the_theme():
    folder = Path(dspyui.ui.__file__).parent
    for file in folder.rglob("*.py"):
        if file.name != "theme.py":
            assert not re.search(r"#[0-9a-fA-F]{6}\b|rgba?\(", file.read_text(encoding="utf-8")), file


def test_the_login_page_has_the_colours_of_the_others():
    light, dark = login._STYLE.split("@media", 1)
    for style, tokens in ((light, theme.LIGHT), (dark, theme.DARK)):
        for name, token in (
            ("ink", "ink"), ("paper", "page"), ("card", "surface"), ("line", "line-strong"), ("edge", "line"),
            ("accent", "accent"), ("bad", "bad"),
        ):  # fmt: skip
            assert f"--{name}: {tokens[token]};" in style
