"""The table of optimizers against DSPy itself, and the check of parameters."""

import inspect
from typing import Any

import pytest

from dspyui.domain.optimizers import (
    MIPRO_MINIBATCH_ABOVE,
    MIPRO_VALIDATION_ROWS,
    OPTIMIZERS,
    OptimizerSpec,
)
from dspyui.errors import BadRequestError
from dspyui.i18n import Text

# Not parameters of ours: what DSPyUI fills in by itself (rows, LMs, the metric, seed and threads of the spec) ...
FILLED_IN = {
    "self", "metric", "teacher_settings", "student", "trainset", "teacher", "valset", "prompt_model", "task_model",
    "reflection_lm", "num_threads", "seed", "eval_kwargs", "vectorizer",
}  # fmt: skip
# ... and what only changes what DSPy prints, keeps for itself or takes as code.
NOT_OFFERED = {
    "bootstrap_few_shot_with_random_search": {"restrict"},
    "copro": {"track_stats", "_kwargs"},
    "miprov2": {"verbose", "track_stats", "log_dir", "requires_permission_to_run", "provide_traceback"},
    "gepa": {
        "instruction_proposer", "code_proposer", "log_dir", "track_stats", "use_wandb", "wandb_api_key",
        "wandb_init_kwargs", "track_best_outputs", "warn_on_score_mismatch", "use_mlflow", "gepa_kwargs",
    },
}  # fmt: skip
# What an optimizer passes on to BootstrapFewShot as `**kwargs`.
PASSED_ON = {"knn_few_shot", "infer_rules"}
# Required by DSPy, so that it has no default.
REQUIRED = {("knn_few_shot", "k"): 3}


def dspy_parameters(kind: str) -> dict[str, Any]:
    """Every parameter of the class and its default, what is not ours left out."""
    import dspy

    optimizer = getattr(dspy, OPTIMIZERS[kind].label)  # type: ignore[index]
    functions = [optimizer.__init__, optimizer.compile]
    if kind in PASSED_ON:
        functions.append(dspy.BootstrapFewShot.__init__)
    found: dict[str, Any] = {}
    for function in functions:
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD and name not in FILLED_IN:
                # MIPROv2 takes some twice; the later None means the earlier default.
                found.setdefault(name, parameter.default)
    return {name: value for name, value in found.items() if name not in NOT_OFFERED.get(kind, set())}


@pytest.mark.parametrize("kind", [kind for kind in OPTIMIZERS if kind != "none"])
def test_parameters_and_defaults_are_dspys(kind: Any) -> None:
    info = OPTIMIZERS[kind]
    theirs = dspy_parameters(kind)
    ours = {parameter.name: parameter.default for parameter in info.parameters}
    required = {name: value for (owner, name), value in REQUIRED.items() if owner == kind}
    assert {name for name, default in theirs.items() if default is inspect.Parameter.empty} == set(required)
    # DSPy's own default of max_errors, None, means the setting of dspy.settings.
    assert ours == {**theirs, **required}


def test_nothing_is_left_out_that_dspy_does_not_have() -> None:
    import dspy

    for kind, names in NOT_OFFERED.items():
        optimizer = getattr(dspy, OPTIMIZERS[kind].label)  # type: ignore[index]
        known = {
            *inspect.signature(optimizer.__init__).parameters,
            *inspect.signature(optimizer.compile).parameters,
        }
        assert names <= known


def test_the_sizes_of_miprov2_are_dspys() -> None:
    from dspy.teleprompt import mipro_optimizer_v2

    assert mipro_optimizer_v2.MIN_MINIBATCH_SIZE == MIPRO_MINIBATCH_ABOVE
    theirs = {name: settings["val_size"] for name, settings in mipro_optimizer_v2.AUTO_RUN_SETTINGS.items()}
    assert dict(MIPRO_VALIDATION_ROWS) == theirs


def test_every_form_begins_with_something_that_runs() -> None:
    for kind, info in OPTIMIZERS.items():
        assert set(OptimizerSpec(kind=kind, params=info.begins_with).resolved()) == {
            p.name for p in info.parameters
        }


def test_every_kind_has_its_own_entry() -> None:
    assert all(kind == info.kind for kind, info in OPTIMIZERS.items())
    assert OptimizerSpec().info.label == "BootstrapFewShot"


def test_what_is_not_given_has_its_default() -> None:
    spec = OptimizerSpec(kind="bootstrap_few_shot", params={"max_labeled_demos": 4})
    assert spec.resolved() == {
        "max_bootstrapped_demos": 4,
        "max_labeled_demos": 4,
        "max_rounds": 1,
        "max_errors": None,
        "metric_threshold": None,
    }


