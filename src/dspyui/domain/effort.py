"""How much an optimizer asks of language models at most: one function each, read off DSPy 3.4's own loops.

The bounds hold while replies can be read and calls succeed: whatever is asked again because of that comes on top.
A test holds each of them against real compiles.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from dspyui.domain.base import Frozen, ParameterValue

# Of MIPROv2's source: up to so many validation rows it evaluates on whole rows, not on minibatches, when `auto` is
# set, and so many rows at most it evaluates on at all. A test compares both with DSPy's own.
MIPRO_MINIBATCH_ABOVE = 50
MIPRO_VALIDATION_ROWS: Mapping[str, int] = {"light": 100, "medium": 300, "heavy": 1000}
# How many candidates a budget stands for, in MIPROv2 and GEPA alike (`AUTO_RUN_SETTINGS`).
AUTO_CANDIDATES: Mapping[str, int] = {"light": 6, "medium": 12, "heavy": 18}
# Rows that GEPA tries a merged candidate on (`MergeProposer`), and what its `auto_budget` reckons with.
_GEPA_MERGE_ROWS = 5
_GEPA_MINIBATCH, _GEPA_FULL_STEPS = 35, 5
# MIPROv2 describes the data in at most so many calls, a first and a last one besides (`create_dataset_summary`).
_MIPRO_OBSERVATIONS = 9


class Load(Frozen):
    """What there is to work on: rows by split, and how many predictors the program has."""

    train: int
    validation: int
    predictors: int = 1

    @property
    def compared_on(self) -> int:
        """The rows that candidates are compared on by those who take the training rows when there are no others."""
        return self.validation or self.train


class Effort(Frozen):
    """At most this is done while optimising.

    `runs` are runs of the program on a row by the task's model, `teacher_runs` by the teacher; each is scored once.
    `rescored` counts further scorings. `prompts` are calls of the prompt writer, `lessons` further ones of the teacher.
    `demos` is how many demonstrations the program shows in the end, `worked` how many of them it has worked out itself,
    with what it thought. `teacher_runs_each` come with every later run of the optimised program.
    """

    runs: int = 0
    teacher_runs: int = 0
    rescored: int = 0
    prompts: int = 0
    lessons: int = 0
    demos: int = 0
    worked: int = 0
    teacher_runs_each: int = 0


Params = Mapping[str, ParameterValue]
Work = Callable[[Params, Load], Effort]


def nothing(_params: Params, _load: Load) -> Effort:
    """No optimizer, no work."""
    return Effort()


def labeled(params: Params, load: Load) -> Effort:
    """LabeledFewShot only picks rows."""
    return Effort(demos=min(_whole(params, "k"), load.train))


def bootstrap(params: Params, load: Load) -> Effort:
    """BootstrapFewShot: the teacher tries each training row up to `max_rounds` times, until it has enough."""
    return Effort(teacher_runs=_attempts(params, load.train), **_demos(params, load.train))


def random_search(params: Params, load: Load) -> Effort:
    """BootstrapFewShotWithRandomSearch: the program as it is, one with labels, and `num_candidate_programs` + 1
    bootstrapped ones, each scored on the validation rows."""
    candidates = _whole(params, "num_candidate_programs")
    return Effort(
        runs=(candidates + 3) * load.compared_on,
        teacher_runs=(candidates + 1) * _attempts(params, load.train),
        **_demos(params, load.train),
    )


def knn(params: Params, load: Load) -> Effort:
    """KNNFewShot does nothing beforehand, and bootstraps on the `k` nearest rows at every answer."""
    near = min(_whole(params, "k"), load.train)
    return Effort(teacher_runs_each=_attempts(params, near), **_demos(params, near))


def copro(params: Params, load: Load) -> Effort:
    """COPRO: `breadth` instructions a round, `depth` rounds, each scored on all training rows.

    With several predictors a round tries all instructions found so far. One request asks for all of a round's.
    """
    breadth, depth, parts = _whole(params, "breadth"), _whole(params, "depth"), load.predictors
    tried = breadth * depth if parts == 1 else parts * breadth * depth * (depth + 1) // 2
    return Effort(runs=tried * load.train, prompts=parts * depth)


def mipro(params: Params, load: Load) -> Effort:
    """MIPROv2: bootstrapped sets of demonstrations, instructions written with a look at data and program, and trials
    of both together, on minibatches when there are many validation rows."""
    zero_shot = not _whole(params, "max_bootstrapped_demos") and not _whole(params, "max_labeled_demos")
    rows, train, batches = load.validation, load.train, bool(params["minibatch"])
    if not rows:
        rows = min(1000, max(1, int(train * 0.8)))
        train -= rows
    if params["auto"] is None:
        sets = instructions = _whole(params, "num_candidates")
        trials = _whole(params, "num_trials")
    else:
        sets = AUTO_CANDIDATES[str(params["auto"])]
        instructions = sets if zero_shot else sets // 2
        trials = _trials(sets, load.predictors * (1 if zero_shot else 2))
        rows = min(rows, MIPRO_VALIDATION_ROWS[str(params["auto"])])
        batches = rows > MIPRO_MINIBATCH_ABOVE
    runs = rows + trials * rows
    if batches:
        full = trials // _whole(params, "minibatch_full_eval_steps") + 2
        runs = rows + trials * min(_whole(params, "minibatch_size"), rows) + full * rows
    written = instructions * load.predictors * (3 if params["program_aware_proposer"] else 1)
    if params["data_aware_proposer"]:
        further = math.ceil(train / _whole(params, "view_data_batch_size")) - 1
        written += 2 + max(0, min(_MIPRO_OBSERVATIONS, further))
    return Effort(
        runs=runs, teacher_runs=max(0, sets - 1) * train, prompts=written, **_demos(params, load.train)
    )


def simba(params: Params, load: Load) -> Effort:
    """SIMBA: a step runs `num_candidates` programs on a batch, mends one more than that, runs those on the batch; in
    the end the winners run on all training rows. The teacher, when there is one, plays one of the candidates."""
    batch, candidates, steps = (_whole(params, name) for name in ("bsize", "num_candidates", "max_steps"))
    mended = min(candidates + 1, batch)
    final = min(candidates + 1, steps + 1) * load.train
    return Effort(
        runs=steps * batch * (candidates - 1 + mended) + final,
        teacher_runs=steps * batch,
        prompts=steps * mended,
        demos=_whole(params, "max_demos"),
        worked=_whole(params, "max_demos"),
    )


def gepa(params: Params, load: Load) -> Effort:
    """GEPA: its budget counts runs of the program; the round that uses it up is finished.

    A round looks at a few rows, writes one instruction (or one for each predictor), and looks again; a better one is
    scored on all validation rows.
    """
    few, rows = _whole(params, "reflection_minibatch_size"), load.compared_on
    budget = _gepa_budget(params, load)
    last = 2 * few + rows + _GEPA_MERGE_ROWS
    rounds = math.ceil(budget / (2 * few)) + 1
    writers = load.predictors if params["component_selector"] == "all" else 1
    return Effort(
        runs=max(budget, rows) + last, prompts=rounds * writers, rescored=rounds * few * load.predictors
    )


def _gepa_budget(params: Params, load: Load) -> int:
    if params["max_metric_calls"] is not None:
        return _whole(params, "max_metric_calls")
    if params["max_full_evals"] is not None:
        return _whole(params, "max_full_evals") * (load.train + load.validation)
    candidates, rows = AUTO_CANDIDATES[str(params["auto"])], load.compared_on
    trials = _trials(candidates, load.predictors * 2)
    full = (trials + 1) // _GEPA_FULL_STEPS + 1 + (trials < _GEPA_FULL_STEPS)
    return rows + candidates * 5 + trials * _GEPA_MINIBATCH + full * rows


def infer_rules(params: Params, load: Load) -> Effort:
    """InferRules: bootstraps, then writes rules for each candidate and scores it on the validation rows; without any,
    half of the training rows are taken for that. The teacher writes the rules."""
    train = load.train if load.validation else load.train // 2
    candidates, rows = _whole(params, "num_candidates"), load.validation or load.train - train
    return Effort(
        runs=candidates * rows,
        teacher_runs=_attempts(params, train),
        lessons=candidates * load.predictors,
        **_demos(params, train),
    )


def _trials(candidates: int, variables: int) -> int:
    """`MIPROv2._set_num_trials_from_num_candidates`, which GEPA's `auto_budget` repeats."""
    return int(max(2 * variables * math.log2(candidates), 1.5 * candidates))


def _attempts(params: Params, rows: int) -> int:
    return rows * _whole(params, "max_rounds") if _whole(params, "max_bootstrapped_demos") else 0


def _demos(params: Params, rows: int) -> dict[str, int]:
    worked, labeled = _whole(params, "max_bootstrapped_demos"), _whole(params, "max_labeled_demos")
    return {"demos": min(max(worked, labeled), rows), "worked": min(worked, rows)}


def _whole(params: Params, name: str) -> int:
    value: Any = params[name]
    return int(value or 0)
