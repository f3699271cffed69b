"""What waits on disk for MLflow, and goes there in the background: now, when it is woken, and when MLflow is back."""

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from dspyui.domain.runs import TrackingServer
from dspyui.settings import Settings

# How soon what could not be sent is tried again, in seconds: it doubles from the first to the second.
FIRST_DELAY, LONGEST_DELAY = 1.0, 30.0
# At the end, what can be sent in so many seconds still is; the rest goes with the next start.
FLUSH_SECONDS, CLOSE_SECONDS = 5.0, 10.0
Stop = Callable[[], bool]
_log = logging.getLogger(__name__)


class Sender(ABC):
    """A thread that sends. A server that is away delays what waits and loses none of it."""

    def __init__(self, settings: Settings, tracking: TrackingServer, *, name: str) -> None:
        """`name` is the thread's."""
        self._settings = settings
        self._tracking = tracking
        self._name = name
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._flush_until = 0.0

    def start(self) -> None:
        """Send in the background whatever waits, now and whenever something new does."""
        if self._settings.mlflow_enabled and self._thread is None:
            self._thread = threading.Thread(target=self._loop, name=self._name, daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """Look at once, not at the next turn: something new waits."""
        self._wake.set()

    def begin_close(self) -> None:
        """Send for a few seconds more what waits, if the server is there; the rest is sent by the next start."""
        if not self._closing.is_set():
            self._flush_until = time.monotonic() + FLUSH_SECONDS
            self._closing.set()
            self._wake.set()

    def close(self) -> None:
        """The same, and wait for the end of it."""
        self.begin_close()
        if self._thread is not None:
            self._thread.join(timeout=CLOSE_SECONDS)

    def _is_over(self) -> bool:
        return self._closing.is_set() and time.monotonic() > self._flush_until

    def _loop(self) -> None:
        delay = FIRST_DELAY
        while True:
            self._wake.clear()
            # After the clear: a close that comes in between has set it, and must not be slept over.
            if self._closing.is_set():
                break
            delay = FIRST_DELAY if self._turn() else min(delay * 2, LONGEST_DELAY)
            # While the server comes up or is away, its own watcher knows first; looking often costs nothing.
            self._wake.wait(FIRST_DELAY if self._tracking.state().status != "ready" else delay)
        # What the last ones have left when they were stopped.
        self._turn()

    def _turn(self) -> bool:
        """Whether everything that could be tried went well."""
        if self._tracking.state().status != "ready":
            return True
        try:
            return self._send_pending()
        except Exception:  # noqa: BLE001 - a sender that ends would leave all that comes later waiting without a word
            _log.exception("The %s met a surprise and tries again", self._name)
            return False

    @abstractmethod
    def _send_pending(self) -> bool:
        """Send what waits until `_is_over`; whether all that could be tried went well."""
