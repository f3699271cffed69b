"""Batches that machines share over PostgreSQL."""

import json
import secrets
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Final

from pydantic import SecretStr
from sqlalchemy import Connection, text

from dspyui.adapters.shared_batches.database import Database, Lease, lease_key
from dspyui.domain.limits import PaceState
from dspyui.domain.sharing import Answer, Chunk, PaceChange, SharedBatch, SharedRow
from dspyui.errors import ConflictError

# A host that died a moment ago may still be held for alive, when its whole machine went.
_HOST_SECONDS: Final = 30.0
# A helper that has not asked for so long, and has nothing, is busy with another batch.
_IDLE_SECONDS: Final = 5.0
# A batch whose job was deleted while the database was away, or whose machine never came back.
_REMOVE: Final = "delete from dspyui.batches where id = :batch"
_REMOVE_OLD: Final = """
  delete from dspyui.batches
  where created < now() - interval '30 days' and host not in (select key from dspyui.alive)
"""


class PostgresBoard:
    """Implements `domain.sharing.BatchBoard`."""

    def __init__(self, url: SecretStr) -> None:
        """Connects to nothing yet. Raises BadRequestError for what is no address of a PostgreSQL."""
        self._database = Database(url)

    @contextmanager
    def host(self, batch: SharedBatch) -> Iterator["PostgresHost"]:
        """See the protocol."""
        lease = Lease(self._database, lease_key(f"host {batch.id}"))
        end = time.monotonic() + _HOST_SECONDS
        while not lease.renew():
            if time.monotonic() > end:
                raise ConflictError("sharing.hosted", job_id=batch.id)
            time.sleep(0.2)
        try:
            seat = PostgresHost(self._database, lease, batch)
            seat.offer()
            yield seat
        finally:
            lease.release()

    @contextmanager
    def work(self, name: str) -> Iterator["PostgresWorker"]:
        """See the protocol."""
        with self._database.begin():
            pass  # what is wrong with the tables is said now, not when there is work
        lease = Lease(self._database, secrets.randbits(62))
        lease.renew()
        try:
            yield PostgresWorker(self._database, lease, name)
        finally:
            lease.release()

    def forget(self, batch_id: str) -> None:
        """See the protocol."""
        with self._database.begin() as connection:
            connection.execute(text(_REMOVE), {"batch": batch_id})

    def close(self) -> None:
        """Let go of all connections."""
        self._database.close()


class PostgresHost:
    """Implements `domain.sharing.HostSeat`."""

    def __init__(self, database: Database, lease: Lease, batch: SharedBatch) -> None:
        self._database = database
        self._lease = lease
        self._batch = batch
        self._next = 0

    def offer(self) -> None:
        """Put the batch there, unless an earlier attempt has."""
        with self._database.begin() as connection:
            connection.execute(
                text(
                    "insert into dspyui.batches (id, document, host, at)"
                    " values (:batch, :document, :host, extract(epoch from clock_timestamp()))"
                    " on conflict (id) do update set document = :document, host = :host"
                ),
                self._with(document=self._batch.model_dump_json(), host=self._lease.key),
            )
            connection.execute(text(_REMOVE_OLD))
            last = connection.execute(
                text("select max(number) from dspyui.chunks where batch = :batch"), self._with()
            ).scalar()
        self._next = 0 if last is None else last + 1

    def outstanding(self) -> Mapping[int, bytes]:
        """See the protocol."""
        with self._database.begin() as connection:
            chunks = connection.execute(
                text("select rows from dspyui.chunks where batch = :batch"), self._with()
            ).scalars()
            rows = [row for chunk in chunks for row in _rows(chunk)]
            kept = set(
                connection.execute(
                    text("select index from dspyui.answers where batch = :batch and kept"), self._with()
                ).scalars()
            )
        return {row.index: bytes.fromhex(row.key) for row in rows if row.index not in kept}

    def hand_out(self, rows: Sequence[SharedRow]) -> None:
        """See the protocol."""
        document = _dump([row.model_dump() for row in rows])
        with self._database.begin() as connection:
            # Tried again after a lost answer, it is there already.
            connection.execute(
                text(
                    "insert into dspyui.chunks (batch, number, rows) values (:batch, :number, :rows)"
                    " on conflict do nothing"
                ),
                self._with(number=self._next, rows=document),
            )
        self._next += 1

    def answers(self, most: int) -> Sequence[Answer]:
        """See the protocol."""
        with self._database.begin() as connection:
            found = connection.execute(
                text("select document from dspyui.answers where batch = :batch and not kept limit :most"),
                self._with(most=most),
            ).scalars()
            return [Answer.model_validate(json.loads(document)) for document in found]

    def kept(self, indexes: Sequence[int]) -> None:
        """See the protocol."""
        with self._database.begin() as connection:
            connection.execute(
                text(
                    "update dspyui.answers set kept = true, document = ''"
                    " where batch = :batch and index = any(:indexes)"
                ),
                self._with(indexes=list(indexes)),
            )
            connection.execute(
                text(
                    "delete from dspyui.chunks c where c.batch = :batch and c.done and not exists (select 1"
                    " from dspyui.answers a where a.batch = c.batch and a.chunk = c.number and not a.kept)"
                ),
                self._with(),
            )

    def workers(self) -> int:
        """See the protocol."""
        with self._database.begin() as connection:
            return connection.execute(
                text(
                    "select count(distinct worker) from dspyui.chunks"
                    " where batch = :batch and not done and worker in (select key from dspyui.alive)"
                ),
                self._with(),
            ).scalar_one()

    def check_in(self) -> None:
        """See the protocol."""
        if not self._lease.renew():
            raise ConflictError("sharing.hosted", job_id=self._batch.id)

    def leave(self) -> None:
        """See the protocol."""
        self._lease.release()

    def _with(self, **more: Any) -> dict[str, Any]:
        return {"batch": self._batch.id, **more}


