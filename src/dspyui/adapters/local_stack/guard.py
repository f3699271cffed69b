"""Runs a command that never outlives whoever started it: `python -m dspyui.adapters.local_stack.guard COMMAND…`.

The guard leads a session of its own, with the command in its process group. When its stdin closes (the one who
started it is gone, in whatever way) or it is told to stop, the whole group is asked to end and, some seconds later,
made to. Imports the standard library alone: it starts in tens of milliseconds and stays small.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence

# How long the command may take to end when asked, in seconds.
GRACE_SECONDS = 5.0
_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1


def main(command: Sequence[str]) -> None:
    """Run the command until it ends or must end; then end its whole group, this process with it."""
    if os.getpgrp() != os.getpid():
        os.setsid()
    woken = _wake_on_signals()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_end_with_parent)  # noqa: PLW1509 - one thread
    _wait(child, woken)
    _end_group(child)


def _wake_on_signals() -> int:
    """Make the signals that matter readable from the returned descriptor; none of them ends the guard."""
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    for number in (*_STOP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    return woken


def _end_with_parent() -> None:
    """Linux only, for the case that the guard itself is killed: the command gets SIGTERM."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait(child: "subprocess.Popen[bytes]", woken: int) -> None:
    """Return when the command has ended, stdin has closed, or a stop was asked for."""
    while child.poll() is None:
        readable, _, _ = select.select([0, woken], [], [])
        if woken in readable and set(os.read(woken, 64)) & set(_STOP):
            return
        if 0 in readable and not os.read(0, 64):
            return


def _end_group(child: "subprocess.Popen[bytes]") -> None:
    os.killpg(0, signal.SIGTERM)
    try:
        child.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        print("The command did not end when asked; it is killed.", file=sys.stderr)  # noqa: T201 - stderr is the log
    print(f"Ended with code {child.returncode}.", file=sys.stderr, flush=True)  # noqa: T201 - stderr is the log
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