def test_values_become_the_parameters_type() -> None:
    spec = OptimizerSpec(params={"max_rounds": 2.0, "metric_threshold": 1})
    rounds, threshold = spec.resolved()["max_rounds"], spec.resolved()["metric_threshold"]
    assert (rounds, type(rounds)) == (2, int)
    assert (threshold, type(threshold)) == (1.0, float)


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"k": 3}, "parameter.unknown"),
        ({"max_rounds": "2"}, "parameter.type"),
        ({"max_rounds": 1.5}, "parameter.type"),
        ({"max_rounds": True}, "parameter.type"),
        ({"max_rounds": None}, "parameter.type"),
        ({"max_rounds": 0}, "parameter.range"),
        ({"max_rounds": 101}, "parameter.range"),
        ({"max_rounds": 10**400}, "parameter.range"),
        ({"max_rounds": float("inf")}, "parameter.type"),
        ({"max_rounds": float("nan")}, "parameter.type"),
        ({"metric_threshold": float("nan")}, "parameter.range"),
        ({"metric_threshold": 1.1}, "parameter.range"),
        ({"max_errors": -1}, "parameter.range"),
    ],
)
def test_parameters_that_do_not_fit(params: dict[str, Any], code: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        OptimizerSpec(kind="bootstrap_few_shot", params=params)
    assert caught.value.code == code
    assert "BootstrapFewShot" in str(caught.value)
    assert next(iter(params)) in caught.value.text("zh_CN")


@pytest.mark.parametrize(
    ("kind", "params", "code", "said"),
    [
        ("miprov2", {"num_candidates": 5}, "optimizer.mipro_auto", "num_candidates"),
        ("miprov2", {"num_trials": 5, "auto": "heavy"}, "optimizer.mipro_auto", "heavy"),
        ("miprov2", {"auto": None}, "optimizer.mipro_manual", "num_trials"),
        ("miprov2", {"auto": None, "num_candidates": 5}, "optimizer.mipro_manual", "num_trials"),
        ("miprov2", {"max_bootstrapped_demos": 0}, "optimizer.mipro_demos", "max_labeled_demos"),
        ("miprov2", {"auto": "huge"}, "parameter.type", "light | medium | heavy"),
        ("gepa", {}, "optimizer.gepa_budget", "max_metric_calls"),
        ("gepa", {"auto": "light", "max_full_evals": 3}, "optimizer.gepa_budgets", "auto, max_full_evals"),
        ("copro", {"breadth": 1}, "parameter.range", "breadth"),
        ("bootstrap_few_shot_with_random_search", {"max_bootstrapped_demos": 0}, "parameter.range", "1"),
    ],
)
def test_what_dspy_would_refuse_is_refused_before(
    kind: Any, params: dict[str, Any], code: str, said: str
) -> None:
    with pytest.raises(BadRequestError) as caught:
        OptimizerSpec(kind=kind, params=params)
    assert caught.value.code == code
    assert said in str(caught.value)
    assert said in caught.value.text("zh_CN")


@pytest.mark.parametrize(
    ("kind", "params", "train", "validation", "code"),
    [
        ("bootstrap_few_shot", {}, 0, 5, "compile.train_small"),
        ("knn_few_shot", {}, 0, 5, "compile.train_small"),
        ("miprov2", {}, 1, 0, "compile.train_small"),
        ("infer_rules", {}, 1, 0, "compile.train_small"),
        ("simba", {}, 31, 9, "optimizer.bsize"),
        ("simba", {"bsize": 8}, 7, 9, "optimizer.bsize"),
        ("miprov2", {"auto": None, "num_candidates": 3, "num_trials": 3}, 90, 34, "optimizer.minibatch_size"),
        ("miprov2", {"minibatch_size": 80}, 90, 60, "optimizer.minibatch_size"),
        ("miprov2", {"minibatch_size": 101}, 90, 500, "optimizer.minibatch_size"),
        ("miprov2", {"minibatch_size": 60}, 70, 0, "optimizer.minibatch_size"),
    ],
)
def test_rows_that_dspy_could_not_run_on(
    kind: Any, params: dict[str, Any], train: int, validation: int, code: str
) -> None:
    with pytest.raises(BadRequestError) as caught:
        OptimizerSpec(kind=kind, params=params).check_rows(train=train, validation=validation)
    assert caught.value.code == code
    assert str(train if code != "optimizer.minibatch_size" else params.get("minibatch_size", 35)) in str(
        caught.value
    )
    assert caught.value.text("zh_CN") != str(caught.value)


@pytest.mark.parametrize(
    ("kind", "params", "train", "validation"),
    [
        ("none", {}, 0, 0),
        ("labeled_few_shot", {}, 0, 0),
        ("knn_few_shot", {}, 1, 0),
        ("simba", {"bsize": 8}, 8, 0),
        ("miprov2", {}, 1, 1),
        ("miprov2", {"minibatch_size": 99}, 9, 50),
        ("miprov2", {"auto": None, "num_candidates": 3, "num_trials": 3, "minibatch": False}, 9, 2),
        ("infer_rules", {}, 1, 1),
        ("gepa", {"auto": "light"}, 1, 0),
    ],
)
def test_rows_that_are_enough_to_run(kind: Any, params: dict[str, Any], train: int, validation: int) -> None:
    OptimizerSpec(kind=kind, params=params).check_rows(train=train, validation=validation)


def test_fewer_rows_than_wanted_are_a_warning() -> None:
    spec = OptimizerSpec(kind="miprov2")
    assert spec.warnings(train=100, validation=100) == ()
    few = spec.warnings(train=99, validation=3)
    assert [(warning.code, warning.values["wanted"], warning.values["rows"]) for warning in few] == [
        ("train", 100, 99),
        ("validation", 100, 3),
    ]
    assert [warning.key for warning in spec.warnings(train=100, validation=0)] == [
        "optimizer_warning.no_validation.miprov2"
    ]
    assert OptimizerSpec(kind="none").warnings(train=0, validation=0) == ()
    nothing = OptimizerSpec(kind="labeled_few_shot").warnings(train=0, validation=0)
    assert [warning.key for warning in nothing] == ["optimizer_warning.no_train"]


@pytest.mark.parametrize("language", ["en_US", "zh_CN"])
def test_every_warning_has_its_sentence(language: Any) -> None:
    text = Text(language)
    for kind, info in OPTIMIZERS.items():
        spec = OptimizerSpec(kind=kind, params=info.begins_with)
        for train, validation in ((0, 0), (1, 1)):
            for warning in spec.warnings(train=train, validation=validation):
                assert info.label in text(warning.key, **warning.values)
