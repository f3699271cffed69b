"""PostgreSQL as machines share it: its tables, its clock, and who is alive.

A process that works holds an advisory lock on a connection of its own. PostgreSQL lets go of it when that process or
its machine dies, so nobody's clock is asked and no heartbeat is written. Connections must not be shared by a pooler
that switches them between transactions.
"""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Final

from pydantic import SecretStr
from sqlalchemy import URL, Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import NullPool

from dspyui.errors import BadRequestError, FailedError, UnavailableError

# The layout of the tables; one that is newer belongs to a newer DSPyUI.
LAYOUT: Final = 1
# A machine that has vanished without a word is found out after some 20 seconds, here and at the server.
_CONNECT: Final = {
    "connect_timeout": 5,
    "application_name": "dspyui",
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    # Keepalives find out an idle connection, this one that waits for something to arrive. In milliseconds.
    "tcp_user_timeout": 20_000,
    "options": "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
    " -c tcp_user_timeout=20000",
}
# Calls wait in this process for their turn, not in the database with a connection each.
_POOL: Final = {"pool_size": 4, "max_overflow": 12}
_MAKE_KEY: Final = 0x0D5B_AB1E

# `alive` holds the keys of the advisory locks that are held in this database.
_TABLES: Final = """
create schema if not exists dspyui;
create table if not exists dspyui.layout (number int primary key);
create table if not exists dspyui.batches (
  id text primary key, document text not null, host bigint not null, created timestamptz not null default now(),
  at double precision not null, requests double precision, tokens double precision,
  paused_until double precision not null default 0, refusals int not null default 0
);
create table if not exists dspyui.helpers (
  batch text not null references dspyui.batches on delete cascade, worker bigint not null, name text not null,
  asked timestamptz not null, primary key (batch, worker)
);
create table if not exists dspyui.chunks (
  batch text not null references dspyui.batches on delete cascade, number int not null, rows text not null,
  worker bigint, slot int, claim text, done boolean not null default false,
  primary key (batch, number)
);
create table if not exists dspyui.answers (
  batch text not null, chunk int not null, index bigint not null, document text not null,
  kept boolean not null default false,
  primary key (batch, index),
  foreign key (batch, chunk) references dspyui.chunks on delete cascade
);
create index if not exists answers_new on dspyui.answers (batch) where not kept;
create or replace view dspyui.alive as
  select (l.classid::bigint << 32) | l.objid::bigint as key from pg_locks l
  where l.locktype = 'advisory' and l.objsubid = 1 and l.granted
    and l.database = (select oid from pg_database where datname = current_database());
"""


def lease_key(name: str) -> int:
    """The key of a lock, from a name: 62 bits, so that it is positive wherever it is computed with."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) >> 2


class Database:
    """The tables and connections. Nothing is connected before it is asked for. Thread-safe."""

    def __init__(self, url: SecretStr) -> None:
        """Raises BadRequestError for what is no address of a PostgreSQL."""
        self._url = _with_driver(url.get_secret_value())
        self._lock = threading.Lock()
        self._pool: Engine | None = None

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction. Raises UnavailableError, and FailedError when the database refuses what is asked of it."""
        with mapped(self._url):
            pool = self._made()
            with pool.begin() as connection:
                yield connection

    def connect_alone(self) -> Connection:
        """A connection of one's own, outside the pool, each statement for itself. Raises UnavailableError."""
        with mapped(self._url):
            alone = create_engine(self._url, connect_args=_CONNECT, poolclass=NullPool)
            return alone.connect().execution_options(isolation_level="AUTOCOMMIT")

    def mapped(self) -> AbstractContextManager[None]:
        """Foreign errors become UnavailableError inside."""
        return mapped(self._url)

    def close(self) -> None:
        """Let go of all connections."""
        with self._lock:
            if self._pool is not None:
                self._pool.dispose()
                self._pool = None

    def _made(self) -> Engine:
        with self._lock:
            if self._pool is None:
                pool = create_engine(self._url, connect_args=_CONNECT, pool_pre_ping=True, **_POOL)
                try:
                    _make_tables(pool)
                except BaseException:
                    pool.dispose()
                    raise
                self._pool = pool
            return self._pool


def _with_driver(address: str) -> URL:
    """The address with the driver that we bring. Raises BadRequestError for one that cannot be read."""
    try:
        return make_url(address).set(drivername="postgresql+psycopg")
    except ArgumentError as exc:
        raise BadRequestError("settings.database_url") from exc


def _make_tables(pool: Engine) -> None:
    with pool.begin() as connection:
        # Made once, and by their owner: where they are, nothing of others is locked, and no more right is needed.
        if connection.execute(text("select to_regclass('dspyui.layout')")).scalar() is not None:
            _check_layout(connection)
            return
        # Two who start at once would both find nothing there.
        connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _MAKE_KEY})
        for statement in _TABLES.strip().split(";\n"):
            connection.execute(text(statement))
        statement = "insert into dspyui.layout values (:number) on conflict do nothing"
        connection.execute(text(statement), {"number": LAYOUT})
        _check_layout(connection)


def _check_layout(connection: Connection) -> None:
    found = connection.execute(text("select max(number) from dspyui.layout")).scalar()
    if found != LAYOUT:
        raise FailedError("sharing.layout", found=found, known=LAYOUT)


@contextmanager
def mapped(url: URL) -> Iterator[None]:
    """Foreign errors become ours, with PostgreSQL's own words and no password.

    UnavailableError when it does not answer, and asking again may help; FailedError when it refuses.
    """
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeoutError, OSError) as exc:
        raise UnavailableError("sharing.database", **_said(url, exc)) from exc
    except SQLAlchemyError as exc:
        raise FailedError("sharing.refused", **_said(url, exc)) from exc


def _said(url: URL, exc: Exception) -> dict[str, str]:
    cause = getattr(exc, "orig", None) or exc
    words = str(cause).strip().splitlines()
    problem = words[0] if words else type(cause).__name__
    return {"address": url.render_as_string(hide_password=True), "problem": problem}


class Lease:
    """A held advisory lock: who has it is alive. Thread-safe."""

    def __init__(self, database: Database, key: int) -> None:
        self.key = key
        self._database = database
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def renew(self) -> bool:
        """Hold it, also after the connection was lost; False when somebody else does. Raises UnavailableError."""
        with self._lock, self._database.mapped():
            if self._connection is not None and self._is_held(self._connection):
                return True
            self._drop()
            connection = self._database.connect_alone()
            self._connection = connection
            taken = connection.execute(text("select pg_try_advisory_lock(:key)"), {"key": self.key}).scalar()
            if not taken:
                self._drop()
            return bool(taken)

    def release(self) -> None:
        """Let go of it; the others see that at once."""
        with self._lock:
            if self._connection is not None:
                with suppress(SQLAlchemyError):
                    self._connection.execute(text("select pg_advisory_unlock(:key)"), {"key": self.key})
            self._drop()

    @staticmethod
    def _is_held(connection: Connection) -> bool:
        try:
            connection.execute(text("select 1"))
        except SQLAlchemyError:
            return False
        return True

    def _drop(self) -> None:
        if self._connection is not None:
            with suppress(SQLAlchemyError):
                self._connection.close()
            self._connection = None