class PostgresWorker:
    """Implements `domain.sharing.WorkerSeat`."""

    def __init__(self, database: Database, lease: Lease, name: str) -> None:
        self._database = database
        self._lease = lease
        self._name = name

    def check_in(self) -> None:
        """See the protocol."""
        self._lease.renew()

    def wanted(self) -> Sequence[str]:
        """See the protocol."""
        with self._database.begin() as connection:
            found = connection.execute(
                text(
                    "select id from dspyui.batches where host in (select key from dspyui.alive) order by created, id"
                )
            )
            return list(found.scalars())

    def batch(self, batch_id: str) -> SharedBatch | None:
        """See the protocol."""
        with self._database.begin() as connection:
            document = connection.execute(
                text("select document from dspyui.batches where id = :batch"), {"batch": batch_id}
            ).scalar()
        return SharedBatch.model_validate_json(document) if document else None

    def claim(self, batch_id: str, *, held: Collection[int], calls: int) -> Chunk | None:
        """See the protocol."""
        with self._database.begin() as connection:
            if (slots := _locked_slots(connection, batch_id)) is None:
                return None
            self._free(connection, batch_id, held)
            self._join(connection, batch_id)
            if (slot := self._free_slot(connection, batch_id, len(slots))) is None:
                return None
            return self._take(connection, batch_id, slot, min(slots[slot], calls), held)

    def _free(self, connection: Connection, batch_id: str, held: Collection[int]) -> None:
        """What the dead had, and what the database takes for this worker's, whose claim it never heard of."""
        connection.execute(
            text(
                "update dspyui.chunks set worker = null, slot = null, claim = null"
                " where batch = :batch and worker is not null and not done and"
                " (worker not in (select key from dspyui.alive) or (worker = :worker and number <> all(:held)))"
            ),
            {"batch": batch_id, "worker": self._lease.key, "held": list(held)},
        )

    def _join(self, connection: Connection, batch_id: str) -> None:
        connection.execute(
            text(
                "insert into dspyui.helpers (batch, worker, name, asked) values (:batch, :worker, :name, now())"
                " on conflict (batch, worker) do update set asked = now()"
            ),
            {"batch": batch_id, "worker": self._lease.key, "name": self._name},
        )

    def _free_slot(self, connection: Connection, batch_id: str, slots: int) -> int | None:
        """A slot nobody has, unless all are taken or this worker has its share."""
        taken = connection.execute(
            text(
                "select slot, worker from dspyui.chunks where batch = :batch and worker is not null and not done"
            ),
            {"batch": batch_id},
        ).all()
        helpers = connection.execute(
            text(
                "select count(*) from dspyui.helpers h"
                " where h.batch = :batch and h.worker in (select key from dspyui.alive)"
                # One that is busy elsewhere keeps nothing from the others.
                " and (h.asked > now() - make_interval(secs => :seconds) or exists (select 1 from dspyui.chunks c"
                " where c.batch = h.batch and c.worker = h.worker and not c.done))"
            ),
            {"batch": batch_id, "seconds": _IDLE_SECONDS},
        ).scalar_one()
        mine = sum(worker == self._lease.key for _, worker in taken)
        if mine >= -(-slots // max(1, helpers)):
            return None
        used = {slot for slot, _ in taken}
        return next((slot for slot in range(slots) if slot not in used), None)

    def _take(
        self, connection: Connection, batch_id: str, slot: int, calls: int, held: Collection[int]
    ) -> Chunk | None:
        claim = secrets.token_hex(8)
        found = connection.execute(
            text(
                "update dspyui.chunks set worker = :worker, slot = :slot, claim = :claim"
                " where batch = :batch and number = (select min(number) from dspyui.chunks"
                # Others may have freed one, while the database was away, on which this worker still works.
                " where batch = :batch and worker is null and not done and number <> all(:held))"
                " returning number, rows"
            ),
            {"batch": batch_id, "worker": self._lease.key, "slot": slot, "claim": claim, "held": list(held)},
        ).first()
        if found is None:
            return None
        number, rows = found
        answered = set(
            connection.execute(
                text("select index from dspyui.answers where batch = :batch and chunk = :number"),
                {"batch": batch_id, "number": number},
            ).scalars()
        )
        left = tuple(row for row in _rows(rows) if row.index not in answered)
        return Chunk(batch_id=batch_id, number=number, claim=claim, calls=calls, rows=left)

    def answer(self, chunk: Chunk, answer: Answer) -> None:
        """See the protocol."""
        with self._database.begin() as connection:
            connection.execute(
                text(
                    "insert into dspyui.answers (batch, chunk, index, document)"
                    " select :batch, :chunk, :index, :document where exists"
                    " (select 1 from dspyui.chunks where batch = :batch and number = :chunk for key share)"
                    # The host has had an answer once, and asks again: it has lost it.
                    " on conflict (batch, index) do update set chunk = excluded.chunk,"
                    " document = excluded.document, kept = false where answers.kept"
                ),
                {
                    "batch": chunk.batch_id,
                    "chunk": chunk.number,
                    "index": answer.index,
                    "document": _document(answer),
                },
            )

    def give_back(self, chunk: Chunk, *, done: bool) -> None:
        """See the protocol."""
        with self._database.begin() as connection:
            connection.execute(
                text(
                    "update dspyui.chunks set done = :done, worker = null, slot = null, claim = null"
                    " where batch = :batch and number = :number and claim = :claim"
                ),
                {"batch": chunk.batch_id, "number": chunk.number, "claim": chunk.claim, "done": done},
            )

    def withdraw(self, batch_id: str) -> None:
        """See the protocol."""
        with self._database.begin() as connection:
            connection.execute(
                text("delete from dspyui.helpers where batch = :batch and worker = :worker"),
                {"batch": batch_id, "worker": self._lease.key},
            )

    def pace(self, batch_id: str, change: PaceChange) -> PaceState | None:
        """See the protocol."""
        with self._database.begin() as connection:
            found = connection.execute(
                text(
                    "select at, requests, tokens, paused_until, refusals from dspyui.batches"
                    " where id = :batch for no key update"
                ),
                {"batch": batch_id},
            ).first()
            if found is None:
                return None
            # Asked after the lock was had: the clock must not be older than the state.
            now = connection.execute(text("select extract(epoch from clock_timestamp())")).scalar_one()
            state = change(PaceState(*found), float(now))
            connection.execute(
                text(
                    "update dspyui.batches set at = :at, requests = :requests, tokens = :tokens,"
                    " paused_until = :paused_until, refusals = :refusals where id = :batch"
                ),
                {"batch": batch_id, **asdict(state)},
            )
        return state


def _locked_slots(connection: Connection, batch_id: str) -> tuple[int, ...] | None:
    """The batch's slots, with its row locked: who claims goes one after the other."""
    document = connection.execute(
        text("select document from dspyui.batches where id = :batch for no key update"), {"batch": batch_id}
    ).scalar()
    return SharedBatch.model_validate_json(document).slots if document else None


def _rows(document: str) -> list[SharedRow]:
    return [SharedRow.model_validate(row) for row in json.loads(document)]


def _document(answer: Answer) -> str:
    """The answer as it travels; without its trace when that holds what JSON cannot."""
    try:
        return _dump(answer.model_dump())
    except (TypeError, ValueError):
        # The line must not name a trace that will never be there.
        line = json.loads(answer.line)
        if "_trace_id" in line:
            line["_trace_id"] = None
        lacking = {"trace": None, "traced": False, "line": json.dumps(line, ensure_ascii=False)}
        return _dump(answer.model_copy(update=lacking).model_dump())


def _dump(value: Any) -> str:
    """JSON in ASCII: text in PostgreSQL holds no NUL and no half of a surrogate pair, which a cell may."""
    return json.dumps(value, default=str)
