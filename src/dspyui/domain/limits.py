"""How many calls to language models there may be: at once, and in a minute."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_MINUTE: Final = 60.0
# The longest that nobody calls after one refusal that named no time, in seconds.
LONGEST_PAUSE: Final = 60.0


class Bucket:
    """Lets at most `limit` units through in any 60 seconds, evenly but for a first burst of one second's worth.

    Not thread-safe. `take` may overdraw: the debt is paid off before the next unit goes through.
    """

    def __init__(self, limit: float, now: float, level: float | None = None) -> None:
        self._capacity = max(1.0, limit / _MINUTE)
        # What is in the bucket when a window begins counts in that window too.
        self._rate = max(limit - self._capacity, limit / 2) / _MINUTE
        self._level = self._capacity if level is None else level
        self._at = now

    def wait(self, now: float) -> float:
        """Seconds until a unit may go through; 0.0 for at once."""
        needed = min(1.0, self._capacity)
        level = self.level(now)
        return 0.0 if level >= needed else (needed - level) / self._rate

    def take(self, units: float) -> None:
        """Let so many through; a negative number gives back what was taken too much."""
        self._level = min(self._capacity, self._level - units)

    def level(self, now: float) -> float:
        """What is in it."""
        self._level = min(self._capacity, self._level + (now - self._at) * self._rate)
        self._at = now
        return self._level


@dataclass(frozen=True, slots=True)
class PaceState:
    """A pace as data, at a moment of its clock in seconds. A level is None where there is no limit, or no call yet."""

    at: float
    requests: float | None = None
    tokens: float | None = None
    paused_until: float = 0.0
    refusals: int = 0


class Pace:
    """The pace of calls to a model: two limits a minute, and a pause after a refusal. Not thread-safe.

    A call's tokens are estimated when it starts and corrected when it ends. A refusal (429) holds back everybody for
    as long as the server asked, and each further one, without an answer between, for twice as long as the one before;
    so one call finds out, not all of them.
    """

    def __init__(self, requests: int | None, tokens: int | None, state: PaceState) -> None:
        self._requests = Bucket(requests, state.at, state.requests) if requests else None
        self._tokens = Bucket(tokens, state.at, state.tokens) if tokens else None
        self._paused_until = state.paused_until
        self._refusals = state.refusals

    def state(self, now: float) -> PaceState:
        """As data."""
        requests, tokens = (
            None if bucket is None else bucket.level(now) for bucket in (self._requests, self._tokens)
        )
        return PaceState(now, requests, tokens, self._paused_until, self._refusals)

    def wait(self, now: float) -> float:
        """Seconds until a call may start; 0.0 for at once."""
        waits = [bucket.wait(now) for bucket in (self._requests, self._tokens) if bucket is not None]
        return max(0.0, self._paused_until - now, *waits)

    def start(self, tokens: int) -> None:
        """A call of about so many tokens starts."""
        for bucket, units in ((self._requests, 1), (self._tokens, tokens)):
            if bucket is not None:
                bucket.take(units)

    def end(self, estimated: int, tokens: int) -> None:
        """A call was answered; `tokens` is what it took."""
        self._refusals = 0
        if self._tokens is not None:
            self._tokens.take(tokens - estimated)

    def refuse(self, now: float, seconds: float | None) -> None:
        """The server was asked too often; `seconds` is how long it wants to be left alone, None if it did not say."""
        # The others that were under way are refused with the first one; that is one refusal.
        if now >= self._paused_until:
            self._refusals += 1
        grown = min(LONGEST_PAUSE, 0.5 * 2 ** min(self._refusals, 8))
        self._paused_until = max(self._paused_until, now + max(seconds or 0.0, grown))


class GateClosedError(Exception):
    """The work is given up: no further call is made."""


class CallLimiter:
    """Holds back calls to language models: so many at once, and their pace. Thread-safe."""

    def __init__(
        self,
        concurrency: int,
        *,
        requests: int | None = None,
        tokens: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`requests` and `tokens` are those of any minute."""
        self._clock = clock
        self._changed = threading.Condition()
        self._free = concurrency
        self._pace = Pace(requests, tokens, PaceState(clock()))
        self._closed = False

    def enter(self, tokens: int) -> None:
        """Wait until a call of about so many tokens may start. Raises GateClosedError after `close`."""
        with self._changed:
            while (seconds := self._wait()) != 0.0:
                self._changed.wait(seconds)
            if self._closed:
                raise GateClosedError
            self._free -= 1
            self._pace.start(tokens)

    def leave(self, estimated: int, tokens: int | None) -> None:
        """A call has ended; `tokens` is what it took, None when it failed."""
        with self._changed:
            self._free += 1
            if tokens is not None:
                self._pace.end(estimated, tokens)
            self._changed.notify_all()

    def refused(self, seconds: float | None) -> None:
        """The server was asked too often; `seconds` is how long it wants to be left alone, None if it did not say."""
        with self._changed:
            self._pace.refuse(self._clock(), seconds)

    def close(self) -> None:
        """Let nobody through any more; whoever waits is told at once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _wait(self) -> float | None:
        """Seconds to wait before another look; None until something changes, 0.0 when there is no need."""
        if self._closed:
            return 0.0
        return None if self._free <= 0 else self._pace.wait(self._clock())
