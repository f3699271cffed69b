"""The one join of adapters to services, and the door through which child processes come in.

Heavy libraries (DSPy, MLflow, DBOS) are imported by their adapters when they are first used, never here:
the page is up before they are.
"""

import getpass
import json
import logging
import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from dspyui.adapters.dbos_jobs.queue import DbosJobQueue
from dspyui.adapters.dspy_engine.prices import ListedPrices
from dspyui.adapters.dspy_engine.runner import ChildRunner, answer
from dspyui.adapters.files.artifacts import FileArtifactWriter
from dspyui.adapters.files.atomic import find_no_room
from dspyui.adapters.files.batch_inputs import FileInputReader
from dspyui.adapters.files.batches import FileBatchStore
from dspyui.adapters.files.folder import FileDataFolder
from dspyui.adapters.files.jobs import FileJobStore
from dspyui.adapters.files.metrics import FileMetrics
from dspyui.adapters.files.programs import FileProgramStore
from dspyui.adapters.files.tables import FileTableReader
from dspyui.adapters.files.uploads import FileUploadStore
from dspyui.adapters.local_stack.local_lm import LocalLMServer
from dspyui.adapters.local_stack.mlflow_server import MlflowServer
from dspyui.adapters.local_stack.ports import is_free, port_holder
from dspyui.adapters.mlflow_store.feedback import MlflowFeedbackStore, calls_folder, open_calls
from dspyui.adapters.mlflow_store.registry import MlflowModelRegistry
from dspyui.adapters.mlflow_store.run_list import MlflowRunLibrary
from dspyui.adapters.mlflow_store.runs import MlflowRunStore
from dspyui.adapters.mlflow_store.spool import FileTraceSink, FileTraceSpool, TraceRoom
from dspyui.adapters.mlflow_store.trace_list import MlflowTraceLibrary
from dspyui.domain.base import Notice
from dspyui.domain.batches import BatchSpec
from dspyui.domain.engine import CallGate
from dspyui.domain.jobs import ChildOutcome, JobEvent, JobFailure, JobKind
from dspyui.domain.limits import CallLimiter
from dspyui.domain.lms import LMRoles, LocalLM
from dspyui.domain.metrics import MetricSpec
from dspyui.domain.programs import CompiledProgram
from dspyui.domain.providers import secret_variables
from dspyui.domain.sharing import BatchBoard, SharedBatch, is_shareable
from dspyui.errors import BadRequestError, DSPyUIError, NotFoundError
from dspyui.services import Services
from dspyui.services.batch_hands import Crew, OwnCrew
from dspyui.services.batch_records import batch_record
from dspyui.services.batch_rows import Tracing
from dspyui.services.batch_run import BatchRun
from dspyui.services.batches import BatchFiles, BatchService
from dspyui.services.chunk_worker import ChunkWorker
from dspyui.services.compile import CompileRun
from dspyui.services.data import DataService
from dspyui.services.feedback import FeedbackService
from dspyui.services.gate import GateService
from dspyui.services.jobs import JobService
from dspyui.services.keys import KeyRules
from dspyui.services.lms import LMService
from dspyui.services.local_lm import ensure_for_job, show_waiting_batch, show_waiting_compile
from dspyui.services.metrics import MetricService
from dspyui.services.model_source import ModelSource
from dspyui.services.models import ModelService
from dspyui.services.predict import PredictService
from dspyui.services.record import RecordService
from dspyui.services.register import RegisterService
from dspyui.services.reuse import ReuseService
from dspyui.services.runs import RunService
from dspyui.services.shared_hands import SharedCrew
from dspyui.services.traces import TraceService
from dspyui.services.waiting import WaitingService
from dspyui.settings import Settings, set_environment

if TYPE_CHECKING:
    from dspyui.adapters.dspy_engine.engine import DspyEngine
    from dspyui.adapters.shared_batches.board import PostgresBoard

__all__ = ["App", "is_free", "make_app", "port_holder", "system_user"]

_log = logging.getLogger(__name__)

# How a child learns where the bundled model's server is.
LOCAL_LM_URL = "DSPYUI_INTERNAL_LOCAL_LM_URL"


