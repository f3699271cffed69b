"""Our optimizers as DSPy's: one entry each."""

import functools
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dspy
from dspy.utils.callback import BaseCallback

from dspyui.adapters.dspy_engine.metrics import DspyMetric, to_examples, to_feedback_metric, to_metric
from dspyui.adapters.dspy_engine.modules import KNNFewShot, Tools, dump_state, with_state
from dspyui.domain.compiles import CompileSpec, TrialRows
from dspyui.domain.engine import OnTrial
from dspyui.domain.optimizers import OptimizerKind
from dspyui.domain.programs import Neighbours
from dspyui.domain.signatures import Row
from dspyui.errors import BadRequestError, DSPyUIError, FailedError

OnFailure = Callable[[BaseException], None]


class StoppedError(BaseException):
    """Ends an optimizer from within: each of them goes on after an `Exception`, and counts 0.0 for it."""

    def __init__(self, error: DSPyUIError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True)
class Task:
    """What an optimizer is given: never a test row.

    `prompt` writes instructions and reflects; it is the task LM when no other plays that role.
    """

    spec: CompileSpec
    tools: Tools
    train: list[dspy.Example]
    validation: list[dspy.Example]
    prompt: dspy.LM
    on_trial: OnTrial
    on_failure: OnFailure

    @property
    def params(self) -> dict[str, Any]:
        """The optimizer's parameters, all of them, in a dictionary of the caller's own."""
        return dict(self.spec.optimizer.resolved())

    @property
    def metric(self) -> DspyMetric:
        """The metric for optimizers that bootstrap, by their own threshold, or compare floats."""
        spec = self.spec
        threshold: Any = self.params.get("metric_threshold")
        return self.watched(to_metric(spec.metric, spec.program, self.tools.score, threshold=threshold))

    def watched(self, metric: DspyMetric) -> DspyMetric:
        """The metric, telling of each answer that it could not score."""

        @functools.wraps(metric)
        def score(*given: Any, **named: Any) -> Any:
            try:
                return metric(*given, **named)
            except FailedError as exc:
                self.on_failure(exc)
                raise

        return score

    @property
    def valset(self) -> list[dspy.Example] | None:
        """The validation rows; without any, None: DSPy then takes of the training rows what it does by default."""
        return self.validation or None

    @property
    def teacher(self) -> dict[str, Any]:
        """The teacher's settings; SIMBA writes into the LM it is given, so it gets one of its own."""
        settings = dict(self.tools.teacher)
        return {**settings, "lm": settings["lm"].copy()} if "lm" in settings else settings


Optimise = Callable[[dspy.Module, Task], dspy.Module]


def _labeled_few_shot(program: dspy.Module, task: Task) -> dspy.Module:
    params = task.params
    return dspy.LabeledFewShot(k=params["k"]).compile(program, trainset=task.train, sample=params["sample"])


def _bootstrap_few_shot(program: dspy.Module, task: Task) -> dspy.Module:
    optimizer = dspy.BootstrapFewShot(metric=task.metric, teacher_settings=task.teacher, **task.params)
    return optimizer.compile(program, trainset=task.train)


def _random_search(program: dspy.Module, task: Task) -> dspy.Module:
    params = task.params
    labeled_sample, stop_at = params.pop("labeled_sample"), params.pop("stop_at_score")
    optimizer = dspy.BootstrapFewShotWithRandomSearch(
        metric=task.metric,
        teacher_settings=task.teacher,
        num_threads=task.spec.threads,
        # DSPy's own scores go up to 100.
        stop_at_score=None if stop_at is None else 100 * stop_at,
        **params,
    )
    return optimizer.compile(program, trainset=task.train, valset=task.valset, labeled_sample=labeled_sample)


def _knn_few_shot(program: dspy.Module, task: Task) -> dspy.Module:
    spec = task.spec
    if spec.lms.embedder is None:
        raise BadRequestError("optimizer.embedder", optimizer=spec.optimizer.info.label)
    neighbours = Neighbours(
        rows=tuple(example.toDict() for example in task.train),
        embedder=spec.lms.embedder,
        metric=spec.metric,
        teacher=spec.lms.teacher,
    )
    return KNNFewShot(program, spec.program, neighbours, task.params, task.tools)


def _copro(program: dspy.Module, task: Task) -> dspy.Module:
    optimizer = dspy.COPRO(prompt_model=task.prompt, metric=task.metric, **task.params)
    evaluate = {"num_threads": task.spec.threads, "display_progress": False, "display_table": 0}
    return optimizer.compile(program, trainset=task.train, eval_kwargs=evaluate)


# What MIPROv2 takes when it is made; the rest goes to `compile`.
_MIPRO_MADE_WITH = (
    "auto", "num_candidates", "max_bootstrapped_demos", "max_labeled_demos", "max_errors", "metric_threshold",
    "init_temperature",
)  # fmt: skip


def _miprov2(program: dspy.Module, task: Task) -> dspy.Module:
    params = task.params
    optimizer = dspy.MIPROv2(
        metric=task.metric,
        prompt_model=task.prompt,
        teacher_settings=task.teacher,
        num_threads=task.spec.threads,
        seed=task.spec.seed,
        **{name: params.pop(name) for name in _MIPRO_MADE_WITH},
    )
    return optimizer.compile(program, trainset=task.train, valset=task.valset, **params)


