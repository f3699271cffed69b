"""Runs side by side: what they were asked, what they scored on the rows they have in common, where they disagree."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from dspyui.domain.base import Frozen, Notice
from dspyui.domain.comparisons import Estimate, PairedTest, paired_tests, score_estimate
from dspyui.domain.compiles import CompileResult, RowResult
from dspyui.domain.runs import RunInfo
from dspyui.domain.signatures import Row

# The model that a metric asks decides the score too: where it stands among the params of a Run.
_ASKED_BY: Mapping[str, str] = {"llm_judge": "lm.judge.", "semantic_similarity": "lm.embedder."}
# A longer value of a parameter is named, not shown.
_SHORT = 60


class ComparedRun(Frozen):
    """One of the Runs: `own` is over all its test rows that have a score, `common` over those all Runs have."""

    info: RunInfo
    result: CompileResult | None
    own: Estimate | None
    common: Estimate | None


class ParamRow(Frozen):
    """A parameter that is not the same in all Runs; None where a Run does not have it."""

    name: str
    values: tuple[str | None, ...]


class ComparedRow(Frozen):
    """A common test row, with what each Run's program made of it."""

    inputs: Row
    expected: Row
    outcomes: tuple[RowResult, ...]

    @property
    def scores(self) -> tuple[float | None, ...]:
        """Each Run's score, in their order."""
        return tuple(outcome.score for outcome in self.outcomes)

    @property
    def disagrees(self) -> bool:
        """Whether the scores differ."""
        return len(set(self.scores)) > 1

    @property
    def counts(self) -> bool:
        """Whether every program has a score for it, made of the same fields."""
        fields = {frozenset(outcome.by_field) for outcome in self.outcomes}
        return None not in self.scores and len(fields) == 1


class RunComparison(Frozen):
    """Everything the page shows. `rows` are the common test rows, `counted` how many of them are compared.

    `obstacle` says why there is no test, and then `tests` is empty. `left_out` were asked for too, and are batches.
    """

    runs: tuple[ComparedRun, ...]
    params: tuple[ParamRow, ...]
    rows: tuple[ComparedRow, ...]
    counted: int
    tests: tuple[PairedTest, ...]
    obstacle: Notice | None = None
    left_out: tuple[RunInfo, ...] = ()


def compare_runs(runs: Sequence[tuple[RunInfo, CompileResult | None]]) -> RunComparison:
    """Compare the optimised programs of two Runs or more.

    A test row is common when inputs and expected outputs are the same in all Runs; one that is there several times is
    paired in the order of the rows. Rows without a score in one of the Runs, or with one of other fields, count for
    none.
    """
    infos = [info for info, _result in runs]
    obstacle = _obstacle(runs)
    rows = _common_rows([result for _info, result in runs if result is not None]) if _all_found(runs) else ()
    counting = [row for row in rows if row.counts]
    scores = [[outcome.score or 0.0 for outcome in side] for side in _columns(counting, len(runs))]
    if obstacle is None and not counting:
        obstacle = Notice(key="ui.compare.no_common")
    is_fair = obstacle is None
    return RunComparison(
        runs=tuple(
            ComparedRun(
                info=info,
                result=result,
                own=_own(result),
                common=score_estimate(scores[index]) if is_fair else None,
            )
            for index, (info, result) in enumerate(runs)
        ),
        params=_differing([info.params for info in infos]),
        rows=rows,
        counted=len(counting),
        tests=paired_tests(scores) if is_fair else (),
        obstacle=obstacle,
    )


def _all_found(runs: Sequence[tuple[RunInfo, CompileResult | None]]) -> bool:
    return all(result is not None for _info, result in runs)


def _obstacle(runs: Sequence[tuple[RunInfo, CompileResult | None]]) -> Notice | None:
    """Why scores may not be compared; None when they may."""
    without = [info.name or info.run_id for info, result in runs if result is None]
    if without:
        return Notice(key="ui.compare.no_rows", values={"names": ", ".join(without)})
    metrics = [_metric_params(info.params) for info, _result in runs]
    if any(metric != metrics[0] for metric in metrics):
        names = sorted({name for metric in metrics for name in metric.keys() | metrics[0].keys()
                        if metric.get(name) != metrics[0].get(name)})  # fmt: skip
        said = ", ".join(_against(name, [metric.get(name, "–") for metric in metrics]) for name in names)
        return Notice(key="ui.compare.other_metric", values={"params": said})
    return None


def _against(name: str, values: Sequence[str]) -> str:
    """What the metrics differ in, with its values where they are short; those of the metric and its fields need no
    name."""
    different = list(dict.fromkeys(values))
    if max(map(len, different)) > _SHORT:
        return name
    said = " ≠ ".join(different)
    return said if name in {"metric", "metric.fields"} else f"{name}: {said}"


def _metric_params(params: Mapping[str, str]) -> dict[str, str]:
    """The params that say how answers are scored: the metric, and the model it asks."""
    asked = _ASKED_BY.get(params.get("metric", ""))
    return {
        name: value
        for name, value in params.items()
        if name == "metric" or name.startswith("metric.") or (asked is not None and name.startswith(asked))
    }


def _own(result: CompileResult | None) -> Estimate | None:
    scores = [row.score for row in result.optimised.rows if row.score is not None] if result else []
    return score_estimate(scores) if scores else None


def _common_rows(results: Sequence[CompileResult]) -> tuple[ComparedRow, ...]:
    """The rows of the first Run that all others have too, in its order."""
    keyed = [_keyed(result.optimised.rows) for result in results]
    return tuple(
        ComparedRow(inputs=row.inputs, expected=row.expected, outcomes=tuple(rows[key] for rows in keyed))
        for key, row in keyed[0].items()
        if all(key in rows for rows in keyed)
    )


def _keyed(rows: Sequence[RowResult]) -> dict[tuple[str, int], RowResult]:
    """Each row under its content, and which of its equals it is."""
    seen: Counter[str] = Counter()
    found: dict[tuple[str, int], RowResult] = {}
    for row in rows:
        content = json.dumps([row.inputs, row.expected], sort_keys=True, ensure_ascii=False, default=str)
        found[content, seen[content]] = row
        seen[content] += 1
    return found


def _columns(rows: Sequence[ComparedRow], count: int) -> list[list[RowResult]]:
    return [[row.outcomes[index] for row in rows] for index in range(count)]


def _differing(params: Sequence[Mapping[str, str]]) -> tuple[ParamRow, ...]:
    names = sorted({name for given in params for name in given})
    rows = (ParamRow(name=name, values=tuple(given.get(name) for given in params)) for name in names)
    return tuple(row for row in rows if len(set(row.values)) > 1)