def system_user() -> str:
    """Who runs this process, for audit records."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


@dataclass(frozen=True, slots=True)
class App:
    """The services, and the life of what stands behind them."""

    services: Services
    queue: DbosJobQueue
    runner: ChildRunner

    def start_background(self, *, works: bool) -> None:
        """Look for MLflow, join the queue (`works`: and run its jobs), send what waits. Takes a second or two."""
        self.services.tracking.start()
        self.queue.start(works=works)
        self.services.record.start()
        self.services.feedback.start()
        if self.services.settings.mlflow_enabled:
            threading.Thread(target=_warm_mlflow, name="warm-mlflow", daemon=True).start()

    def close(self) -> None:
        """Stop this process's children, and the local servers if nobody else holds them."""
        self.runner.close()
        self.queue.close()
        # Both send for a while what waits: at the same time, for somebody waits for them.
        senders = (self.services.record, self.services.feedback)
        for sender in senders:
            sender.begin_close()
        for sender in senders:
            sender.close()
        self.services.tracking.close()
        self.services.local_lm.close()


def _warm_mlflow() -> None:
    from dspyui.adapters.mlflow_store.client import warm

    warm()


def make_app(settings: Settings) -> App:
    """Put everything together; nothing is started and nothing heavy imported."""
    home = settings.home.resolve()
    jobs = FileJobStore(home)
    programs = FileProgramStore(home)
    uploads = FileUploadStore(home)
    tracking = MlflowServer(settings)
    local_lm = LocalLMServer(settings)
    runs = MlflowRunStore(settings, tracking)
    registry = MlflowModelRegistry(settings, tracking)
    batches = FileBatchStore(jobs)
    record = RecordService(
        settings, jobs, runs, tracking, others={"batch": lambda job: batch_record(job, jobs, batches)}
    )
    metrics = MetricService(settings, FileMetrics(home))
    queue = DbosJobQueue(
        settings,
        jobs,
        command=lambda job_id: [sys.executable, "-m", "dspyui.bootstrap", jobs.get(job_id).kind, job_id],
        prepare=lambda job_id: _child_environment(settings, jobs, job_id, local_lm, metrics),
        on_change=lambda job_id: _after_change(settings, jobs, batches, record, job_id),
    )
    runner = ChildRunner(settings, local_lm)
    feedback = FeedbackService(settings, tracking, MlflowFeedbackStore(settings, tracking))
    models = ModelSource(registry, runs, programs, api_base=settings.lm_api_base)
    data = DataService(FileTableReader(max_bytes=settings.max_upload_mb * 1024**2), uploads)
    run_list = RunService(MlflowRunLibrary(settings, tracking))
    gate = GateService(registry, run_list, settings.promotion_gate)
    services = Services(
        settings=settings,
        tracking=tracking,
        local_lm=local_lm,
        lms=LMService(settings, runner, ListedPrices()),
        data=data,
        metrics=metrics,
        batches=BatchService(
            jobs,
            batches,
            queue,
            models,
            BatchFiles(FileInputReader(), uploads),
            metrics,
            settings,
        ),
        jobs=JobService(
            jobs,
            queue,
            data,
            metrics,
            keys=KeyRules.of(settings),
            wants_record=record.wanted,
            on_described=record.wake,
        ),
        predict=PredictService(models, runner, metrics, feedback, keys=KeyRules.of(settings)),
        feedback=feedback,
        record=record,
        waiting=WaitingService(
            settings, jobs, record, tracking, FileTraceSpool(), loose={calls_folder(home): feedback.send}
        ),
        register=RegisterService(runs, registry, record, jobs, gate),
        reuse=ReuseService(jobs, runs, data, metrics),
        runs=runs,
        run_list=run_list,
        traces=TraceService(MlflowTraceLibrary(settings, tracking)),
        registry=registry,
        models=ModelService(registry, gate),
        job_store=jobs,
        programs=programs,
        uploads=uploads,
        folder=FileDataFolder(home),
    )
    return App(services=services, queue=queue, runner=runner)


def _after_change(
    settings: Settings, jobs: FileJobStore, batches: FileBatchStore, record: RecordService, job_id: str
) -> None:
    record.wake()
    try:
        job = jobs.get(job_id)
        if job.kind == "batch" and job.is_terminal:
            # One that was killed could not do it itself.
            batches.clear_target(job_id)
            with _board(settings) as board:
                if board is not None:
                    board.forget(job_id)
    except NotFoundError:
        _log.warning("Job %s was deleted before it was tidied up", job_id)
    except (DSPyUIError, OSError):
        # The queue goes on: what lies there harms no other job.
        _log.exception("Job %s could not be tidied up", job_id)


