"""Ending processes together with all they have started."""

import os
import signal
import subprocess
from contextlib import suppress

import psutil


def has_ended(pid: int) -> bool:
    """Whether a child of ours has ended; it may still wait to be reaped."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """Kill a child that leads a session: its group, and descendants that have left the group.

    Does nothing to a child that was reaped already, for its id may be another's by now.
    """
    if process.returncode is not None:
        return
    strays: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        strays = psutil.Process(process.pid).children(recursive=True)
    # A group of which only a zombie is left is "not permitted" on some systems.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for stray in strays:
        with suppress(psutil.NoSuchProcess):
            stray.kill()
