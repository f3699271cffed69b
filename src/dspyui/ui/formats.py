"""How figures, times and sizes are written. Pure; every page uses these and no other."""

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dspyui.i18n import Text


def score(value: float | None) -> str:
    """A score, 0.00 to 1.00; a dash when there is none."""
    return "–" if value is None else f"{value:.2f}"


def signed(value: float) -> str:
    """A difference with its sign; zero has none. The minus is a real one (U+2212)."""
    text = f"{abs(value):.2f}"
    if text == "0.00":
        return text
    return f"+{text}" if value > 0 else f"−{text}"


def between(low: float, high: float) -> str:
    """Bounds of a difference, with their signs. No line ends inside it: the spaces are no-break ones."""
    return f"{signed(low)}\u00a0…\u00a0{signed(high)}"


def count(value: int) -> str:
    """A whole number with thousands apart."""
    return f"{value:,}"


def about(value: int) -> str:
    """A whole number that is only an estimate: two figures of it, thousands apart."""
    digits = max(0, len(str(abs(value))) - 2)
    return f"{round(value, -digits):,}"


def cost(dollars: float | None) -> str:
    """US dollars, small amounts to two figures; a dash when it is not known."""
    if dollars is None:
        return "–"
    if dollars == 0 or dollars >= 1:
        return f"${dollars:,.2f}"
    return "<$0.0001" if dollars < 0.0001 else f"${dollars:.2g}"


def price(dollars: float) -> str:
    """US dollars for a million tokens, to the cent unless it is less than ten."""
    return f"${dollars:,.2f}" if dollars >= 0.1 else cost(dollars)


def duration(seconds: float | None, text: Text) -> str:
    """`0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`; a dash when there is none."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return text("ui.format.seconds", seconds=f"{max(seconds, 0):.1f}")
    whole = round(seconds)
    if whole < 60:
        return text("ui.format.seconds", seconds=whole)
    if whole < 3600:
        return text("ui.format.minutes", minutes=whole // 60, seconds=f"{whole % 60:02d}")
    return text("ui.format.hours", hours=whole // 3600, minutes=whole % 3600 // 60)


# Enough of a fingerprint to tell two apart at a glance.
_FINGERPRINT = 12


def fingerprint(digest: str) -> str:
    """The beginning of a SHA-256, the same length on every page."""
    return digest[:_FINGERPRINT]


def size(count_bytes: int) -> str:
    """Bytes as `812 B`, `4.2 kB`, `1.3 GB` (powers of 1000)."""
    amount = float(count_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError


def zone(name: str | None) -> tzinfo | None:
    """The visitor's time zone by its IANA name; None (this machine's own) when it is unknown."""
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def minutes_to_utc() -> int:
    """How far UTC is ahead of this machine's time now, in minutes, as JavaScript's `getTimezoneOffset` tells it."""
    offset = datetime.now().astimezone().utcoffset()
    return 0 if offset is None else -round(offset.total_seconds() / 60)


def moment(at: datetime, where: tzinfo | None, *, now: datetime | None = None) -> str:
    """A local time: the hour for today, with the date otherwise, with the year when it is another one."""
    local = at.astimezone(where)
    today = (now or datetime.now(UTC)).astimezone(where)
    if local.date() == today.date():
        return f"{local:%H:%M}"
    return f"{local:%m-%d %H:%M}" if local.year == today.year else f"{local:%Y-%m-%d %H:%M}"


def exact_moment(at: datetime, where: tzinfo | None) -> str:
    """The same to the second, with the offset."""
    return f"{at.astimezone(where):%Y-%m-%d %H:%M:%S %z}"
