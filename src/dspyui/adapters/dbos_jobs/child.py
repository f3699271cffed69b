"""What a child process does so that it never outlives its parent. Imports nothing heavy."""

import os
import signal
import threading
from collections.abc import Iterator
from queue import SimpleQueue

_STDIN = 0
_CHUNK = 65536


def die_with_parent() -> None:
    """Kill this process's whole group as soon as its stdin closes, which it does when the parent dies.

    The parent keeps the other end of the pipe open and never writes. Unlike a signal on the parent's death this
    reaches grandchildren too. Call it first thing in a child that was started in a session of its own.
    """
    threading.Thread(target=_watch, name="die-with-parent", daemon=True).start()


def lines_from_parent() -> Iterator[str]:
    """What the parent writes, line by line, without end: from now on the whole group is killed when stdin closes."""
    lines: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_read, args=(lines,), name="lines-from-parent", daemon=True).start()
    return iter(lines.get, None)


def _watch() -> None:
    try:
        while os.read(_STDIN, _CHUNK):
            pass
    finally:
        _kill_group()


def _read(lines: "SimpleQueue[str]") -> None:
    held = bytearray()
    try:
        while chunk := os.read(_STDIN, _CHUNK):
            *whole, rest = chunk.split(b"\n")
            for part in whole:
                held += part
                lines.put(held.decode())
                held.clear()
            held += rest
    finally:
        _kill_group()


def _kill_group() -> None:
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
