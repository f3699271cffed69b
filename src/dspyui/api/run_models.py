"""What the API tells of Runs."""

import math
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from dspyui.domain.comparisons import Estimate, PairedTest, Verdict
from dspyui.domain.intervals import Word
from dspyui.domain.jobs import JobKind
from dspyui.domain.runs import RunInfo
from dspyui.i18n import Language
from dspyui.services.run_comparison import ComparedRow, RunComparison
from dspyui.services.runs import ListedRun, RunDetail, RunListing


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


_SAME = {"run_id", "name", "status", "deleted", "job_id", "url", "started_at", "ended_at"}


def _finite(value: float | None) -> float | None:
    # Other programs record what they like, and JSON has no such numbers.
    return value if value is not None and math.isfinite(value) else None


class VersionOfRun(_Model):
    """A model version that was made of a Run."""

    name: str
    version: int


class RunItem(_Model):
    """A Run in the list; `kind` is None for one of another program.

    Scores are 0.0 to 1.0, times UTC, cost US dollars; None where nothing is recorded.
    """

    run_id: str
    name: str
    kind: JobKind | None
    status: str
    deleted: bool
    job_id: str | None
    url: str
    started_at: datetime | None
    ended_at: datetime | None
    program: str | None
    module: str | None
    optimizer: str | None
    lm: str | None
    baseline_score: float | None
    evaluation_score: float | None
    score_improvement: float | None
    score_improvement_ci_low: float | None
    score_improvement_ci_high: float | None
    cost: float | None
    registered_as: tuple[VersionOfRun, ...]

    @classmethod
    def of(cls, run: ListedRun | RunDetail) -> Self:
        """From the service."""
        info: RunInfo = run.info
        figures = ("baseline_score", "evaluation_score", "score_improvement", "score_improvement_ci_low",
                   "score_improvement_ci_high", "cost")  # fmt: skip
        return cls.model_validate(
            {
                **info.model_dump(include=_SAME),
                **{name: _finite(info.metrics.get(name)) for name in figures},
                "kind": info.kind,
                "program": info.tags.get("dspyui.program"),
                "module": info.params.get("module"),
                "optimizer": info.params.get("optimizer"),
                "lm": info.params.get("lm.task.model"),
                "registered_as": tuple(
                    VersionOfRun(name=made.name, version=made.version) for made in run.registrations
                ),
            }
        )


class RunListResponse(_Model):
    """A page of Runs; `next_page_token` asks for the one after it, None when there is none."""

    runs: tuple[RunItem, ...]
    next_page_token: str | None

    @classmethod
    def of(cls, listing: RunListing) -> Self:
        """From the service."""
        return cls(runs=tuple(map(RunItem.of, listing.runs)), next_page_token=listing.next_token)


class RunResponse(_Model):
    """One Run with everything that was recorded; `notices` tell what cannot be shown here, and why.

    `spec` and `result` are the documents as they were sent. A metric that is no finite number is None.
    """

    run: RunItem
    verdict: Word | None
    params: dict[str, str]
    metrics: dict[str, float | None]
    tags: dict[str, str]
    spec: dict[str, Any] | None
    result: dict[str, Any] | None
    notices: tuple[str, ...]

    @classmethod
    def of(cls, detail: RunDetail, language: Language) -> Self:
        """From the service; notices in the caller's language."""
        info, result = detail.info, detail.result
        found = result.difference if result else None
        return cls(
            run=RunItem.of(detail),
            verdict=found.word if found else None,
            params=info.params,
            metrics={name: _finite(value) for name, value in info.metrics.items()},
            tags=info.tags,
            spec=detail.spec.model_dump(mode="json") if detail.spec else None,
            result=result.model_dump(mode="json") if result else None,
            notices=tuple(notice.sentence(language) for notice in detail.notices),
        )


class ComparedRunItem(_Model):
    """A Run with its scores: over its own test rows, and over those that all Runs have."""

    run_id: str
    name: str
    own: Estimate | None
    common: Estimate | None


class ComparedPair(_Model):
    """Two Runs by their ids, second minus first, with its 95 % interval.

    `p` is adjusted by Holm's method when there are several pairs. `rows_needed` is about how many rows a difference of
    this size would need to be found; None when it is found, or when there is none.
    """

    first: str
    second: str
    difference: float
    low: float | None
    high: float | None
    rows: int
    differing: int
    method: str
    p: float
    verdict: Verdict
    rows_needed: int | None

    @classmethod
    def of(cls, test: PairedTest, run_ids: tuple[str, ...]) -> Self:
        """From the domain."""
        found = test.difference
        return cls(
            first=run_ids[test.first],
            second=run_ids[test.second],
            difference=found.value,
            low=found.low,
            high=found.high,
            rows=found.pairs,
            differing=found.differing,
            method=test.method,
            p=test.adjusted,
            verdict=test.verdict,
            rows_needed=test.rows_needed,
        )


class DisagreeingRow(_Model):
    """A common test row on which the scores differ; answers and scores in the order of the Runs."""

    inputs: dict[str, Any]
    expected: dict[str, Any]
    predicted: tuple[dict[str, Any] | None, ...]
    scores: tuple[float | None, ...]

    @classmethod
    def of(cls, row: ComparedRow) -> Self:
        """From the service."""
        return cls(
            inputs=row.inputs,
            expected=row.expected,
            predicted=tuple(outcome.predicted for outcome in row.outcomes),
            scores=row.scores,
        )


class RunComparisonResponse(_Model):
    """Runs side by side. `obstacle` says why nothing was tested; `params` are those that differ, None where missing.

    `left_out` are the ids of the batches that were asked for too.
    """

    runs: tuple[ComparedRunItem, ...]
    common_rows: int
    tests: tuple[ComparedPair, ...]
    obstacle: str | None
    params: dict[str, tuple[str | None, ...]]
    disagreements: tuple[DisagreeingRow, ...]
    left_out: tuple[str, ...]

    @classmethod
    def of(cls, found: RunComparison, language: Language) -> Self:
        """From the service; the obstacle in the caller's language."""
        run_ids = tuple(run.info.run_id for run in found.runs)
        return cls(
            runs=tuple(
                ComparedRunItem(run_id=run.info.run_id, name=run.info.name, own=run.own, common=run.common)
                for run in found.runs
            ),
            common_rows=found.counted,
            tests=tuple(ComparedPair.of(test, run_ids) for test in found.tests),
            obstacle=found.obstacle.sentence(language) if found.obstacle else None,
            params={param.name: param.values for param in found.params},
            disagreements=tuple(DisagreeingRow.of(row) for row in found.rows if row.disagrees),
            left_out=tuple(info.run_id for info in found.left_out),
        )
