"""What came of a compile, in the few figures the command line and the API tell."""

from dspyui.domain.base import Frozen
from dspyui.domain.compiles import CompileResult, Usage
from dspyui.domain.intervals import Word
from dspyui.domain.jobs import Job, JobStatus, RecordStatus
from dspyui.domain.storage import ProgramStore
from dspyui.errors import NotFoundError
from dspyui.services.jobs import JobView


class FieldMeans(Frozen):
    """A field's mean score before and after, over the rows that count, 0.0 to 1.0."""

    baseline_score: float
    evaluation_score: float


class CompileSummary(Frozen):
    """Scores 0.0 to 1.0, None before there are any; `record` tells how far the Run in MLflow is.

    `score_improvement_ci_low` and `…_high` bound the improvement with 95 % confidence; `verdict` says whether they
    exclude zero. All three are None when nothing was optimised. `by_field` holds every scored field. `unreadable`,
    `failed` and `score_errors` count over both programs the replies that could not be read, the calls that failed and
    the scores that could not be made; `uncounted` are the test rows that therefore count for neither. What an embedder
    was asked is counted apart; `cost` is that of both in US dollars, None when the price of a call is not known.
    """

    job_id: str
    run_id: str | None
    run_url: str | None
    record: RecordStatus
    status: JobStatus
    baseline_score: float | None
    evaluation_score: float | None
    score_improvement: float | None
    score_improvement_ci_low: float | None
    score_improvement_ci_high: float | None
    verdict: Word | None
    pairs: int
    differing: int
    repeats: int
    by_field: dict[str, FieldMeans]
    unreadable: int
    failed: int
    score_errors: int
    uncounted: int
    program_path: str | None
    duration_seconds: float | None
    lm_calls: int
    lm_cache_hits: int
    input_tokens: int
    output_tokens: int
    total_tokens: int
    embedding_calls: int
    embedding_tokens: int
    cost: float | None


def summarise(view: JobView, programs: ProgramStore) -> CompileSummary:
    """The figures of a job as it stands."""
    result = view.result
    usage: Usage = result.usage if result else view.progress.usage
    found = result.difference if result else None
    return CompileSummary(
        job_id=view.job.id,
        run_id=view.record.run_id,
        run_url=view.record.run_url,
        record=view.record.status,
        status=view.job.status,
        baseline_score=result.baseline.score if result else None,
        evaluation_score=result.optimised.score if result else None,
        score_improvement=result.improvement if result else None,
        score_improvement_ci_low=found.low if found else None,
        score_improvement_ci_high=found.high if found else None,
        verdict=found.word if found else None,
        pairs=found.pairs if found else 0,
        differing=found.differing if found else 0,
        repeats=view.spec.repeats,
        by_field=_by_field(result) if result else {},
        unreadable=result.baseline.unreadable + result.optimised.unreadable if result else 0,
        failed=result.baseline.failed + result.optimised.failed if result else 0,
        score_errors=result.baseline.score_errors + result.optimised.score_errors if result else 0,
        uncounted=result.uncounted if result else 0,
        program_path=_find_program(programs, view.job.id),
        duration_seconds=duration_seconds(view.job),
        lm_calls=usage.lm_calls,
        lm_cache_hits=usage.lm_cache_hits,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        embedding_calls=usage.embedding_calls,
        embedding_tokens=usage.embedding_tokens,
        cost=usage.cost,
    )


def _by_field(result: CompileResult) -> dict[str, FieldMeans]:
    return {
        name: FieldMeans(baseline_score=before, evaluation_score=after)
        for name, (before, after) in result.by_field.items()
    }


def duration_seconds(job: Job) -> float | None:
    """From the first start to the end; None while there is no end, or when it never started."""
    if job.started_at is None or job.ended_at is None:
        return None
    return (job.ended_at - job.started_at).total_seconds()


def _find_program(programs: ProgramStore, job_id: str) -> str | None:
    try:
        return programs.path(job_id)
    except NotFoundError:
        return None
