"""What several benchmarks need."""

import socket
import sys


def say(line: str) -> None:
    """A line of progress."""
    print(line, file=sys.stderr, flush=True)


def free_port() -> int:
    """A port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
