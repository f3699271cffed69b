"""Language of a visitor: the order of design.md §3.8."""

import pytest

from dspyui.ui.visitor import choose_language


@pytest.mark.parametrize(
    ("asked", "stored", "setting", "accepted", "chosen"),
    [
        ("en", "zh_CN", "zh_CN", "zh", "en_US"),
        (None, "en_US", "zh_CN", "zh", "en_US"),
        (None, None, "en_US", "zh", "en_US"),
        (None, None, None, "en-GB,en;q=0.9", "en_US"),
        (None, None, None, "zh-TW,en;q=0.9", "zh_CN"),
        (None, None, None, "fr", "zh_CN"),
        (None, None, None, None, "zh_CN"),
        ("fr", "klingon", None, "en", "en_US"),
    ],
)
def test_the_first_that_is_known_wins(asked, stored, setting, accepted, chosen):
    assert choose_language(asked, stored, setting, accepted) == chosen
