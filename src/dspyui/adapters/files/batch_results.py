"""The finished rows of a batch: results in the input's order, an index of them, and a journal of what came early.

`results.jsonl` holds the output line of each row, `results.index` a record of fixed size for each line (its content
key, where it stands, its figures), and `results.journal` the rows that were finished before one that stands ahead of
them. A line is written before its record; a row that waits is in the journal before `add` returns. So a process that
is killed loses no row, and the figures over a million rows are read in one go.
"""

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dspyui.adapters.files.atomic import said_when_full, write_atomic
from dspyui.domain.batches import KEY_BYTES, BatchTotals, RowOutcome, ScoreSummary
from dspyui.domain.compiles import Usage
from dspyui.domain.means import mean_interval

if TYPE_CHECKING:
    import numpy as np

RESULTS, INDEX, JOURNAL, ERRORS = "results.jsonl", "results.index", "results.journal", "errors.jsonl"
# Lines of the journal that are no longer needed are cleared away from so many on.
_STALE_LINES: Final = 5_000
_FIELDS: Final = (
    ("key", f"S{KEY_BYTES}"), ("offset", "<u8"), ("latency", "<f8"), ("cost", "<f8"), ("score", "<f8"),
    ("length", "<u4"), ("input", "<u4"), ("output", "<u4"), ("calls", "<u2"), ("hits", "<u2"),
    ("ok", "u1"), ("traced", "u1"), ("rest", "S6"),
)  # fmt: skip


class _Record(NamedTuple):
    """A row in the index; costs, scores and latencies that are not there are NaN."""

    key: bytes
    offset: int
    latency: float
    cost: float
    score: float
    length: int
    input: int
    output: int
    calls: int
    hits: int
    ok: int
    traced: int


_RECORD: Final = struct.Struct(f"<{KEY_BYTES}sQdddIIIHHBB6x")
_NAN: Final = float("nan")


def _or_nan(value: float | None) -> float:
    return _NAN if value is None else value


