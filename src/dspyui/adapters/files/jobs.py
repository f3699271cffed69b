"""Job folders."""

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from dspyui.adapters.files.atomic import (
    append_line,
    file_lock,
    private_folder,
    said_when_full,
    sync_folder,
    write_atomic,
)
from dspyui.adapters.files.documents import ReadCache, read_document
from dspyui.domain.compiles import CompileResult, CompileSpec, Progress
from dspyui.domain.jobs import Job, JobEvent, JobKind, RecordState, check_job_id, is_job_id, new_job_id
from dspyui.domain.signatures import Row
from dspyui.domain.splits import SPLIT_WORDS, SplitName
from dspyui.errors import BadRequestError, ConflictError, FailedError, NotFoundError

_log = logging.getLogger(__name__)

# Names that start with a dot are no job ids, so what is being made or deleted is never listed.
_DRAFT = ".new-"
_TRASH = ".trash-"
_DRAFT_SECONDS = 3600
# Kept free for a job's last words: on a full disk it goes, so that the job's end can still be written down.
_RESERVE, _RESERVE_BYTES = "reserve", 64 * 1024


class FileJobStore:
    """Job folders under `<home>/jobs/<job_id>/` (see `domain.jobs.JobStore` for the names in them).

    Beside the names of the protocol a folder holds `state.lock` and `record.lock`, which guard `job.json`
    and the sending of the record, and until the job ends a `reserve` of disk. Every write raises FailedError
    (`storage.full`) when there is no room. A job's state and record reach the disk before a write returns; its
    progress and events need not survive a power failure.
    """

    def __init__(self, home: Path) -> None:
        self._root = home / "jobs"
        self._jobs = ReadCache(partial(read_document, model=Job))
        self._records = ReadCache(partial(read_document, model=RecordState))
        self._complained: set[str] = set()

    def create(
        self,
        spec: CompileSpec,
        rows: Sequence[Row],
        *,
        title: str,
        who: str,
        parts: Sequence[SplitName] | None = None,
    ) -> Job:
        """A new queued job. Its folder appears in one step, complete."""
        return self.make("compile", lambda folder: _fill(folder, spec, rows, parts), title=title, who=who)

    def make(self, kind: JobKind, fill: Callable[[Path], None], *, title: str, who: str) -> Job:
        """A new queued job of a kind; `fill` puts what it is about into its folder, before anybody sees it."""
        now = datetime.now(UTC)
        job = Job(id=new_job_id(now), kind=kind, title=title, who=who, created_at=now)
        draft = self._root / f"{_DRAFT}{job.id}"
        try:
            with said_when_full(self._root):
                fill(private_folder(draft))
                write_atomic(draft / "job.json", job.model_dump_json(indent=2), durable=True)
                # Not zeros: some file systems keep those without taking any room.
                write_atomic(draft / _RESERVE, os.urandom(_RESERVE_BYTES), durable=False)
                draft.rename(self._root / job.id)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        sync_folder(self._root)
        return job

    def folder(self, job_id: str) -> Path:
        """The job's folder. Raises NotFoundError."""
        path = self._root / check_job_id(job_id)
        if not path.is_dir():
            raise NotFoundError("job.unknown", job_id=job_id)
        return path

    def get(self, job_id: str) -> Job:
        """Raises NotFoundError."""
        with _known(job_id):
            return self._jobs.get(self._root / check_job_id(job_id) / "job.json")

    def search(self) -> Sequence[Job]:
        """All jobs, newest first. A folder that cannot be read is left out and logged."""
        found = [self._find(job_id) for job_id in reversed(self._ids())]
        return [job for job in found if job is not None]

    def update(self, job_id: str, change: Callable[[Job], Job]) -> Job:
        """Replace the job's state under the folder's state lock; on a full disk `change` may be asked twice.

        Raises NotFoundError.
        """
        with self._state_lock(job_id) as folder:
            try:
                changed = self._change(folder, job_id, change)
            except FailedError as exc:
                if exc.code != "storage.full" or not (folder / _RESERVE).exists():
                    raise
                (folder / _RESERVE).unlink()
                changed = self._change(folder, job_id, change)
            if changed.is_terminal:
                (folder / _RESERVE).unlink(missing_ok=True)
            return changed

    def _change(self, folder: Path, job_id: str, change: Callable[[Job], Job]) -> Job:
        job = self.get(job_id)
        changed = change(job)
        if changed != job:
            write_atomic(folder / "job.json", changed.model_dump_json(indent=2), durable=True)
        return changed

    def lock_job(self, job_id: str, *, seconds: float) -> AbstractContextManager[None]:
        """The right to write as this job's running attempt. A child holds it for all of its life.

        Waits `seconds` for an attempt that is still dying, then raises ConflictError.
        """
        return _held(self.folder(job_id) / "lock", job_id, seconds)

    def spec(self, job_id: str) -> CompileSpec:
        """The spec as it was asked for. Raises NotFoundError, BadRequestError for a job that is no compile."""
        folder, kind = self.folder(job_id), self.get(job_id).kind
        if kind != "compile":
            raise BadRequestError("job.no_compile", job_id=job_id, kind=kind)
        return read_document(folder / "spec.json", CompileSpec)

    def write_digests(self, job_id: str, digests: Mapping[str, str]) -> None:
        """Bring the spec's digests up to date; nothing else of it ever changes. Raises NotFoundError."""
        spec = self.spec(job_id)
        if spec.digests != digests:
            changed = spec.model_copy(update={"digests": dict(digests)})
            write_atomic(self.folder(job_id) / "spec.json", changed.model_dump_json(indent=2), durable=True)

    def rows(self, job_id: str) -> tuple[Row, ...]:
        """All rows of the job's data, as parsed when it was created. Raises NotFoundError."""
        with (self.folder(job_id) / "dataset" / "rows.jsonl").open(encoding="utf-8") as lines:
            return tuple(json.loads(line) for line in lines)

    def parts(self, job_id: str) -> tuple[SplitName, ...] | None:
        """The split of each row, when the data brought it; None when the rows are dealt out. Raises NotFoundError."""
        try:
            words = (self.folder(job_id) / "dataset" / "parts.txt").read_text(encoding="utf-8").split()
        except FileNotFoundError:
            return None
        return tuple(SPLIT_WORDS[word] for word in words)

    def progress(self, job_id: str) -> Progress:
        """Where the job stands; the start when nothing was written yet. Raises NotFoundError."""
        try:
            return read_document(self.folder(job_id) / "progress.json", Progress)
        except FileNotFoundError:
            return Progress()

    def write_progress(self, job_id: str, progress: Progress) -> None:
        """Raises NotFoundError."""
        write_atomic(self.folder(job_id) / "progress.json", progress.model_dump_json(), durable=False)

    def find_result(self, job_id: str) -> CompileResult | None:
        """The result, or None while there is none. Raises NotFoundError for an unknown job."""
        try:
            return read_document(self.folder(job_id) / "result.json", CompileResult).compared()
        except FileNotFoundError:
            return None

    def write_result(self, job_id: str, result: CompileResult) -> None:
        """Raises NotFoundError."""
        write_atomic(self.folder(job_id) / "result.json", result.model_dump_json(), durable=True)

    def record(self, job_id: str) -> RecordState:
        """How far the record is; pending when nothing was written yet. Raises NotFoundError."""
        try:
            return self._records.get(self.folder(job_id) / "record.json")
        except FileNotFoundError:
            return RecordState()

    def write_record(self, job_id: str, record: RecordState) -> None:
        """Raises NotFoundError."""
        write_atomic(self.folder(job_id) / "record.json", record.model_dump_json(indent=2), durable=True)

    def lock_record(self, job_id: str) -> AbstractContextManager[bool]:
        """Hold the right to send the job's record; gives False at once when another process has it."""
        return file_lock(self.folder(job_id) / "record.lock", seconds=0)

    def append_event(self, job_id: str, event: JobEvent) -> None:
        """Raises NotFoundError."""
        append_line(self.folder(job_id) / "events.jsonl", event.model_dump_json())

    def events(self, job_id: str, *, after: int = 0) -> tuple[Sequence[JobEvent], int]:
        """Events from byte `after` of the log on, and the byte to go on from; half a line is left for later."""
        try:
            with (self.folder(job_id) / "events.jsonl").open("rb") as file:
                file.seek(after)
                whole, newline, _half = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return [], after
        found = [_event(job_id, line) for line in whole.split(b"\n") if line.strip()]
        return [event for event in found if event is not None], after + len(whole) + len(newline)

    def delete(self, job_id: str, *, even_unsent: bool = False) -> None:
        """Delete a finished job's folder.

        Raises NotFoundError, or ConflictError while it runs, while its record is being sent, and, unless
        `even_unsent`, while its record is still to be sent.
        """
        with self._state_lock(job_id) as folder, self.lock_record(job_id) as mine:
            if not self.get(job_id).is_terminal:
                raise ConflictError("job.delete_running", job_id=job_id)
            if not mine:
                raise ConflictError("job.delete_sending", job_id=job_id)
            if not even_unsent and self.record(job_id).status == "pending":
                raise ConflictError("job.delete_pending", job_id=job_id)
            # Gone from every list in one step; the files follow, and what a crash leaves goes next time.
            folder.rename(self._root / f"{_TRASH}{job_id}")
        self._sweep()

    def pending_records(self) -> Iterator[str]:
        """Ids of the jobs whose record, or whose new title or note, still has to be sent; oldest first."""
        for job_id in self._ids():
            try:
                record = self.record(job_id)
                if record.status == "pending" or record.is_behind(self.get(job_id)):
                    yield job_id
            except (NotFoundError, FailedError) as exc:
                self._complain(job_id, exc)

    def _ids(self) -> list[str]:
        if not self._root.is_dir():
            return []
        # Sorted by name is sorted by time. Files that have come in by hand, and drafts, are no jobs.
        return sorted(path.name for path in self._root.iterdir() if is_job_id(path.name))

    def _find(self, job_id: str) -> Job | None:
        try:
            return self.get(job_id)
        except (NotFoundError, FailedError) as exc:
            self._complain(job_id, exc)
            return None

    def _complain(self, job_id: str, problem: Exception) -> None:
        # Lists are read every few seconds; once is enough.
        if job_id not in self._complained:
            self._complained.add(job_id)
            _log.warning("Job folder %s is left out: %s", job_id, problem)

    @contextmanager
    def _state_lock(self, job_id: str) -> Iterator[Path]:
        folder = self.folder(job_id)
        with _known(job_id), file_lock(folder / "state.lock"):
            yield folder

    def _sweep(self) -> None:
        stale = time.time() - _DRAFT_SECONDS
        for path in self._root.glob(f"{_TRASH}*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in self._root.glob(f"{_DRAFT}*"):
            if path.stat().st_mtime < stale:
                shutil.rmtree(path, ignore_errors=True)


def _fill(folder: Path, spec: CompileSpec, rows: Sequence[Row], parts: Sequence[SplitName] | None) -> None:
    write_atomic(folder / "spec.json", spec.model_dump_json(indent=2), durable=True)
    lines = (f"{json.dumps(row, ensure_ascii=False)}\n".encode() for row in rows)
    dataset = private_folder(folder / "dataset")
    write_atomic(dataset / "rows.jsonl", lines, durable=True)
    if parts is not None:
        write_atomic(dataset / "parts.txt", (f"{part}\n".encode() for part in parts), durable=True)


@contextmanager
def _known(job_id: str) -> Iterator[None]:
    """A file that is not there (any more) means that the job is not."""
    try:
        yield
    except FileNotFoundError as exc:
        raise NotFoundError("job.unknown", job_id=job_id) from exc


@contextmanager
def _held(path: Path, job_id: str, seconds: float) -> Iterator[None]:
    with file_lock(path, seconds=seconds) as held:
        if not held:
            raise ConflictError("job.locked", job_id=job_id, seconds=f"{seconds:g}")
        yield


def _event(job_id: str, line: bytes) -> JobEvent | None:
    try:
        return JobEvent.model_validate_json(line)
    except ValidationError as exc:
        _log.warning("A line in the log of job %s is left out: %s", job_id, exc.errors()[0]["msg"])
        return None
