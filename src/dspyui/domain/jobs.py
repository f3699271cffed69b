"""Jobs: work that outlives the page and the process. A job's folder is written first; everything else follows."""

import re
import secrets
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from dspyui.domain.base import Fault, Frozen
from dspyui.domain.compiles import ChatMessage, CompileResult, CompileSpec, Progress
from dspyui.domain.programs import CompiledProgram
from dspyui.domain.signatures import Row
from dspyui.domain.splits import SplitName, Splits
from dspyui.errors import BadRequestError, NotFoundError, said
from dspyui.i18n import Language, Text

JobStatus = Literal["queued", "running", "done", "failed", "cancelled"]
TERMINAL: frozenset[JobStatus] = frozenset({"done", "failed", "cancelled"})
JobKind = Literal["compile", "batch"]
MAX_TITLE, MAX_NOTE = 200, 5000

_JOB_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{8}")


def new_job_id(now: datetime) -> str:
    """A fresh id that sorts by time: `20261123-224500-1a2b3c4d` (UTC)."""
    return f"{now.astimezone(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"


def is_job_id(text: str) -> bool:
    """Whether the text has the shape of a job's id."""
    return _JOB_ID.fullmatch(text) is not None


def check_job_id(job_id: str) -> str:
    """Return the id when it has the shape of one, so that it can be a folder's name. Raises NotFoundError."""
    if not is_job_id(job_id):
        raise NotFoundError("job.unknown", job_id=job_id[:40])
    return job_id


def check_title(title: str) -> str:
    """Return the title without outer spaces when people can read it: 1 to 200 printable characters.

    Raises BadRequestError.
    """
    shown = title.strip()
    if not shown or len(shown) > MAX_TITLE or any(_is_unprintable(char) for char in shown):
        raise BadRequestError("job.title", limit=MAX_TITLE)
    return shown


def check_note(note: str) -> str:
    """Return the note (Markdown in MLflow) without outer blanks. Raises BadRequestError when it is too long."""
    text = note.replace("\r\n", "\n").strip()
    if len(text) > MAX_NOTE:
        raise BadRequestError("job.note_long", length=len(text), limit=MAX_NOTE)
    if any(_is_unprintable(char) for char in text if char not in "\n\t"):
        raise BadRequestError("job.note_characters")
    return text


def _is_unprintable(char: str) -> bool:
    # Joiners and direction marks (Cf) belong to emoji and to some scripts; what is newer than Python has no kind (Cn).
    return unicodedata.category(char) in {"Cc", "Cs", "Co", "Zl", "Zp"}


class JobFailure(Fault):
    """Why a job failed, as data.

    `detail` is the technical text (exception and last lines of the log), without secrets.
    """

    detail: str = ""


class Job(Frozen):
    """A job as it stands. `attempt` counts the starts of its child process; times are UTC.

    `executor` is the process (by its id in the queue) that runs it, ran it last, or is just about to.
    `title` and `note` are for people and can be changed at any time; a note that was never written is None.
    """

    id: str
    kind: JobKind = "compile"
    title: str
    who: str
    status: JobStatus = "queued"
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    attempt: int = 0
    cancel_requested: bool = False
    executor: str | None = None
    failure: JobFailure | None = None
    note: str | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether nothing will change any more."""
        return self.status in TERMINAL


class ChildOutcome(Frozen):
    """The last line of a child's stdout, as JSON. A child that ends without one has crashed."""

    status: Literal["done", "failed"]
    failure: JobFailure | None = None


EventLevel = Literal["info", "warning", "error"]


class JobEvent(Frozen):
    """One line of a job's log. `kind` picks the sentence `event.<kind>`; `values` fill it in."""

    at: datetime
    kind: str
    values: dict[str, Any] = {}
    level: EventLevel = "info"

    def sentence(self, language: Language) -> str:
        """What a person reads. What another version wrote (a kind, a phase, fewer values) is shown as it is."""
        text = Text(language)
        values = said(self.values, language)
        try:
            if "phase" in values:
                values["phase"] = text(f"phase.{values['phase']}")
            return text(f"event.{self.kind}", **values)
        except KeyError:
            return f"{self.kind} {self.values}"


RecordStatus = Literal["off", "pending", "sent", "refused"]


class RecordState(Frozen):
    """How far a job's record in MLflow is. `off`: none is wanted. `refused`: the server said no for good.

    `title` and `note` are the job's as MLflow has them.
    """

    status: RecordStatus = "pending"
    run_id: str | None = None
    experiment_id: str | None = None
    run_url: str | None = None
    tries: int = 0
    last_error: str = ""
    traces_sent: int = 0
    traces_refused: int = 0
    title: str | None = None
    note: str | None = None

    def is_behind(self, job: Job) -> bool:
        """Whether the Run is there, and the job was renamed or noted on since."""
        return (
            self.status == "sent"
            and self.title is not None
            and (self.title, self.note) != (job.title, job.note)
        )