class FileResultLog:
    """Implements `domain.batches.ResultLog` in a folder. Not thread-safe; one process at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with said_when_full(folder):
            self._results = os.open(folder / RESULTS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._index = os.open(folder / INDEX, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._count, self._size = _whole(self._results, self._index)
            self._cut()
        self._waiting = {row.index: row for row in _journal(folder / JOURNAL) if row.index >= self._count}
        self._errors = self._counted_errors()
        self._journal = -1
        self._lines = 0
        self._renew_journal()
        self._place_waiting()

    @property
    def count(self) -> int:
        """Rows in their order without a gap."""
        return self._count

    @property
    def finished(self) -> int:
        """All finished rows, those in the journal included."""
        return self._count + len(self._waiting)

    def known(self, index: int) -> bytes | None:
        """The content key of a finished row; None when it is not finished."""
        if index < self._count:
            return os.pread(self._index, KEY_BYTES, index * _RECORD.size)
        waiting = self._waiting.get(index)
        return waiting.key if waiting else None

    def add(self, outcome: RowOutcome) -> int:
        """See the protocol."""
        if outcome.error is not None:
            self._errors[outcome.error] = self._errors.get(outcome.error, 0) + 1
        with said_when_full(self._folder):
            if outcome.index == self._count:
                self._place(outcome)
                return 1 + self._place_waiting()
            _append(self._journal, f"{json.dumps(_plain(outcome), ensure_ascii=True)}\n".encode())
        self._waiting[outcome.index] = outcome
        self._lines += 1
        return 0

    def _place_waiting(self) -> int:
        placed = 0
        while (row := self._waiting.pop(self._count, None)) is not None:
            self._place(row)
            placed += 1
        if self._lines - len(self._waiting) > _STALE_LINES:
            self._renew_journal()
        return placed

    def _place(self, row: RowOutcome) -> None:
        line = f"{row.line}\n".encode()
        usage = row.usage
        record = _RECORD.pack(
            row.key, self._size, row.latency_ms, _or_nan(usage.cost), _or_nan(row.score), len(line),
            usage.input_tokens, usage.output_tokens, min(usage.lm_calls, 65535), min(usage.lm_cache_hits, 65535),
            row.error is None, row.traced,
        )  # fmt: skip
        try:
            _write_at(self._results, line, self._size)
            _write_at(self._index, record, self._count * _RECORD.size)
        except OSError:
            # What a full disk took of the line is no row: the results so far are read as they stand.
            self._cut()
            raise
        self._size += len(line)
        self._count += 1

    def _cut(self) -> None:
        """Leave whole rows alone in both files."""
        os.ftruncate(self._results, self._size)
        os.ftruncate(self._index, self._count * _RECORD.size)

    def _renew_journal(self) -> None:
        """Write the journal anew with the rows that still wait; what it held before is in the results for certain."""
        with said_when_full(self._folder):
            for file in (self._results, self._index):
                os.fsync(file)
        rows = [self._waiting[index] for index in sorted(self._waiting)]
        lines = (f"{json.dumps(_plain(row), ensure_ascii=True)}\n".encode() for row in rows)
        write_atomic(self._folder / JOURNAL, lines, durable=False)
        if self._journal >= 0:
            os.close(self._journal)
        self._journal = os.open(self._folder / JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._lines = len(rows)

    def errors(self) -> dict[str, int]:
        """Failed rows by the code of their error."""
        return dict(self._errors)

    def _counted_errors(self) -> dict[str, int]:
        found: dict[str, int] = {}
        lines = (row.error for row in self._waiting.values())
        for code in (*filter(None, lines), *self._failed_codes()):
            found[code] = found.get(code, 0) + 1
        return found

    def _failed_codes(self) -> Iterator[str]:
        for record in _records(self._index, self._count):
            if not record.ok:
                line = json.loads(os.pread(self._results, record.length, record.offset))
                yield str(line["_error"]).partition(":")[0]

    def write_errors(self) -> None:
        """`errors.jsonl`: the lines of the failed rows, if there are any."""

        def lines() -> Iterator[bytes]:
            for record in _records(self._index, self._count):
                if not record.ok:
                    yield os.pread(self._results, record.length, record.offset)

        if self._errors:
            write_atomic(self._folder / ERRORS, lines(), durable=True)

    def totals(self) -> BatchTotals:
        """The figures over the rows in their order."""
        return totals(self._folder / INDEX, self._count)

    def close(self) -> None:
        """Bring everything to the disk."""
        for file in (self._results, self._index):
            os.fsync(file)
            os.close(file)
        os.close(self._journal)


class FileEarlierRows:
    """Implements `domain.batches.EarlierRows` over another batch's folder, which is not changed."""

    def __init__(self, folder: Path) -> None:
        self._results = os.open(folder / RESULTS, os.O_RDONLY | os.O_CLOEXEC)
        self._index = os.open(folder / INDEX, os.O_RDONLY | os.O_CLOEXEC)
        self._count, _size = _whole(self._results, self._index)
        self._waiting = {row.index: row for row in _journal(folder / JOURNAL)}

    def find(self, index: int, key: bytes) -> RowOutcome | None:
        """See the protocol. What was paid for then is not counted again, and its trace is that batch's."""
        if index >= self._count:
            row = self._waiting.get(index)
            if row is None or row.key != key or row.error is not None:
                return None
            line = row.line
        else:
            record = _Record(*_RECORD.unpack(os.pread(self._index, _RECORD.size, index * _RECORD.size)))
            if record.key != key or not record.ok:
                return None
            line = os.pread(self._results, record.length, record.offset).decode().removesuffix("\n")
        score = json.loads(line).get("_score")
        return RowOutcome(index, key, line, None, _NAN, Usage(), score, reused=True)

    def close(self) -> None:
        """Close its files."""
        os.close(self._results)
        os.close(self._index)