# What each kind of job asks for: its LMs, and the metrics that may be a person's own.
_NEEDS: Mapping[JobKind, Callable[[FileJobStore, str], tuple[LMRoles, Sequence[MetricSpec]]]] = {
    "compile": lambda jobs, job_id: ((spec := jobs.spec(job_id)).lms, spec.metrics),
    "batch": lambda jobs, job_id: _batch_needs(FileBatchStore(jobs), job_id),
}


# How a job of each kind shows that it waits for the bundled model.
_SHOW_WAITING: Mapping[JobKind, Callable[[FileJobStore, str], None]] = {
    "compile": show_waiting_compile,
    "batch": lambda jobs, job_id: show_waiting_batch(FileBatchStore(jobs), job_id),
}


def _batch_needs(batches: FileBatchStore, job_id: str) -> tuple[LMRoles, Sequence[MetricSpec]]:
    spec, program = batches.spec(job_id), batches.model(job_id).program
    own = (spec.metric,) if spec.metric else ()
    return spec.lms(program), (*program.metrics, *own)


def _child_environment(
    settings: Settings, jobs: FileJobStore, job_id: str, local_lm: LocalLM, metrics: MetricService
) -> Mapping[str, str]:
    kind = jobs.get(job_id).kind
    lms, asked = _NEEDS[kind](jobs, job_id)
    settings.keys.mark_secret(secret_variables(lms))
    # Again: a job that is picked up after a restart, or by another process, may have lost a key that was typed in,
    # and the program may be open to others by now.
    KeyRules.of(settings).check(lms)
    metrics.check(asked)
    if kind == "compile":
        # A metric's file may have been changed while the job waited: the record tells of the one that scores.
        jobs.write_digests(job_id, {**jobs.spec(job_id).digests, **metrics.digests(asked)})
    environment = settings.worker_environment()
    if lms.uses_local:
        environment[LOCAL_LM_URL] = ensure_for_job(
            job_id, jobs, local_lm, show_waiting=partial(_SHOW_WAITING[kind], jobs)
        )
    return environment


# Child processes.


def job_child(kind: JobKind, job_id: str, out: TextIO) -> int:
    """Run the job of a folder; the last line on `out` is the outcome. Returns the exit code."""
    from dspyui.adapters.dbos_jobs.child import die_with_parent

    die_with_parent()
    settings = Settings.load()
    jobs = FileJobStore(settings.home)
    settings.keys.mark_secret(secret_variables(_NEEDS[kind](jobs, job_id)[0]))
    with jobs.lock_job(job_id, seconds=60):
        outcome = _outcome(settings, jobs, job_id, _CHILDREN[kind])
    print(outcome.model_dump_json(), file=out, flush=True)
    return 0 if outcome.status == "done" else 1


def _outcome(
    settings: Settings, jobs: FileJobStore, job_id: str, work: "Callable[[Settings, FileJobStore, str], None]"
) -> ChildOutcome:
    try:
        work(settings, jobs, job_id)
    except DSPyUIError as exc:
        return _failed(exc.code, exc.values, settings)
    except Exception as exc:  # noqa: BLE001 - the child's last line must tell the parent what happened
        if full := find_no_room(exc, jobs.folder(job_id)):
            return _failed(full.code, full.values, settings)
        return _failed("job.unexpected", {"problem": f"{type(exc).__name__}: {exc}"}, settings)
    return ChildOutcome(status="done")


def _compile(settings: Settings, jobs: FileJobStore, job_id: str) -> None:
    folder = jobs.folder(job_id) / "traces"
    # An earlier attempt's traces are of calls that this attempt makes again.
    for left in folder.glob("*") if folder.is_dir() else ():
        left.unlink(missing_ok=True)  # a job that waited for room takes its mark away by itself
    traced = settings.mlflow_enabled and settings.mlflow_log_traces
    room = _trace_room(settings, jobs, job_id)
    eval_sink = FileTraceSink(folder, room) if traced and settings.mlflow_log_traces_from_eval else None
    compile_sink = FileTraceSink(folder, room) if traced and settings.mlflow_log_traces_from_compile else None
    try:
        engine = _engine(settings, jobs.spec(job_id).lms, compile_sink)
        CompileRun(
            job_id,
            jobs=jobs,
            programs=FileProgramStore(settings.home),
            artifacts=FileArtifactWriter(jobs),
            engine=engine,
            eval_sink=eval_sink,
        ).run()
    finally:
        for sink in (eval_sink, compile_sink):
            if sink is not None:
                sink.close()


