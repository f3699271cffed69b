"""The optimizers, one entry each; an adapter holds what builds them."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

from pydantic import model_validator

from dspyui.domain import effort
from dspyui.domain.base import Frozen, Notice, ParameterInfo, ParameterValue, checked_parameters
from dspyui.domain.effort import MIPRO_MINIBATCH_ABOVE, MIPRO_VALIDATION_ROWS, Effort, Load
from dspyui.errors import BadRequestError

OptimizerKind = Literal[
    "none",
    "labeled_few_shot",
    "bootstrap_few_shot",
    "bootstrap_few_shot_with_random_search",
    "knn_few_shot",
    "copro",
    "miprov2",
    "simba",
    "gepa",
    "infer_rules",
]


class OptimizerInfo(Frozen):
    """What the form, the check and the record need to know of one optimizer.

    `needs_train` is the least number of training rows it can run on at all, and `needs_train_alone` the same
    when there are no validation rows, for those that then take theirs from the training rows. Below
    `wants_train` and `wants_validation` it runs, but what it finds is worth little: a warning.
    `uses_validation`: it compares candidates on the validation rows. `begins_with` are values for a form where
    DSPy itself has no default that works. `work` says how much it asks of models at most.
    """

    kind: OptimizerKind
    label: str
    work: effort.Work
    parameters: tuple[ParameterInfo, ...] = ()
    needs_train: int = 0
    needs_train_alone: int = 0
    wants_train: int = 0
    wants_validation: int = 0
    needs_embedder: bool = False
    begins_with: dict[str, ParameterValue] = {}

    @property
    def uses_validation(self) -> bool:
        """Whether it compares candidates on the validation rows."""
        return self.wants_validation > 0


def _count(name: str, default: int | None, *, low: int = 0, high: int = 1000, **more: Any) -> ParameterInfo:
    return ParameterInfo(name=name, type="int", default=default, minimum=low, maximum=high, **more)


def _share(name: str, default: float | None, *, high: float = 1, **more: Any) -> ParameterInfo:
    return ParameterInfo(name=name, type="float", default=default, minimum=0, maximum=high, **more)


def _switch(name: str, default: bool, **more: Any) -> ParameterInfo:
    return ParameterInfo(name=name, type="bool", default=default, **more)


def _choice(name: str, default: str | None, choices: tuple[str, ...], **more: Any) -> ParameterInfo:
    return ParameterInfo(name=name, type="choice", default=default, choices=choices, **more)


def _bootstrapping(*, labeled: int = 16, advanced: bool = False) -> tuple[ParameterInfo, ...]:
    return (
        _count("max_bootstrapped_demos", 4, advanced=advanced),
        _count("max_labeled_demos", labeled, advanced=advanced),
        _count("max_rounds", 1, low=1, high=100, advanced=advanced),
        *_tolerance(),
    )


def _tolerance() -> tuple[ParameterInfo, ...]:
    return (
        ParameterInfo(name="max_errors", type="int", default=None, optional=True, minimum=0, advanced=True),
        _share("metric_threshold", None, optional=True, advanced=True),
    )


_AUTO = ("light", "medium", "heavy")

# Parameters and defaults are those of DSPy 3.4; a test compares them with the classes themselves. Not offered is
# what only changes what DSPy prints or keeps for itself, and `restrict` of the random search, which picks out
# candidates by number. The wanted sizes follow DSPy's own advice on choosing an optimizer.
OPTIMIZERS: Mapping[OptimizerKind, OptimizerInfo] = {
    info.kind: info
    for info in (
        OptimizerInfo(kind="none", label="None", work=effort.nothing),
        OptimizerInfo(
            kind="labeled_few_shot",
            label="LabeledFewShot",
            work=effort.labeled,
            wants_train=8,
            parameters=(_count("k", 16, low=1), _switch("sample", True)),
        ),
        OptimizerInfo(
            kind="bootstrap_few_shot",
            label="BootstrapFewShot",
            work=effort.bootstrap,
            needs_train=1,
            wants_train=10,
            parameters=_bootstrapping(),
        ),
        OptimizerInfo(
            kind="bootstrap_few_shot_with_random_search",
            label="BootstrapFewShotWithRandomSearch",
            work=effort.random_search,
            needs_train=1,
            wants_train=50,
            wants_validation=30,
            parameters=(
                _count("num_candidate_programs", 16),
                _count("max_bootstrapped_demos", 4, low=1),
                _count("max_labeled_demos", 16),
                _count("max_rounds", 1, low=1, high=100),
                *_tolerance(),
                _share("stop_at_score", None, optional=True),
                _switch("labeled_sample", True, advanced=True),
            ),
        ),
        OptimizerInfo(
            kind="knn_few_shot",
            label="KNNFewShot",
            work=effort.knn,
            needs_train=1,
            wants_train=50,
            needs_embedder=True,
            # `k` has no default in DSPy; 3 is what its documentation shows.
            parameters=(_count("k", 3, low=1), *_bootstrapping(advanced=True)),
        ),
        OptimizerInfo(
            kind="copro",
            label="COPRO",
            work=effort.copro,
            needs_train=1,
            wants_train=20,
            parameters=(
                _count("breadth", 10, low=2, high=100),
                _count("depth", 3, low=1, high=100),
                _share("init_temperature", 1.4, high=2, advanced=True),
            ),
        ),
        OptimizerInfo(
            kind="miprov2",
            label="MIPROv2",
            work=effort.mipro,
            needs_train=1,
            needs_train_alone=2,
            wants_train=100,
            wants_validation=100,
            parameters=(
                _choice("auto", "light", _AUTO, optional=True),
                _count("num_candidates", None, low=1, high=100, optional=True),
                _count("num_trials", None, low=1, high=10_000, optional=True),
                _count("max_bootstrapped_demos", 4),
                _count("max_labeled_demos", 4),
                *_tolerance(),
                _share("init_temperature", 1.0, high=2, advanced=True),
                _switch("minibatch", True, advanced=True),
                _count("minibatch_size", 35, low=1, high=100_000, advanced=True),
                _count("minibatch_full_eval_steps", 5, low=1, advanced=True),
                _switch("program_aware_proposer", True, advanced=True),
                _switch("data_aware_proposer", True, advanced=True),
                _count("view_data_batch_size", 10, low=1, advanced=True),
                _switch("tip_aware_proposer", True, advanced=True),
                _switch("fewshot_aware_proposer", True, advanced=True),
            ),
        ),
        OptimizerInfo(
            kind="simba",
            label="SIMBA",
            work=effort.simba,
            needs_train=1,
            wants_train=100,
            parameters=(
                _count("bsize", 32, low=1, high=100_000),
                _count("num_candidates", 6, low=1, high=100),
                _count("max_steps", 8, low=1),
                _count("max_demos", 4),
                _count("demo_input_field_maxlen", 100_000, high=10**9, advanced=True),
                # Scores are divided by these.
                ParameterInfo(
                    name="temperature_for_sampling", type="float", default=0.2, minimum=0.01, maximum=100, advanced=True
                ),
                ParameterInfo(
                    name="temperature_for_candidates", type="float", default=0.2, minimum=0.01, maximum=100,
                    advanced=True,
                ),
            ),
        ),
        OptimizerInfo(
            kind="gepa",
            label="GEPA",
            work=effort.gepa,
            needs_train=1,
            wants_train=20,
            wants_validation=20,
            # DSPy demands one of the three budgets and has none of its own.
            begins_with={"auto": "light"},
            parameters=(
                _choice("auto", None, _AUTO, optional=True),
                _count("max_full_evals", None, low=1, high=10_000, optional=True),
                _count("max_metric_calls", None, low=1, high=10_000_000, optional=True),
                _count("reflection_minibatch_size", 3, low=1),
                _choice("candidate_selection_strategy", "pareto", ("pareto", "current_best"), advanced=True),
                _choice("component_selector", "round_robin", ("round_robin", "all"), advanced=True),
                _switch("skip_perfect_score", True, advanced=True),
                _switch("add_format_failure_as_feedback", False, advanced=True),
                _switch("use_merge", True, advanced=True),
                _count("max_merge_invocations", 5, optional=True, advanced=True),
                _share("failure_score", 0.0, advanced=True),
                _share("perfect_score", 1.0, advanced=True),
            ),
        ),
        OptimizerInfo(
            kind="infer_rules",
            label="InferRules",
            work=effort.infer_rules,
            needs_train=1,
            needs_train_alone=2,
            wants_train=30,
            wants_validation=30,
            parameters=(
                _count("num_candidates", 10, low=1, high=100),
                _count("num_rules", 10, low=1, high=100),
                *_bootstrapping(advanced=True),
            ),
        ),
    )
}  # fmt: skip


class OptimizerSpec(Frozen):
    """The optimizer and its parameters; those not given have DSPy's defaults."""

    kind: OptimizerKind = "bootstrap_few_shot"
    params: dict[str, Any] = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if check := _TOGETHER.get(self.kind):
            check(self.resolved())
        self.resolved()
        return self

    @property
    def info(self) -> OptimizerInfo:
        """Its entry in the table."""
        return OPTIMIZERS[self.kind]

    def resolved(self) -> dict[str, ParameterValue]:
        """Every parameter with its value, defaults filled in."""
        return checked_parameters(self.info.label, self.info.parameters, self.params)

    def effort(self, load: Load) -> Effort:
        """At most so much is asked of models while it works. Only for rows that `check_rows` lets through."""
        return self.info.work(self.resolved(), load)

    def check_rows(self, *, train: int, validation: int) -> None:
        """Raise BadRequestError when DSPy could not run at all on so many rows."""
        info = self.info
        needed = info.needs_train if validation else max(info.needs_train, info.needs_train_alone)
        if train < needed:
            raise BadRequestError("compile.train_small", optimizer=info.label, needed=needed, rows=train)
        if self.kind == "simba" and train < int(self.resolved()["bsize"] or 0):
            raise BadRequestError("optimizer.bsize", bsize=self.resolved()["bsize"], rows=train)
        if self.kind == "miprov2":
            self._check_minibatch(train, validation)

    def _check_minibatch(self, train: int, validation: int) -> None:
        params = self.resolved()
        # Without validation rows MIPROv2 takes four fifths of the training rows for them, at most 1,000.
        rows = validation or min(1000, max(1, int(train * 0.8)))
        uses = bool(params["minibatch"])
        if params["auto"] is not None:
            rows = min(rows, MIPRO_VALIDATION_ROWS[str(params["auto"])])
            uses = rows > MIPRO_MINIBATCH_ABOVE
        if uses and int(params["minibatch_size"] or 0) > rows:
            raise BadRequestError("optimizer.minibatch_size", size=params["minibatch_size"], rows=rows)

    def warnings(self, *, train: int, validation: int) -> tuple[Notice, ...]:
        """What is to be said of so many rows; none of it keeps the compile from running.

        `optimizer_warning.no_validation.<kind>` says what DSPy does without validation rows.
        """
        info = self.info
        found: list[Notice] = []

        def warn(name: str, **rows: int) -> None:
            values = {"optimizer": info.label, **rows}
            found.append(Notice(key=f"optimizer_warning.{name}", values=values))

        if info.wants_train and not train:
            warn("no_train")
        elif train < info.wants_train:
            warn("train", wanted=info.wants_train, rows=train)
        if info.uses_validation and not validation:
            warn(f"no_validation.{info.kind}")
        elif validation < info.wants_validation:
            warn("validation", wanted=info.wants_validation, rows=validation)
        return tuple(found)


def _check_mipro(params: Mapping[str, ParameterValue]) -> None:
    given = [name for name in ("num_candidates", "num_trials") if params[name] is not None]
    if params["auto"] is not None and given:
        raise BadRequestError("optimizer.mipro_auto", names=", ".join(given), auto=params["auto"])
    if params["auto"] is None and len(given) < 2:
        raise BadRequestError("optimizer.mipro_manual")
    if params["max_bootstrapped_demos"] == 0 and params["max_labeled_demos"]:
        # DSPy draws how many it bootstraps from 1 to this number.
        raise BadRequestError("optimizer.mipro_demos")


def _check_gepa(params: Mapping[str, ParameterValue]) -> None:
    given = [name for name in ("auto", "max_full_evals", "max_metric_calls") if params[name] is not None]
    if not given:
        raise BadRequestError("optimizer.gepa_budget")
    if len(given) > 1:
        raise BadRequestError("optimizer.gepa_budgets", names=", ".join(given))


# What parameters may not be together, where DSPy itself would refuse.
_TOGETHER: Mapping[OptimizerKind, Callable[[Mapping[str, ParameterValue]], None]] = {
    "miprov2": _check_mipro,
    "gepa": _check_gepa,
}