def _simba(program: dspy.Module, task: Task) -> dspy.Module:
    optimizer = dspy.SIMBA(
        metric=task.metric,
        prompt_model=task.prompt,
        teacher_settings=task.teacher or None,
        num_threads=task.spec.threads,
        **task.params,
    )
    found = optimizer.compile(program, trainset=task.train, seed=task.spec.seed)
    # SIMBA evaluates without dspy.Evaluate, so that its candidates are told of at the end.
    for number, log in enumerate(getattr(found, "trial_logs", {}).values(), start=1):
        if "train_score" in log:
            task.on_trial(f"#{number}", float(log["train_score"]), "train")
    return found


def _gepa(program: dspy.Module, task: Task) -> dspy.Module:
    spec = task.spec
    optimizer = dspy.GEPA(
        metric=task.watched(to_feedback_metric(spec.metric, spec.program, task.tools.score)),
        reflection_lm=task.prompt,
        num_threads=spec.threads,
        seed=spec.seed,
        **task.params,
    )
    return optimizer.compile(program, trainset=task.train, valset=task.valset)


def _infer_rules(program: dspy.Module, task: Task) -> dspy.Module:
    class InferRules(dspy.InferRules):
        """DSPy writes the rules into a signature that all candidates share, so that the best one would leave with the
        rules of the last; here each candidate gets a signature of its own."""

        def update_program_instructions(self, predictor: Any, natural_language_rules: str) -> None:
            predictor.signature = predictor.signature.with_instructions(predictor.signature.instructions)
            super().update_program_instructions(predictor, natural_language_rules)

    optimizer = InferRules(
        metric=task.metric, teacher_settings=task.teacher, num_threads=task.spec.threads, **task.params
    )
    found: Any = optimizer.compile(program, trainset=task.train, valset=task.valset)
    return found


OPTIMIZERS: Mapping[OptimizerKind, Optimise] = {
    "none": lambda program, _task: program,
    "labeled_few_shot": _labeled_few_shot,
    "bootstrap_few_shot": _bootstrap_few_shot,
    "bootstrap_few_shot_with_random_search": _random_search,
    "knn_few_shot": _knn_few_shot,
    "copro": _copro,
    "miprov2": _miprov2,
    "simba": _simba,
    "gepa": _gepa,
    "infer_rules": _infer_rules,
}


def optimise(program: dspy.Module, task: Task) -> dspy.Module:
    """Return what the optimizer makes of a copy of the program.

    It is built anew from its own data: what is scored from here on is what a reload gives, and nothing else that the
    optimizer hung onto it stays in memory.
    """
    found = OPTIMIZERS[task.spec.optimizer.kind](program.deepcopy(), task)
    if isinstance(found, KNNFewShot):
        return found
    return with_state(task.spec.program, dump_state(found), task.tools)


class Trials(BaseCallback):
    """Tells of each candidate that an optimizer evaluates, as it happens.

    `on_trial(label, score, rows)`: the label numbers the evaluations; `rows` says whether they were the whole
    validation split, a part of it (minibatch) or training rows.
    """

    def __init__(self, validation: Sequence[dspy.Example], on_trial: OnTrial) -> None:
        self._validation = {id(example) for example in validation}
        self._on_trial = on_trial
        self._lock = threading.Lock()
        self._open: dict[str, TrialRows | None] = {}
        self._done = 0

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        rows = inputs.get("devset") or instance.devset
        # GEPA looks at a few training rows between two candidates; that is no trial.
        hidden = (inputs.get("callback_metadata") or {}).get("disable_logging") and not self._is_whole(rows)
        with self._lock:
            self._open[call_id] = None if hidden else self._kind(rows)

    def _is_whole(self, rows: Sequence[dspy.Example]) -> bool:
        return {id(row) for row in rows} == self._validation

    def _kind(self, rows: Sequence[dspy.Example]) -> TrialRows:
        if self._is_whole(rows):
            return "validation"
        return "minibatch" if {id(row) for row in rows} <= self._validation else "train"

    def on_evaluate_end(
        self, call_id: str, outputs: Any | None, exception: BaseException | None = None
    ) -> None:
        with self._lock:
            rows = self._open.pop(call_id, None)
            if rows is None or outputs is None or exception is not None:
                return
            self._done += 1
            # DSPy's own scores go up to 100.
            self._on_trial(f"#{self._done}", float(outputs.score) / 100, rows)


def shuffled(rows: Sequence[Row], seed: int) -> list[Row]:
    """The rows in an order of the seed's.

    DSPy's few-shot optimizers choose with a fixed seed of their own; the order they find the rows in is what
    makes the choice ours.
    """
    order = list(rows)
    random.Random(seed).shuffle(order)  # noqa: S311 - a seeded choice, not a secret
    return order


__all__ = ["OnFailure", "StoppedError", "Task", "Trials", "optimise", "shuffled", "to_examples"]
