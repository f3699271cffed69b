"""How figures and times are written."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from dspyui.i18n import Text
from dspyui.ui import formats

EN = Text("en_US")


@pytest.mark.parametrize(("value", "said"), [(None, "–"), (0.0, "0.00"), (0.916, "0.92"), (1.0, "1.00")])
def test_scores_have_two_digits(value, said):
    assert formats.score(value) == said


@pytest.mark.parametrize(
    ("value", "said"), [(0.724, "+0.72"), (-0.5, "−0.50"), (0.0, "0.00"), (-0.001, "0.00")]
)
def test_a_difference_carries_its_sign_and_zero_has_none(value, said):
    assert formats.signed(value) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "–"),
        (0.42, "0.4 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (113, "1 min 53 s"),
        (7300, "2 h 1 min"),
    ],
)
def test_durations(seconds, said):
    assert formats.duration(seconds, EN) == said


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2_000_000_000_000, "2000.0 GB")]
)
def test_sizes(count, said):
    assert formats.size(count) == said


def test_times_are_the_visitors_and_as_short_as_they_may_be():
    shanghai = ZoneInfo("Asia/Shanghai")
    at = datetime(2026, 11, 23, 20, 30, tzinfo=UTC)
    assert formats.moment(at, shanghai, now=datetime(2026, 11, 23, 22, 0, tzinfo=UTC)) == "04:30"
    assert formats.moment(at, shanghai, now=datetime(2026, 11, 25, 22, 0, tzinfo=UTC)) == "11-24 04:30"
    assert formats.moment(at, shanghai, now=datetime(2027, 11, 25, 22, 0, tzinfo=UTC)) == "2026-11-24 04:30"
    assert formats.exact_moment(at, shanghai) == "2026-11-24 04:30:00 +0800"


def test_an_interval_stays_on_one_line():
    assert formats.between(-0.1, 0.25).split(" ") == ["−0.10\u00a0…\u00a0+0.25"]


@pytest.mark.parametrize("name", [None, "", "Nowhere/Atlantis", "../../etc/passwd", "x" * 300])
def test_an_unknown_time_zone_means_this_machines_own(name):
    assert formats.zone(name) is None


def test_estimates_and_prices_are_no_more_exact_than_they_are():
    assert [formats.about(value) for value in (0, 7, 94, 1234, 86_499)] == ["0", "7", "94", "1,200", "86,000"]
    assert [formats.price(value) for value in (0.4, 15.0, 0.05, 0.0)] == ["$0.40", "$15.00", "$0.05", "$0.00"]
