"""The compile itself, as it runs in its own process: score, optimise, score again, write everything down."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from dspyui.domain.base import Fault
from dspyui.domain.compiles import (
    CompileResult,
    CompileSpec,
    Evaluation,
    Phase,
    Progress,
    SplitSummary,
    TrialRows,
    TrialScore,
    Usage,
    phases,
)
from dspyui.domain.engine import Engine, LiveProgram
from dspyui.domain.jobs import ArtifactWriter, EventLevel, JobEvent, JobStore
from dspyui.domain.rows import digest_rows
from dspyui.domain.signatures import Row
from dspyui.domain.splits import Splits, sort_rows, split_rows
from dspyui.domain.storage import ProgramStore
from dspyui.domain.traces import PHASE_TAG, TraceSink
from dspyui.errors import FailedError
from dspyui.services.scoring import ErrorBudget, Scoring, compared

# A reader looks a few times a second; writing oftener would only cost disk.
PROGRESS_SECONDS = 0.25
# How often the calls of an optimizer are written down, which may work for minutes without telling of a trial.
CALLS_SECONDS = 1.0
# The final scoring of both programs: it has a curve, and it is repeated when that was asked for.
_CURVES: Mapping[Phase, str] = {"baseline": "baseline_curve", "evaluating": "evaluation_curve"}


_TRIALS: Mapping[TrialRows, str] = {
    "validation": "trial", "minibatch": "trial_minibatch", "train": "trial_train",
}  # fmt: skip


class CompileRun:
    """One compile of one job. `eval_sink` takes the traces of scoring; None keeps none of them."""

    def __init__(
        self,
        job_id: str,
        *,
        jobs: JobStore,
        programs: ProgramStore,
        artifacts: ArtifactWriter,
        engine: Engine,
        eval_sink: TraceSink | None,
    ) -> None:
        self._job_id = job_id
        self._jobs = jobs
        self._programs = programs
        self._artifacts = artifacts
        self._engine = engine
        self._eval_sink = eval_sink
        self._spec: CompileSpec = jobs.spec(job_id)
        # Calls that an earlier, killed attempt has made were paid for too.
        earlier = jobs.progress(job_id)
        self._earlier = earlier.usage if jobs.get(job_id).attempt > 1 else Usage()
        self._progress = Progress(usage=self._earlier)
        self._budget = ErrorBudget(self._spec.max_errors, self._on_error)
        self._written = 0.0
        # Guards the progress: while an optimizer works, its calls are written by a thread of their own.
        self._lock = threading.Lock()

    def run(self) -> CompileResult:
        """Do it. Raises FailedError when an LM fails for good, BadRequestError when the data does not fit."""
        try:
            return self._run()
        finally:
            # However it ends: what was asked since the last look was paid for. A full disk has its own error by then.
            with suppress(FailedError):
                self._show({}, force=True)

    def _run(self) -> CompileResult:
        self._enter("preparing")
        rows = self._jobs.rows(self._job_id)
        splits = self._split(rows)
        base = self._engine.build(self._spec.program)
        baseline = self._evaluate("baseline", base, splits.test)
        optimised_program, optimised, trials, difference = base, baseline, (), None
        if self._spec.optimizer.kind != "none":
            optimised_program, trials = self._optimise(base, splits)
            optimised = self._evaluate("evaluating", optimised_program, splits.test)
            baseline, optimised, difference = compared(baseline, optimised)
        self._enter("saving")
        result = CompileResult(
            baseline=baseline,
            optimised=optimised,
            difference=difference,
            repeats=self._spec.repeats,
            trials=trials,
            usage=self._usage(),
            splits={
                name: SplitSummary(rows=len(part), digest=digest_rows(part))
                for name, part in splits.by_name().items()
            },
            data_digest=digest_rows(rows),
            versions=self._engine.versions(),
        )
        self._save(result, base, optimised_program)
        return result

    def _split(self, rows: Sequence[Row]) -> Splits:
        spec = self._spec
        given = self._jobs.parts(self._job_id)
        inputs = [field.name for field in spec.program.signature.inputs]
        splits = split_rows(rows, inputs, spec.data.split) if given is None else sort_rows(rows, given)
        spec.optimizer.check_rows(train=len(splits.train), validation=len(splits.validation))
        self._artifacts.write_splits(self._job_id, splits)
        sizes = {name: len(part) for name, part in splits.by_name().items()}
        self._log("compile.split", sizes)
        return splits

    def _optimise(self, base: LiveProgram, splits: Splits) -> tuple[LiveProgram, tuple[TrialScore, ...]]:
        spec = self._spec
        label = spec.optimizer.info.label
        if splits.validation:
            before = self._evaluate("validating_baseline", base, splits.validation)
            self._trial("baseline", before.score, "validation")
        self._enter("optimising")
        self._log("compile.optimising", {"optimizer": label, "rows": len(splits.train)})
        errors = self._engine.lm_errors()
        with self._counting_calls():
            optimised = self._engine.optimise(
                base,
                spec,
                train=splits.train,
                validation=splits.validation,
                on_trial=self._trial,
                on_error=self._on_optimising_error,
            )
        if skipped := self._engine.lm_errors() - errors:
            self._log("compile.lm_errors", {"count": skipped, "optimizer": label}, level="warning")
        if splits.validation:
            after = self._evaluate("validating", optimised, splits.validation)
            self._trial(label, after.score, "validation")
        return optimised, self._progress.trials

    @contextmanager
    def _counting_calls(self) -> Iterator[None]:
        """Write down once a second how many calls were made."""
        ended = threading.Event()

        def count() -> None:
            # A full disk has its own error by what the compile itself writes next.
            with suppress(FailedError):
                while not ended.wait(CALLS_SECONDS):
                    if self._usage() != self._progress.usage:
                        self._show({})

        counting = threading.Thread(target=count, name="counting-calls", daemon=True)
        counting.start()
        try:
            yield
        finally:
            ended.set()
            counting.join()

    def _trial(self, label: str, score: float, rows: TrialRows) -> None:
        trial = TrialScore(step=len(self._progress.trials), label=label, score=score, rows=rows)
        self._show({"trials": (*self._progress.trials, trial)})
        self._log(f"compile.{_TRIALS[rows]}", {"step": trial.step, "label": label, "score": f"{score:.2f}"})

    def _evaluate(self, phase: Phase, program: LiveProgram, rows: Sequence[Row]) -> Evaluation:
        repeats = self._spec.repeats if phase in _CURVES else 1
        self._enter(phase, total=len(rows) * repeats)
        scoring = Scoring(
            self._spec,
            rows,
            budget=self._budget,
            on_row=self._on_row(phase),
            sink=self._eval_sink,
            # Later there is a result to lose, and the optimizer may have made of it what it is.
            needs_readable=phase == "baseline",
        )
        names = [field.name for field in self._spec.program.signature.inputs]
        inputs = [{name: row[name] for name in names} for row in rows]
        for repeat in range(repeats):
            self._engine.predict_all(
                program,
                inputs,
                threads=self._spec.threads,
                tags={PHASE_TAG: phase, "dspyui.job_id": self._job_id}
                | ({"dspyui.repeat": str(repeat + 1)} if repeats > 1 else {}),
                on_done=scoring.taker(self._engine.score_tools(repeat=repeat)),
                repeat=repeat,
            )
        evaluation = scoring.evaluation()
        self._tell(phase, evaluation)
        return evaluation

    def _tell(self, phase: Phase, evaluation: Evaluation) -> None:
        said = {"phase": phase, "rows": len(evaluation.rows), "score": f"{evaluation.score:.2f}"}
        self._log("compile.scored", {**said, "row_seconds": round(self._progress.row_seconds, 3)})
        for kind, count in (
            ("compile.unreadable", evaluation.unreadable),
            ("compile.failed", evaluation.failed),
            ("compile.score_errors", evaluation.score_errors),
        ):
            if count:
                self._log(kind, {"phase": phase, "count": count}, level="warning")

    def _on_row(self, phase: Phase) -> Callable[[int, float | None, bool], None]:
        curve = _CURVES.get(phase)
        first: float | None = None

        def show(done: int, mean: float | None, is_first: bool) -> None:
            nonlocal first
            now = time.monotonic()
            first = now if first is None else first
            # Where nothing was scored yet there is no mean, and 0.00 would be one.
            is_point = curve and is_first and mean is not None
            more = {curve: (*getattr(self._progress, curve), mean)} if curve and is_point else {}
            self._show({"done": done, "row_seconds": now - first, **more})

        return show

    def _on_error(self, row: int, fault: Fault) -> None:
        values = {"phase": self._progress.phase, "row": row, "problem": fault.model_dump()}
        self._log("compile.row_error", values, level="warning")

    def _on_optimising_error(self, error: FailedError) -> None:
        label, fault = self._spec.optimizer.info.label, Fault.of(error)
        self._log(
            "compile.optimising_error", {"optimizer": label, "problem": fault.model_dump()}, level="warning"
        )
        self._budget.spend_optimising(label, fault)

    def _save(self, result: CompileResult, base: LiveProgram, optimised: LiveProgram) -> None:
        spec = self._spec
        program = self._engine.dump(optimised, spec.program, spec.optimizer, spec.lms.task)
        baseline = self._engine.dump(base, spec.program, spec.optimizer, spec.lms.task)
        self._artifacts.write_programs(self._job_id, baseline=baseline, optimised=program)
        self._artifacts.write_prompts(
            self._job_id, baseline=result.baseline.prompt, optimised=result.optimised.prompt
        )
        self._artifacts.write_rows(self._job_id, result)
        self._programs.keep(self._job_id, program)
        # The result goes last: where it is, everything else is.
        self._jobs.write_result(self._job_id, result)

    # Progress and log.

    def _usage(self) -> Usage:
        return self._earlier + self._engine.usage()

    def _enter(self, phase: Phase, *, total: int = 0) -> None:
        self._show({"phase": phase, "done": 0, "total": total, "row_seconds": 0.0}, force=True)
        listed = phases(
            optimises=self._spec.optimizer.kind != "none", validates=self._spec.data.has_validation
        )
        self._log("compile.phase", {"phase": phase, "number": listed.index(phase) + 1, "of": len(listed)})

    def _show(self, changes: Mapping[str, Any], *, force: bool = False) -> None:
        with self._lock:
            self._progress = self._progress.model_copy(update={**changes, "usage": self._usage()})
            now = time.monotonic()
            if force or now - self._written >= PROGRESS_SECONDS:
                self._written = now
                self._jobs.write_progress(self._job_id, self._progress)

    def _log(self, kind: str, values: Mapping[str, Any], *, level: EventLevel = "info") -> None:
        event = JobEvent(at=datetime.now(UTC), kind=kind, values=dict(values), level=level)
        self._jobs.append_event(self._job_id, event)
