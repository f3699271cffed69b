"""Services for the API's tests: real files in a temporary folder, in-memory everything that would start a process."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from threading import Event

from dspyui.adapters.dspy_engine.prices import ListedPrices
from dspyui.adapters.files.batch_inputs import FileInputReader
from dspyui.adapters.files.batches import FileBatchStore
from dspyui.adapters.files.folder import FileDataFolder
from dspyui.adapters.files.jobs import FileJobStore
from dspyui.adapters.files.metrics import FileMetrics
from dspyui.adapters.files.programs import FileProgramStore
from dspyui.adapters.files.tables import FileTableReader
from dspyui.adapters.files.uploads import FileUploadStore
from dspyui.adapters.mlflow_store.spool import FileTraceSpool
from dspyui.domain.base import Fault
from dspyui.domain.compiles import ChatMessage, CompileResult, CompileSpec, Evaluation, RowResult, Usage
from dspyui.domain.engine import LMReply, Patience, PredictOutcome, ProgramCall
from dspyui.domain.intervals import Difference
from dspyui.domain.jobs import Job, JobFailure
from dspyui.domain.lms import LMSpec, LocalLMState
from dspyui.domain.optimizers import OptimizerSpec
from dspyui.domain.programs import CompiledProgram
from dspyui.domain.registry import ModelVersion
from dspyui.domain.runs import RunInfo, RunLink, TrackingState
from dspyui.domain.splits import Splits
from dspyui.errors import CancelledError, FailedError, NotFoundError, UnavailableError
from dspyui.services import Services
from dspyui.services.batches import BatchFiles, BatchService
from dspyui.services.data import DataService
from dspyui.services.documents import spec_of
from dspyui.services.feedback import FeedbackService
from dspyui.services.gate import GateService
from dspyui.services.jobs import JobService
from dspyui.services.keys import KeyRules
from dspyui.services.lms import LMService
from dspyui.services.metrics import MetricService
from dspyui.services.model_source import ModelSource
from dspyui.services.models import ModelService
from dspyui.services.predict import PredictService
from dspyui.services.record import RecordService
from dspyui.services.register import RegisterService
from dspyui.services.reuse import ReuseService
from dspyui.services.runs import RunService
from dspyui.services.traces import TraceService
from dspyui.services.waiting import WaitingService
from dspyui.settings import Settings
from tests.contracts.fakes import InMemoryRegistry, MemoryFeedback
from tests.contracts.library import MemoryLibrary
from tests.trace_world import MemoryTraces

DOCUMENT = {
    "program": {
        "name": "产品 extraction/1",
        "signature": {"inputs": [{"name": "message"}], "outputs": [{"name": "product"}]},
    },
    "optimizer": {"kind": "none"},
    "data": {"rows": [{"message": f"m{n}", "product": f"p{n}"} for n in range(12)]},
}
MLFLOW = "http://127.0.0.1:5999"
T0 = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)


class MemoryQueue:
    """Remembers what it was asked; a job is cancelled at once."""

    def __init__(self, jobs: FileJobStore) -> None:
        self.submitted: list[str] = []
        # Executors that have ended.
        self.dead: set[str] = set()
        self._jobs = jobs

    def start(self, *, works: bool) -> None: ...

    def submit(self, job_id: str) -> None:
        self.submitted.append(job_id)

    def run_here(self, job_id: str) -> None:
        self.submitted.append(job_id)

    def cancel(self, job_id: str) -> None:
        self._jobs.update(
            job_id, lambda job: job.model_copy(update={"status": "cancelled", "cancel_requested": True})
        )

    def release(self, job_id: str) -> None: ...

    def is_interrupted(self, job: Job) -> bool:
        return job.status == "running" and job.executor in self.dead

    def close(self) -> None: ...


class FixedTracking:
    """A server that is ready, or away."""

    def __init__(self) -> None:
        self.now = TrackingState(status="ready", address=MLFLOW, origin="local", version="3.17.2")

    def start(self) -> None: ...

    def state(self) -> TrackingState:
        return self.now

    def address(self) -> str:
        if self.now.status != "ready":
            raise UnavailableError("record.tracking_off")
        return MLFLOW

    def wait(self, seconds: float) -> TrackingState:
        return self.now

    def start_local(self) -> None: ...

    def close(self) -> None: ...


class NoLocalLM:
    """Switched off."""

    def ensure(self) -> str:
        raise UnavailableError("record.tracking_off")

    def state(self) -> LocalLMState:
        return LocalLMState(status="off")

    def close(self) -> None: ...


class EchoRunner:
    """Answers every output field with the first input in capitals, in the program's own name if it has been given one.

    An input that says `broken` is answered with what cannot be read, one that says `slow` waits to be cancelled, and
    one that says `hidden` ends the process.
    """

    def __init__(self, feedback: "MemoryFeedback") -> None:
        self._feedback = feedback
        self.calls: list[ProgramCall] = []
        self.warmed = 0

    def warm(self) -> None:
        self.warmed += 1

    def predict(self, call: ProgramCall, patience: Patience) -> PredictOutcome:
        self.calls.append(call)
        patience.on_phase("asking")
        said = str(next(iter(call.inputs.values())))
        if "slow" in said and not patience.cancelled.wait(patience.seconds):
            raise FailedError("predict.timeout", seconds=f"{patience.seconds:g}")
        if patience.cancelled.is_set():
            raise CancelledError("predict.cancelled")
        if "hidden" in said:
            raise FailedError("predict.died", code=-9, problem="killed")
        is_broken = "broken" in said
        name = call.program.spec.name
        word = said.upper() if name == DOCUMENT["program"]["name"] else f"{name}: {said.upper()}"
        return PredictOutcome(
            outputs={} if is_broken else _answers(call.program, word),
            fault=Fault(code="predict.unreadable", values={"problem": "no JSON"}) if is_broken else None,
            prompt=(ChatMessage(role="user", content=said.upper()),),
            usage=Usage(lm_calls=1, input_tokens=5, output_tokens=2, cost=0.0012),
            seconds=0.25,
            trace_id=self._feedback.call(call.tags) if call.traced else None,
        )


def _answers(program: CompiledProgram, word: str) -> dict[str, object]:
    samples = {"str": word, "int": len(word), "float": 0.5, "bool": True, "list[str]": [word]}
    fields = program.spec.signature.outputs
    answers = {
        field.name: samples[field.type] if field.type in samples else field.choices[0] for field in fields
    }
    reasons = dict.fromkeys(program.spec.module.added_outputs(), f"Because of {word}.")
    return {**reasons, **answers}


class EchoTester:
    """Answers OK; a model whose name ends in `bad` is refused by its provider, one in `slow` waits to be cancelled."""

    def __init__(self) -> None:
        self.asked: list[LMSpec] = []

    def test(self, lm: LMSpec, cancelled: Event) -> LMReply:
        self.asked.append(lm)
        if lm.model.endswith("bad"):
            raise FailedError("engine.auth", model=lm.model, problem="no such key")
        if lm.model.endswith("slow"):
            cancelled.wait(20)
            raise CancelledError("predict.cancelled")
        used = Usage(lm_calls=1, input_tokens=9, output_tokens=1, cost=0.0)
        return LMReply(text="OK", seconds=0.25, usage=used)


class MemoryRuns:
    """Runs as `send` made them, and the programs in the job folders."""

    def __init__(self, programs: FileProgramStore) -> None:
        self._programs = programs
        self.runs: dict[str, RunInfo] = {}
        self.specs: dict[str, str] = {}
        self.rows: dict[str, Splits] = {}

    def send(self, record) -> RunLink:
        run_id = f"run-{record.job_id}"
        link = RunLink(run_id=run_id, experiment_id="1", url=f"{MLFLOW}/#/experiments/1/runs/{run_id}")
        self.runs[run_id] = RunInfo(
            run_id=run_id,
            experiment_id="1",
            url=link.url,
            name=record.name,
            status=record.status,
            job_id=record.job_id,
            started_at=record.started_at,
            ended_at=record.ended_at,
            params=record.params,
            metrics=record.metrics,
            tags=record.tags,
        )
        return link

    def get_run(self, run_id: str) -> RunInfo:
        if run_id not in self.runs:
            raise NotFoundError("job.unknown", job_id=run_id)
        return self.runs[run_id]

    def search_runs(self, *, limit: int = 100) -> Sequence[RunInfo]:
        return tuple(self.runs.values())[:limit]

    def program(self, run_id: str) -> str:
        return self._programs.get(self.get_run(run_id).job_id or "").to_json()

    def input_example(self, run_id: str) -> dict[str, str]:
        return {"message": "m1"}

    def spec(self, run_id: str) -> str:
        if run_id not in self.specs:
            raise NotFoundError("run.no_spec", run_id=run_id, path="spec/compile.yaml")
        return self.specs[run_id]

    def splits(self, run_id: str) -> Splits:
        if run_id not in self.rows:
            raise NotFoundError("run.no_data", run_id=run_id)
        return self.rows[run_id]

    def describe(self, run_id: str, *, name: str, note: str | None) -> None:
        tags = {} if note is None else {"mlflow.note.content": note}
        run = self.get_run(run_id)
        self.runs[run_id] = run.model_copy(update={"name": name, "tags": {**run.tags, **tags}})

    def send_traces(self, folder, link, *, stop=None) -> tuple[int, int]:
        return 0, 0


class MemoryRegistry(InMemoryRegistry):
    """The registry in memory, at the world's address and time; remembers who registered."""

    def __init__(self) -> None:
        super().__init__(MLFLOW, T0)
        self.who: list[str] = []

    @property
    def kept(self) -> Sequence[ModelVersion]:
        return tuple(self.versions.values())

    def register(self, request, program, *, tags, input_example) -> ModelVersion:
        version = super().register(request, program, tags=tags, input_example=input_example)
        self.who.append(request.who)
        return version


