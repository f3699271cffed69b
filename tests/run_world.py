"""Runs as finished compiles leave them in MLflow: params, metrics, spec and result."""

from datetime import timedelta

from dspyui.adapters.files.batches import FileBatchStore
from dspyui.adapters.files.jobs import FileJobStore
from dspyui.domain.batches import BatchModel, BatchResult, BatchSpec, ScoreSummary
from dspyui.domain.compiles import (
    ChatMessage,
    CompileResult,
    Evaluation,
    Progress,
    RowResult,
    SplitSummary,
    TrialScore,
    Usage,
)
from dspyui.domain.intervals import paired_difference
from dspyui.domain.jobs import Job
from dspyui.domain.runs import RunRecord
from dspyui.services.batch_records import batch_record
from dspyui.services.run_records import run_record
from dspyui.services.runs import RunService
from tests.api.world import T0, spec
from tests.batch_world import program
from tests.contracts.fakes import InMemoryRunStore
from tests.contracts.library import MemoryLibrary

ROWS = 12


def evaluation(scores, *, prompt="Extract.", first=0):
    """One scored row each; a right answer is `pN`, a wrong one `?`. `first` is the number of the first row."""
    rows = tuple(
        RowResult(
            index=index,
            inputs={"message": f"m{first + index}"},
            expected={"product": f"p{first + index}"},
            predicted={"product": f"p{first + index}" if score == 1 else "?"},
            score=score,
            by_field={} if score is None else {"product": score},
        )
        for index, score in enumerate(scores)
    )
    scored = [score for score in scores if score is not None]
    return Evaluation(
        score=sum(scored) / len(scored), rows=rows, prompt=(ChatMessage(role="system", content=prompt),)
    )


def result(after, *, before=None, prompt="Extract.", first=0):
    """A compile whose optimised program scored `after`; the baseline got none right unless `before` is given."""
    before = [0.0] * len(after) if before is None else before
    pairs = [(b, a) for b, a in zip(before, after, strict=True) if a is not None and b is not None]
    return CompileResult(
        baseline=evaluation(before, first=first),
        optimised=evaluation(after, prompt=prompt, first=first),
        difference=paired_difference([b for b, _ in pairs], [a for _, a in pairs]),
        trials=(
            TrialScore(step=0, label="baseline", score=0.25),
            TrialScore(step=1, label="LabeledFewShot", score=0.75),
        ),
        usage=Usage(lm_calls=24, input_tokens=1000, output_tokens=200, cost=0.012),
        splits={"test": SplitSummary(rows=len(after), digest="d" * 64)},
        data_digest="d" * 64,
        versions={"dspy": "3.4.1"},
    )


def record_of(job_id, found, folder, *, name="", minutes=0, **changes) -> RunRecord:
    """The record that a finished job of this result sends."""
    asked = spec(**{"optimizer": {"kind": "labeled_few_shot"}, **changes})
    started = T0 + timedelta(minutes=minutes)
    job = Job(
        id=job_id, title=name or asked.program.name, who="anna", status="done",
        created_at=started, started_at=started, ended_at=started + timedelta(seconds=90),
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(found.model_dump_json(), encoding="utf-8")
    return run_record(job, asked, Progress(trials=found.trials), found, folder, with_evaluations=True)


def batch_record_of(home, *, name="things", version=3, minutes=0) -> RunRecord:
    """The record that a finished batch of a version sends: 12 rows, two of them failed."""
    jobs = FileJobStore(home)
    store = FileBatchStore(jobs)
    asked = BatchSpec(model=f"models:/{name}/Production", path="rows.csv")
    model = BatchModel(
        program=program("http://127.0.0.1:9/v1"), uri=f"models:/{name}/{version}", name=name, version=version
    )
    job_id = store.create(asked, model, title=name, who="anna").id
    folder = jobs.folder(job_id)
    for file in ("output.jsonl", "errors.jsonl"):
        (folder / file).write_text('{"message": "My lamp", "product": "lamp"}\n')
    found = BatchResult(
        total_rows=12, success_count=10, error_count=2, reused=0,
        usage=Usage(lm_calls=12, input_tokens=400, output_tokens=80, cost=0.25), latency_ms_mean=210,
        latency_ms_p50=210, latency_ms_p95=1220, latency_ms_p99=1230, seconds=2, rows_per_second=6, traced=12,
        trace_sample=1.0, errors={"engine.server": 2}, input_digest="d", output=str(folder / "output.jsonl"),
        versions={}, score=ScoreSummary(value=0.8, low=0.5, high=0.95, rows=10),
    )  # fmt: skip
    store.write_result(job_id, found)
    started = T0 + timedelta(minutes=minutes)
    moves = {"status": "done", "started_at": started, "ended_at": started + timedelta(seconds=2)}
    jobs.update(job_id, lambda job: job.model_copy(update=moves))
    return batch_record(jobs.get(job_id), jobs, store)


class Shelf:
    """Runs that were made elsewhere, put before the services of a world."""

    def __init__(self, world, folder) -> None:
        self.store = InMemoryRunStore()
        self.library = MemoryLibrary(self.store, world.registry)
        runs = RunService(self.library)
        object.__setattr__(world.services, "run_list", runs)
        world.gate._runs = runs
        self._folder = folder
        self._count = 0

    def put(self, found=None, **changes) -> str:
        self._count += 1
        job_id = f"20261124-09{self._count:04d}-00000000"
        found = found or result([1.0] * 9 + [0.0] * 3)
        record = record_of(job_id, found, self._folder / job_id, minutes=self._count, **changes)
        return self.store.send(record).run_id

    def put_batch(self, **changes) -> str:
        """A batch's Run."""
        self._count += 1
        return self.store.send(batch_record_of(self._folder, minutes=self._count, **changes)).run_id
