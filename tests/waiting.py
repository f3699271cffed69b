"""Waiting for a condition, with a bound that only a hang reaches."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import psutil


def wait_until(condition: Callable[[], object], *, seconds: float = 60.0) -> None:
    """Return once the condition is true. Raises AssertionError after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.02)


def has_ended(process: psutil.Process) -> bool:
    """Whether it is gone, or a zombie that nobody has fetched: in a container, who inherits it may never do so."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_ended(processes: Iterable[psutil.Process]) -> None:
    """Return once every one of them has ended. Raises AssertionError when one goes on."""
    left = list(processes)
    wait_until(lambda: all(has_ended(process) for process in left))


def close_before_the_clear(service: Any) -> None:
    """Have a sender closed right before it takes back that it was woken; to sleep then is an error."""
    clear = service._wake.clear

    def closed_first() -> None:
        service.close()
        clear()

    def sleep(_seconds: float) -> None:
        raise AssertionError("it sleeps, and nobody will wake it")

    service._wake.clear, service._wake.wait = closed_first, sleep
