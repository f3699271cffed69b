"""How many calls to language models there may be: at once, and in a minute."""

import threading
import time
from collections.abc import Callable
from typing import Final

_MINUTE: Final = 60.0
# The longest that nobody calls after one refusal that named no time, in seconds.
LONGEST_PAUSE: Final = 60.0


class Bucket:
    """Lets at most `limit` units through in any 60 seconds, evenly but for a first burst of one second's worth.

    Not thread-safe. `take` may overdraw: the debt is paid off before the next unit goes through.
    """

    def __init__(self, limit: float, now: float) -> None:
        self._capacity = max(1.0, limit / _MINUTE)
        # What is in the bucket when a window begins counts in that window too.
        self._rate = max(limit - self._capacity, limit / 2) / _MINUTE
        self._level = self._capacity
        self._at = now

    def wait(self, now: float) -> float:
        """Seconds until a unit may go through; 0.0 for at once."""
        self._fill(now)
        needed = min(1.0, self._capacity)
        return 0.0 if self._level >= needed else (needed - self._level) / self._rate

    def take(self, units: float) -> None:
        """Let so many through; a negative number gives back what was taken too much."""
        self._level = min(self._capacity, self._level - units)

    def _fill(self, now: float) -> None:
        self._level = min(self._capacity, self._level + (now - self._at) * self._rate)
        self._at = now


class GateClosedError(Exception):
    """The work is given up: no further call is made."""


class CallLimiter:
    """Holds back calls to language models. Thread-safe.

    `concurrency` calls at once; `requests` and `tokens` in any minute. A call's tokens are estimated when it starts
    and corrected when it ends. A refusal (429) holds back everybody for as long as the server asked, and each further
    one, without an answer between, for twice as long as the one before; so one call finds out, not all of them.
    """

    def __init__(
        self,
        concurrency: int,
        *,
        requests: int | None = None,
        tokens: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._free = concurrency
        self._requests = Bucket(requests, clock()) if requests else None
        self._tokens = Bucket(tokens, clock()) if tokens else None
        self._paused_until = 0.0
        self._refusals = 0
        self._closed = False

    def enter(self, tokens: int) -> None:
        """Wait until a call of about so many tokens may start. Raises GateClosedError after `close`."""
        with self._changed:
            while (seconds := self._wait()) != 0.0:
                self._changed.wait(seconds)
            if self._closed:
                raise GateClosedError
            self._free -= 1
            for bucket, units in ((self._requests, 1), (self._tokens, tokens)):
                if bucket is not None:
                    bucket.take(units)

    def leave(self, estimated: int, tokens: int | None) -> None:
        """A call has ended; `tokens` is what it took, None when it failed."""
        with self._changed:
            self._free += 1
            if tokens is not None:
                self._refusals = 0
                if self._tokens is not None:
                    self._tokens.take(tokens - estimated)
            self._changed.notify_all()

    def refused(self, seconds: float | None) -> None:
        """The server was asked too often; `seconds` is how long it wants to be left alone, None if it did not say."""
        with self._changed:
            now = self._clock()
            # The others that were under way are refused with the first one; that is one refusal.
            if now >= self._paused_until:
                self._refusals += 1
            grown = min(LONGEST_PAUSE, 0.5 * 2 ** min(self._refusals, 8))
            self._paused_until = max(self._paused_until, now + max(seconds or 0.0, grown))

    def close(self) -> None:
        """Let nobody through any more; whoever waits is told at once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _wait(self) -> float | None:
        """Seconds to wait before another look; None until something changes, 0.0 when there is no need."""
        if self._closed:
            return 0.0
        if self._free <= 0:
            return None
        now = self._clock()
        waits = [bucket.wait(now) for bucket in (self._requests, self._tokens) if bucket is not None]
        return max(0.0, self._paused_until - now, *waits)
