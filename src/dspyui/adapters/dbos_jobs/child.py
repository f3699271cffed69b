"""What a child process does so that it never outlives its parent. Imports nothing heavy."""

import os
import signal
import threading

_STDIN = 0


def die_with_parent() -> None:
    """Kill this process's whole group as soon as its stdin closes, which it does when the parent dies.

    The parent keeps the other end of the pipe open and never writes. Unlike a signal on the parent's death this
    reaches grandchildren too. Call it first thing in a child that was started in a session of its own.
    """
    threading.Thread(target=_watch, name="die-with-parent", daemon=True).start()


def _watch() -> None:
    try:
        while os.read(_STDIN, 4096):
            pass
    finally:
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpgrp(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
