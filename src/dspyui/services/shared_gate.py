"""The gate before the calls to a model that several machines make: one pace for all of them."""

import threading
import time
from typing import Final

from dspyui.domain.limits import GateClosedError, Pace, PaceState
from dspyui.domain.sharing import PaceChange, SharedBatch, WorkerSeat
from dspyui.errors import UnavailableError

# How long a call waits at most before it looks again, in seconds: the others' calls change what it waits for.
_LOOK_SECONDS: Final = 1.0


class SharedGate:
    """Implements `domain.engine.CallGate` over the database of a shared batch.

    With a limit every call asks the database before it starts, and waits while the database is away. Without one only
    the pauses are shared: `refresh` reads them.
    """

    def __init__(self, seat: WorkerSeat, batch: SharedBatch) -> None:
        spec = batch.spec
        self._seat = seat
        self._batch_id = batch.id
        self._limits = (spec.requests_per_minute, spec.tokens_per_minute)
        self._closed = threading.Event()
        # One of this process's calls at a time asks the database, not each of them over a connection of its own.
        self._asking = threading.Lock()
        # When a pause ends, by this process's own clock.
        self._paused_until = 0.0
        self._refusals = 0

    def enter(self, tokens: int) -> None:
        """Wait until a call of about so many tokens may start. Raises GateClosedError after `close`."""
        while not self._closed.is_set():
            wait = self._attempt(tokens) if any(self._limits) else self._paused_until - time.monotonic()
            if wait <= 0:
                return
            self._closed.wait(min(wait, _LOOK_SECONDS))
        raise GateClosedError

    def leave(self, estimated: int, tokens: int | None) -> None:
        """A call has ended; `tokens` is what it took, None when it failed."""
        if tokens is None or not (self._limits[1] or self._refusals):
            return

        def end(state: PaceState, now: float) -> PaceState:
            pace = Pace(*self._limits, state)
            pace.end(estimated, tokens)
            return pace.state(now)

        self._change(end)

    def refused(self, seconds: float | None) -> None:
        """The server was asked too often; `seconds` is how long it wants to be left alone, None if it did not say."""

        def refuse(state: PaceState, now: float) -> PaceState:
            pace = Pace(*self._limits, state)
            pace.refuse(now, seconds)
            return pace.state(now)

        if self._change(refuse) is None:
            # Nobody else can be told; at least this process holds back.
            self._paused_until = max(self._paused_until, time.monotonic() + (seconds or _LOOK_SECONDS))

    def refresh(self) -> None:
        """See what the other machines' calls have met with. Raises UnavailableError."""
        if not any(self._limits):
            self._note(self._seat.pace(self._batch_id, lambda state, now: Pace(None, None, state).state(now)))

    def close(self) -> None:
        """Let nobody through any more; whoever waits is told at once."""
        self._closed.set()

    def _attempt(self, tokens: int) -> float:
        """Start the call if it may; else the seconds until another attempt."""
        wait = 0.0

        def start(state: PaceState, now: float) -> PaceState:
            nonlocal wait
            pace = Pace(*self._limits, state)
            wait = pace.wait(now)
            if wait <= 0:
                pace.start(tokens)
            return pace.state(now)

        return _LOOK_SECONDS if self._change(start) is None else wait

    def _change(self, change: PaceChange) -> PaceState | None:
        """The new pace; None when it cannot be changed now."""
        try:
            with self._asking:
                return self._note(self._seat.pace(self._batch_id, change))
        except UnavailableError:
            return None

    def _note(self, state: PaceState | None) -> PaceState | None:
        if state is not None:
            self._refusals = state.refusals
            self._paused_until = time.monotonic() + max(0.0, state.paused_until - state.at)
        return state