class World:
    """Everything of one test."""

    def __init__(self, settings: Settings) -> None:
        home = settings.home
        self.settings = settings
        self.jobs = FileJobStore(home)
        self.queue = MemoryQueue(self.jobs)
        self.programs = FileProgramStore(home)
        self.tracking = FixedTracking()
        self.runs = MemoryRuns(self.programs)
        self.registry = MemoryRegistry()
        self.library = MemoryLibrary(self.runs, self.registry)
        self.traces = MemoryTraces()
        self.tester = EchoTester()
        self.feedback = MemoryFeedback()
        self.runner = EchoRunner(self.feedback)
        uploads = FileUploadStore(home)
        data = DataService(FileTableReader(max_bytes=settings.max_upload_mb * 1024**2), uploads)
        record = RecordService(settings, self.jobs, self.runs, self.tracking)
        metrics = MetricService(settings, FileMetrics(home))
        run_list = RunService(self.library)
        self.gate = gate = GateService(self.registry, run_list, settings.promotion_gate)
        models = ModelSource(self.registry, self.runs, self.programs, api_base=None)
        feedback = FeedbackService(settings, self.tracking, self.feedback)
        self.services = Services(
            settings=settings,
            tracking=self.tracking,
            local_lm=NoLocalLM(),
            lms=LMService(settings, self.tester, ListedPrices()),
            data=data,
            metrics=metrics,
            batches=BatchService(
                self.jobs,
                FileBatchStore(self.jobs),
                self.queue,
                models,
                BatchFiles(FileInputReader(), uploads),
                metrics,
                settings,
            ),
            jobs=JobService(
                self.jobs,
                self.queue,
                data,
                metrics,
                keys=KeyRules.of(settings),
                wants_record=True,
                on_described=record.wake,
            ),
            predict=PredictService(models, self.runner, metrics, feedback, keys=KeyRules.of(settings)),
            feedback=feedback,
            record=record,
            waiting=WaitingService(settings, self.jobs, record, self.tracking, FileTraceSpool()),
            register=RegisterService(self.runs, self.registry, record, self.jobs, gate),
            reuse=ReuseService(self.jobs, self.runs, data, metrics),
            runs=self.runs,
            run_list=run_list,
            traces=TraceService(self.traces),
            registry=self.registry,
            models=ModelService(self.registry, gate),
            job_store=self.jobs,
            programs=self.programs,
            uploads=uploads,
            folder=FileDataFolder(home),
        )

    def submitted(self, **changes: object) -> str:
        """A queued job's id."""
        return self.services.jobs.submit(spec(**changes), who="tester").id

    def done(self) -> str:
        """A finished job's id, with its program."""
        job_id = self.submitted()
        self.programs.keep(job_id, program())
        self.jobs.write_result(job_id, result())
        self.jobs.update(
            job_id,
            lambda job: job.model_copy(
                update={"status": "done", "started_at": T0, "ended_at": T0 + timedelta(seconds=12.5)}
            ),
        )
        return job_id

    def failed(self) -> str:
        """A failed job's id."""
        job_id = self.submitted()
        failure = JobFailure(code="job.unexpected", values={"problem": "no such luck"})
        self.jobs.update(job_id, lambda job: job.model_copy(update={"status": "failed", "failure": failure}))
        return job_id


def spec(**changes: object) -> CompileSpec:
    """The document above, with changes at its top level."""
    return spec_of({**DOCUMENT, **changes})


def program() -> CompiledProgram:
    """What a compile of it made."""
    asked = spec()
    return CompiledProgram(
        spec=asked.program,
        optimizer=OptimizerSpec(kind="none"),
        lm=LMSpec(),
        state={},
        signature_digest=asked.program.signature.digest(),
    )


def result() -> CompileResult:
    """Baseline 0.25, optimised 0.75."""

    def evaluation(score: float) -> Evaluation:
        row = RowResult(
            index=0, inputs={"message": "m"}, expected={"product": "p"}, predicted={"product": "p"},
            score=score, by_field={"product": score},
        )  # fmt: skip
        return Evaluation(score=score, rows=(row,))

    return CompileResult(
        baseline=evaluation(0.25),
        optimised=evaluation(0.75),
        difference=Difference(value=0.5, low=0.1, high=0.9, pairs=1, differing=1, method="bootstrap"),
        trials=(),
        usage=Usage(lm_calls=7, lm_cache_hits=1, input_tokens=100, output_tokens=23),
        splits={},
        data_digest="0" * 64,
        versions={},
    )