def _batch(settings: Settings, jobs: FileJobStore, job_id: str) -> None:
    batches, uploads = FileBatchStore(jobs), FileUploadStore(settings.home)
    spec = batches.spec(job_id)
    # The traces of an earlier attempt stay: its rows are not asked again.
    traced = settings.mlflow_enabled and settings.mlflow_log_traces
    room = _trace_room(settings, jobs, job_id)
    sink = FileTraceSink(jobs.folder(job_id) / "traces", room) if traced else None
    share = settings.trace_sample if spec.trace_sample is None else spec.trace_sample
    try:
        with _board(settings) as board:
            BatchRun(
                job_id,
                jobs=jobs,
                batches=batches,
                open_input=BatchFiles(FileInputReader(), uploads).open,
                crew=_crew(settings, spec, batches.model(job_id).program, board),
                tracing=Tracing(sink, share) if sink is not None else None,
            ).run()
    finally:
        if sink is not None:
            sink.close()


def _crew(settings: Settings, spec: BatchSpec, program: CompiledProgram, board: BatchBoard | None) -> Crew:
    """Who asks a batch's rows: every machine that helps, if there is a board and they can; else this process."""
    lms = spec.lms(program)
    if board is not None and is_shareable(spec, program):
        return SharedCrew(board, _engine(settings, lms, None), partial(_helping_engine, settings, None))
    limiter = CallLimiter(spec.concurrency, requests=spec.requests_per_minute, tokens=spec.tokens_per_minute)
    return OwnCrew(_engine(settings, lms, None, gate=limiter), limiter)


@contextmanager
def _board(settings: Settings) -> "Iterator[PostgresBoard | None]":
    """The database over which machines share batches, if there is one."""
    if settings.database_url is None:
        yield None
        return
    from dspyui.adapters.shared_batches.board import PostgresBoard

    with closing(PostgresBoard(settings.database_url)) as board:
        yield board


@contextmanager
def _helping_engine(
    settings: Settings, rules: KeyRules | None, batch: SharedBatch, gate: CallGate
) -> "Iterator[DspyEngine]":
    """The engine that asks a shared batch's rows. The rules, if any, say which keys may go where."""
    if rules is not None:
        # Its host has looked too; but what stands in the database may have been put there by anybody.
        if not batch.is_shareable:
            raise BadRequestError("sharing.not_shareable")
        rules.check(batch.lms)
        rules.check_reach(batch.lms)
    settings.keys.mark_secret(secret_variables(batch.lms))
    with closing(_engine(settings, batch.lms, None, gate=gate)) as engine:
        yield engine


@contextmanager
def batch_worker(
    settings: Settings,
    *,
    calls: int,
    tell: Callable[[Notice], None],
    refused: Callable[[str, BaseException], None],
) -> Iterator[ChunkWorker]:
    """A worker on the batches of other machines. See `ChunkWorker`.

    Raises BadRequestError without DSPYUI_DATABASE_URL, UnavailableError when the database cannot be used.
    """
    # Whoever can write to the database must not have this machine's keys sent to an address of theirs.
    rules = replace(KeyRules.of(settings), shared=True)
    set_environment(settings.worker_environment())
    with _board(settings) as board:
        if board is None:
            raise BadRequestError("sharing.no_database")
        # Imported ahead of the first batch, of which the others would have done a good part by then.
        import dspyui.adapters.dspy_engine.engine  # noqa: F401

        with board.work(f"{socket.gethostname()} {os.getpid()}") as seat:
            make_engine = partial(_helping_engine, settings, rules)
            yield ChunkWorker(seat, make_engine, calls=calls, tell=tell, refused=refused)


