"""Scoring of a split: predictions come in from many threads, in any order, and become an `Evaluation`."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dspyui.domain.base import Fault
from dspyui.domain.compiles import CompileSpec, Evaluation, RowResult, counts
from dspyui.domain.engine import Prediction
from dspyui.domain.intervals import Difference, paired_difference
from dspyui.domain.metrics import RowScore, ScoreTools, score_row, weighted_mean
from dspyui.domain.signatures import Row
from dspyui.domain.traces import SCORE_TAG, Trace, TraceSink, expected_tags
from dspyui.errors import FailedError


@dataclass(frozen=True, slots=True)
class Attempt:
    """One answer to one row, and its score."""

    prediction: Prediction
    score: RowScore
    trace_id: str | None


class ErrorBudget:
    """Counts answers and scores that a model failed to give, over the whole compile. Thread-safe."""

    def __init__(self, limit: int, on_error: Callable[[int, Fault], None]) -> None:
        """`on_error` is told of each one: the row, counted from 1, and what happened."""
        self._limit = limit
        self._on_error = on_error
        self._lock = threading.Lock()
        self._count = 0

    def spend(self, row: int, faults: Sequence[Fault]) -> None:
        """Count what happened at a row. Raises FailedError when that is more than the limit."""
        with self._lock:
            for fault in faults:
                self._on_error(row, fault)
                self._count_one("compile.too_many_errors", row=row, problem=fault.model_dump())

    def spend_optimising(self, optimizer: str, fault: Fault) -> None:
        """Count what happened while an optimizer worked. Raises FailedError when that is more than the limit."""
        with self._lock:
            self._count_one(
                "compile.too_many_errors_optimising", optimizer=optimizer, problem=fault.model_dump()
            )

    def check_readable(self, replies: int, row: int, fault: Fault) -> None:
        """Raises FailedError when more replies than the limit have come, and not one could be read; `fault` is of the
        last one. They are the model's mistakes, not missing answers: with one that can be read, they are only scored.
        """
        if replies > self._limit:
            raise FailedError(
                "compile.none_readable", count=replies, limit=self._limit, row=row, problem=fault.model_dump()
            )

    def _count_one(self, code: str, **values: object) -> None:
        self._count += 1
        if self._count > self._limit:
            raise FailedError(code, limit=self._limit, **values)


class Scoring:
    """Collects and scores the predictions of one program on one split."""

    def __init__(
        self,
        spec: CompileSpec,
        rows: Sequence[Row],
        *,
        budget: ErrorBudget,
        on_row: Callable[[int, float | None, bool], None],
        sink: TraceSink | None,
        needs_readable: bool = False,
    ) -> None:
        """`on_row` is told, one call at a time: answers so far, their mean score (None before
        the first answer), whether it is a row's first.

        `needs_readable`: stop a model that gives nothing that can be read.
        """
        self._spec = spec
        self._rows = rows
        self._budget = budget
        self._on_row = on_row
        self._sink = sink
        self._lock = threading.Lock()
        self._attempts: list[list[Attempt]] = [[] for _ in rows]
        self._scores: list[float] = []
        self._answered = False
        self._done = 0
        self._unreadable: int | None = 0 if needs_readable else None

    def taker(self, tools: ScoreTools) -> Callable[[int, Prediction], None]:
        """What takes the predictions of one repeat; several threads may call it at once."""

        def take(index: int, prediction: Prediction) -> None:
            self._take(index, prediction, tools)

        return take

    def _take(self, index: int, prediction: Prediction, tools: ScoreTools) -> None:
        score = self._score(index, prediction, tools)
        faults = (Fault.of(prediction.failure),) if prediction.failure else score.problems
        self._budget.spend(index + 1, faults)
        trace = self._told(index, prediction.trace, score)
        with self._lock:
            if self._sink is not None:
                self._sink.write(trace)
            is_first = not self._attempts[index]
            trace_id = trace.mlflow_id if self._sink is not None else None
            self._attempts[index].append(Attempt(prediction, score, trace_id))
            self._done += 1
            if score.is_scored:
                self._scores.append(score.value)
            self._answered = self._answered or prediction.failure is None
            mean = sum(self._scores) / len(self._scores) if self._scores and self._answered else None
            self._on_row(self._done, mean, is_first)
            self._check_readable(index + 1, prediction)

    def _told(self, index: int, trace: Trace, score: RowScore) -> Trace:
        """The trace with what was expected and how it was scored, for whoever reads it in MLflow."""
        names = [field.name for field in self._spec.program.signature.outputs]
        tags = {**trace.tags, **expected_tags(pick(self._rows[index], names))}
        if score.is_scored:
            tags[SCORE_TAG] = f"{score.value:.4f}"
        return trace.model_copy(update={"tags": tags})

    def _check_readable(self, row: int, prediction: Prediction) -> None:
        if self._unreadable is None or prediction.failure is not None:
            return
        if prediction.error is None:
            self._unreadable = None
            return
        self._unreadable += 1
        fault = Fault(code="predict.unreadable", values={"problem": prediction.error})
        self._budget.check_readable(self._unreadable, row, fault)

    def _score(self, index: int, prediction: Prediction, tools: ScoreTools) -> RowScore:
        signature = self._spec.program.signature
        row = self._rows[index]
        inputs = pick(row, [field.name for field in signature.inputs])
        found = score_row(
            self._spec.metric,
            signature,
            inputs=inputs,
            expected=row,
            predicted=prediction.outputs,
            tools=tools,
        )
        return found.model_copy(update={"remarks": {}}) if prediction.failure else found

    def evaluation(self) -> Evaluation:
        """All rows, in their order. Raises FailedError when the model gave not one answer, or not one was scored."""
        rows = tuple(self._result(index, attempts) for index, attempts in enumerate(self._attempts))
        if all(attempt.prediction.failure for attempts in self._attempts for attempt in attempts):
            raise FailedError("compile.all_failed", rows=len(rows), problem=_last(rows, "failure"))
        counted = [row.score for row in rows if row.score is not None]
        if not counted:
            raise FailedError("compile.none_scored", rows=len(rows), problem=_last(rows, "problems"))
        return Evaluation(
            score=sum(counted) / len(counted), rows=rows, prompt=self._attempts[0][0].prediction.prompt
        )

    def _result(self, index: int, attempts: Sequence[Attempt]) -> RowResult:
        signature = self._spec.program.signature
        row = self._rows[index]
        first = attempts[0]
        predictions = [attempt.prediction for attempt in attempts]
        by_field = _field_means([attempt.score.by_field for attempt in attempts])
        scores = tuple(_whole_score(attempt.score, by_field) for attempt in attempts)
        failures = [prediction.failure for prediction in predictions if prediction.failure]
        errors = [prediction.error for prediction in predictions if prediction.error is not None]
        problems = tuple(problem for attempt in attempts for problem in attempt.score.problems)
        return RowResult(
            index=index,
            inputs=pick(row, [field.name for field in signature.inputs]),
            expected=pick(row, [field.name for field in signature.outputs]),
            predicted=next((p.outputs for p in predictions if p.outputs is not None), None),
            # An attempt that scored fewer fields measures something else: each field has a mean of its own first.
            score=weighted_mean(self._spec.metric, by_field) if by_field else _mean(scores),
            by_field=by_field,
            feedback=first.score.feedback,
            remarks=first.score.remarks,
            error=errors[0] if errors else None,
            failure=Fault.of(failures[0]) if failures else None,
            problems=problems,
            scores=scores if len(attempts) > 1 else (),
            unreadable=len(errors),
            failed=len(failures),
            score_errors=len(problems),
            trace_id=first.trace_id,
        )


def _whole_score(score: RowScore, by_field: Mapping[str, float]) -> float | None:
    """An attempt's score; None when it lacks one of the row's fields, and so cannot stand beside the others."""
    return score.value if score.is_scored and score.by_field.keys() == by_field.keys() else None


def _mean(scores: Sequence[float | None]) -> float | None:
    values = [score for score in scores if score is not None]
    return sum(values) / len(values) if values else None


def _field_means(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for by_field in found for name in by_field)
    values = {name: [by_field[name] for by_field in found if name in by_field] for name in names}
    return {name: sum(given) / len(given) for name, given in values.items()}


def _last(rows: Sequence[RowResult], place: str) -> dict[str, object]:
    """The last fault among the rows, as data."""
    faults = [row.failure for row in rows if row.failure] if place == "failure" else []
    faults = faults or [problem for row in rows for problem in row.problems]
    return faults[-1].model_dump()


def compared(baseline: Evaluation, optimised: Evaluation) -> tuple[Evaluation, Evaluation, Difference]:
    """Both programs' scores over the rows that count for both, and the difference.

    Raises FailedError when no row does.
    """
    pairs = [
        (before.score, after.score)
        for before, after in zip(baseline.rows, optimised.rows, strict=True)
        if before.score is not None and after.score is not None and counts(before, after)
    ]
    if not pairs:
        raise FailedError(
            "compile.none_scored",
            rows=len(baseline.rows),
            problem=_last((*baseline.rows, *optimised.rows), "problems"),
        )
    before, after = zip(*pairs, strict=True)
    return (
        baseline.model_copy(update={"score": sum(before) / len(before)}),
        optimised.model_copy(update={"score": sum(after) / len(after)}),
        paired_difference(before, after),
    )


def pick(row: Mapping[str, object], names: Sequence[str]) -> Row:
    """Some of a row's values."""
    return {name: row[name] for name in names}