def totals(index: Path, count: int) -> BatchTotals:
    """The figures over the first `count` rows of an index."""
    import numpy as np

    if count == 0:
        return BatchTotals(rows=0, failed=0, usage=Usage(), traced=0)
    found = np.memmap(index, dtype=np.dtype(list(_FIELDS)), mode="r", shape=(count,))
    latencies = np.asarray(found["latency"][found["ok"] == 1])
    latencies = latencies[~np.isnan(latencies)]
    paid = found["cost"][(found["calls"] > 0) | ~np.isnan(found["cost"])]
    return BatchTotals(
        rows=count,
        failed=int(count - found["ok"].sum(dtype=np.int64)),
        usage=Usage(
            lm_calls=int(found["calls"].sum(dtype=np.int64)),
            lm_cache_hits=int(found["hits"].sum(dtype=np.int64)),
            input_tokens=int(found["input"].sum(dtype=np.int64)),
            output_tokens=int(found["output"].sum(dtype=np.int64)),
            cost=None if not len(paid) or np.isnan(paid).any() else float(paid.sum()),
        ),
        traced=int(found["traced"].sum(dtype=np.int64)),
        **_latencies(latencies),
        score=_score(found["score"]),
    )


def _latencies(found: "np.ndarray") -> dict[str, float]:
    import numpy as np

    if not len(found):
        return {}
    p50, p95, p99 = (float(value) for value in np.percentile(found, (50, 95, 99)))
    return {
        "latency_ms_mean": float(found.mean()),
        "latency_ms_p50": p50,
        "latency_ms_p95": p95,
        "latency_ms_p99": p99,
    }


def _score(scores: "np.ndarray") -> ScoreSummary | None:
    import numpy as np

    given = np.asarray(scores[~np.isnan(scores)])
    if not len(given):
        return None
    is_binary = bool(np.isin(given, (0.0, 1.0)).all())
    low, high = mean_interval(
        len(given), float(given.sum()), float(np.square(given).sum()), is_binary=is_binary
    )
    return ScoreSummary(value=float(given.mean()), low=low, high=high, rows=len(given))


def _whole(results: int, index: int) -> tuple[int, int]:
    """How many rows are whole in both files, and where the last of them ends."""
    size = os.fstat(results).st_size
    count = os.fstat(index).st_size // _RECORD.size
    while count:
        record = _Record(*_RECORD.unpack(os.pread(index, _RECORD.size, (count - 1) * _RECORD.size)))
        end = record.offset + record.length
        if record.length and end <= size and os.pread(results, 1, end - 1) == b"\n":
            return count, end
        count -= 1
    return 0, 0


def _records(index: int, count: int) -> Iterator[_Record]:
    at_once = 4096
    for start in range(0, count, at_once):
        size = min(at_once, count - start) * _RECORD.size
        for values in _RECORD.iter_unpack(os.pread(index, size, start * _RECORD.size)):
            yield _Record(*values)


def _journal(path: Path) -> Iterator[RowOutcome]:
    """The rows of a journal; a line that a kill, or a full disk, tore in two is left out."""
    try:
        file = path.open(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return
    with file:
        for line in file:
            try:
                document = json.loads(line)
                yield _outcome(document)
            except (ValueError, KeyError, TypeError):
                continue


def _plain(row: RowOutcome) -> dict[str, Any]:
    return {
        "index": row.index,
        "key": row.key.hex(),
        "line": row.line,
        "error": row.error,
        "latency_ms": row.latency_ms,
        "usage": row.usage.model_dump(),
        "score": row.score,
        "traced": row.traced,
        "reused": row.reused,
    }


def _outcome(document: dict[str, Any]) -> RowOutcome:
    usage = Usage.model_validate(document["usage"])
    return RowOutcome(**{**document, "key": bytes.fromhex(document["key"]), "usage": usage})


def _append(file: int, data: bytes) -> None:
    while data:
        # A disk that fills up takes a part; the next write says so.
        data = data[os.write(file, data) :]


def _write_at(file: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written
