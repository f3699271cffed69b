"""What several benchmarks need."""

import socket
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any


def say(line: str) -> None:
    """A line of progress."""
    print(line, file=sys.stderr, flush=True)


def free_port() -> int:
    """A port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def write(connection: Any, tables: Any, name: str, rows: Iterator[dict[str, Any]]) -> None:
    """Insert rows, 20,000 at a time; columns that a row does not name get nothing."""
    table = tables.tables[name]
    count = 0
    while batch := list(islice(rows, 20_000)):
        given = [{key: value for key, value in row.items() if key in table.c} for row in batch]
        connection.execute(table.insert(), given)
        count += len(batch)
    say(f"{name}: {count:,} rows")