def _trace_room(settings: Settings, jobs: FileJobStore, job_id: str) -> TraceRoom:
    """What the traces of all jobs and single calls together may take.

    The job's log tells when it has to wait for some.
    """

    def folders() -> Sequence[Path]:
        # Those of other jobs are not sent, so nobody may wait for them to go.
        found = [calls_folder(settings.home)]
        for waiting in jobs.pending_records():
            with suppress(NotFoundError):  # deleted since it was listed
                found.append(jobs.folder(waiting) / "traces")
        return found

    def tell(size: int | None) -> None:
        budget = f"{settings.trace_disk_mb:,} MB"
        event = (
            JobEvent(at=datetime.now(UTC), kind="job.traces_room")
            if size is None
            else JobEvent(
                at=datetime.now(UTC),
                kind="job.traces_full",
                values={"size": f"{size / 1e6:,.0f} MB", "budget": budget},
                level="warning",
            )
        )
        jobs.append_event(job_id, event)

    return TraceRoom(settings.trace_budget, folders, tell)


_CHILDREN: "Mapping[JobKind, Callable[[Settings, FileJobStore, str], None]]" = {
    "compile": _compile,
    "batch": _batch,
}


def _failed(code: str, values: Mapping[str, object], settings: Settings) -> ChildOutcome:
    shown = {name: _redacted(value, settings) for name, value in values.items()}
    detail = settings.redact(traceback.format_exc())[-8000:]
    return ChildOutcome(status="failed", failure=JobFailure(code=code, values=shown, detail=detail))


def _redacted(value: object, settings: Settings) -> object:
    if isinstance(value, Mapping):
        return {name: _redacted(inner, settings) for name, inner in value.items()}
    return settings.redact(value) if isinstance(value, str) else value


def answering_child(out: TextIO) -> int:
    """Answer requests, a line of JSON each, until the parent is gone. The first line on `out` says that it is ready."""
    from dspyui.adapters.dbos_jobs.child import lines_from_parent

    lines = lines_from_parent()
    # Imported ahead of the first request, which then need not wait for it.
    import dspyui.adapters.dspy_engine.engine  # noqa: F401

    settings = Settings.load()
    print(json.dumps({"ready": True}), file=out, flush=True)
    for line in lines:
        print(json.dumps(_answered(settings, json.loads(line))), file=out, flush=True)
    return 0


def _answered(settings: Settings, request: Mapping[str, Any]) -> dict[str, Any]:
    with ExitStack() as stack:

        def make_engine(lms: LMRoles) -> "DspyEngine":
            settings.keys.mark_secret(secret_variables(lms))
            return stack.enter_context(
                closing(_engine(settings, lms, None, local_base_url=request["local_url"]))
            )

        return _answered_by(settings, request, make_engine)


def _answered_by(
    settings: Settings, request: Mapping[str, Any], make_engine: "Callable[[LMRoles], DspyEngine]"
) -> dict[str, Any]:
    try:
        return answer(request, make_engine, lambda: open_calls(settings.home))
    except DSPyUIError as exc:
        told = exc
    except Exception as exc:
        # Anything else ends this process, and what it said on stderr is told.
        if (full := find_no_room(exc, settings.home)) is None:
            raise
        told = full
    failure = _failed(told.code, told.values, settings).failure
    return {"failure": failure.model_dump(mode="json") if failure else None}


def _engine(
    settings: Settings,
    lms: LMRoles,
    compile_sink: FileTraceSink | None,
    *,
    gate: CallGate | None = None,
    local_base_url: str | None = None,
) -> "DspyEngine":
    from dspyui.adapters.dspy_engine.engine import DspyEngine

    return DspyEngine(
        lms,
        environment=settings.child_environment,
        cache_folder=settings.home / "cache" / "lm",
        local_base_url=local_base_url or settings.child_environment.get(LOCAL_LM_URL),
        compile_sink=compile_sink,
        metric_files=FileMetrics(settings.home),
        gate=gate,
    )


def child_main(arguments: Sequence[str]) -> int:
    """`python -m dspyui.bootstrap compile JOB_ID`, `… batch JOB_ID`, `… answer`; for children only."""
    # Libraries print; stdout carries only our own lines.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    match arguments:
        case [("compile" | "batch") as kind, job_id]:
            return job_child(kind, job_id, out)
        case ["answer"]:
            return answering_child(out)
        case _:
            return 2


if __name__ == "__main__":
    sys.exit(child_main(sys.argv[1:]))