class JobStore(Protocol):
    """Keeps job folders. Every write is atomic; a reader in another process never sees half a file.

    Files in a job's folder, by fixed names only: `spec.json`, `job.json`, `progress.json`, `result.json`,
    `record.json`, `events.jsonl`, `lock`, `state.lock`, `record.lock`, `log.txt`, `program.json`,
    `baseline_program.json`, `prompt/{baseline,optimized}_prompt.txt`, `dataset/{rows,train,validation,test}.jsonl`,
    `dataset/parts.txt`, `evaluation/rows.parquet`, `spec/compile.yaml`, `traces/`.
    """

    def create(
        self,
        spec: CompileSpec,
        rows: Sequence[Row],
        *,
        title: str,
        who: str,
        parts: Sequence[SplitName] | None = None,
    ) -> Job:
        """A new queued job with its folder; the parsed rows go into `dataset/rows.jsonl`.

        `parts`, the split of each row when the data brought it, goes into `dataset/parts.txt`, a word a line.
        """
        ...

    def folder(self, job_id: str) -> Path:
        """The job's folder. Raises NotFoundError."""
        ...

    def get(self, job_id: str) -> Job:
        """Raises NotFoundError."""
        ...

    def search(self) -> Sequence[Job]:
        """All jobs, newest first. A folder that cannot be read is left out and logged."""
        ...

    def update(self, job_id: str, change: Callable[[Job], Job]) -> Job:
        """Replace the job's state under the folder's state lock."""
        ...

    def spec(self, job_id: str) -> CompileSpec:
        """The spec as it was asked for. Raises BadRequestError for a job that is no compile."""
        ...

    def rows(self, job_id: str) -> tuple[Row, ...]:
        """All rows of the job's data, as parsed when it was created."""
        ...

    def parts(self, job_id: str) -> tuple[SplitName, ...] | None:
        """The split of each row, when the data brought it; None when the rows are dealt out."""
        ...

    def progress(self, job_id: str) -> Progress: ...

    def write_progress(self, job_id: str, progress: Progress) -> None: ...

    def find_result(self, job_id: str) -> CompileResult | None: ...

    def write_result(self, job_id: str, result: CompileResult) -> None: ...

    def record(self, job_id: str) -> RecordState: ...

    def write_record(self, job_id: str, record: RecordState) -> None: ...

    def lock_record(self, job_id: str) -> AbstractContextManager[bool]:
        """Hold the right to send the job's record; gives False at once when another process has it."""
        ...

    def append_event(self, job_id: str, event: JobEvent) -> None: ...

    def events(self, job_id: str, *, after: int = 0) -> tuple[Sequence[JobEvent], int]:
        """Events from byte `after` of the log on, and the byte to go on from; half a line is left for later."""
        ...

    def delete(self, job_id: str, *, even_unsent: bool = False) -> None:
        """Delete a terminal job's folder.

        Raises ConflictError while it runs, while its record is being sent, and, unless `even_unsent`, while
        its record is still pending.
        """
        ...

    def pending_records(self) -> Iterator[str]:
        """Ids of the jobs whose record, or whose new title or note, still has to be sent."""
        ...


class ArtifactWriter(Protocol):
    """Writes what a compile makes besides its result, into the job's folder, for people and for MLflow."""

    def write_splits(self, job_id: str, splits: Splits) -> None:
        """`dataset/{train,validation,test}.jsonl`."""
        ...

    def write_programs(self, job_id: str, *, baseline: CompiledProgram, optimised: CompiledProgram) -> None:
        """`baseline_program.json` and `program.json`."""
        ...

    def write_prompts(
        self, job_id: str, *, baseline: Sequence[ChatMessage], optimised: Sequence[ChatMessage]
    ) -> None:
        """`prompt/baseline_prompt.txt` and `prompt/optimized_prompt.txt`."""
        ...

    def write_rows(self, job_id: str, result: CompileResult) -> None:
        """`evaluation/rows.parquet`: a line for each test row, both programs side by side."""
        ...


class JobQueue(Protocol):
    """Runs jobs durably: each in its own OS process, taken up again when the process that ran it has died."""

    def start(self, *, works: bool) -> None:
        """Join the queue. With `works`, this process also runs queued jobs and takes over those of dead ones."""
        ...

    def submit(self, job_id: str) -> None:
        """Queue a created job for whichever process works. Idempotent."""
        ...

    def run_here(self, job_id: str) -> None:
        """Start a created job in this process at once, past the queue (the command line's way). Returns at once."""
        ...

    def cancel(self, job_id: str) -> None:
        """Stop it wherever it runs; its child and all descendants are killed. Returns at once."""
        ...

    def release(self, job_id: str) -> None:
        """Cancel it if the process that ran it has ended, so that no other takes it up; else nothing happens."""
        ...

    def is_interrupted(self, job: Job) -> bool:
        """Whether it counts as running and nobody runs it: its process has ended, and no other has taken it up yet."""
        ...

    def close(self) -> None:
        """Leave the queue. Children of this process are killed; their jobs are taken up by the next start."""
        ...
